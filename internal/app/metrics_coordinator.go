package app

import (
	"github.com/prometheus/client_golang/prometheus"
)

// coordinatorCollector shows what the agent has in a coordinator, or from it.
type coordinatorCollector struct {
	agent                                           *agent
	service, watch, template, stale, roll, git, sec *prometheus.Desc
}

func newCoordinatorCollector(a *agent) *coordinatorCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("drover_"+name, help, labels, nil)
	}
	return &coordinatorCollector{
		agent:    a,
		service:  desc("service_as_wanted", "1 while the catalog says of the job's service what it should.", jobLabel, "service"),
		watch:    desc("watch_known", "1 while the present state of what is watched is known.", "watch"),
		template: desc("template_rendered", "1 while the file is rendered with the newest values that are known, and what follows was done.", "template"),
		stale:    desc("template_stale_values", "Values in use that are perhaps not the newest, because nobody answers.", "template"),
		roll:     desc("roll_stopped", "1 while this instance keeps what it has because another one failed after the change.", "roll"),
		git:      desc("git_failing", "1 while the last look at the repository failed.", "repository"),
		sec:      desc("secrets_healthy", "1 while Vault serves all secrets that are in use."),
	}
}

func (c *coordinatorCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.service, c.watch, c.template, c.stale, c.roll, c.git, c.sec} {
		ch <- d
	}
}

func (c *coordinatorCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, s := range c.agent.services.states() {
		gauge(c.service, truth(s.Status == s.Wanted && s.Error == ""), s.Job, s.Name)
	}
	for _, w := range c.agent.watches.states() {
		gauge(c.watch, truth(w.Known && w.Error == ""), w.Name)
	}
	current := c.agent.renders.current()
	for _, t := range current.status() {
		gauge(c.template, truth(t.State == "rendered" && t.Unacted == ""), t.Name)
		gauge(c.stale, float64(len(t.Stale)), t.Name)
	}
	for _, r := range current.rollStates() {
		gauge(c.roll, truth(r.State == "stopped"), r.Name)
	}
	if g := gitState(c.agent.git); g != nil {
		for _, r := range g.Repositories {
			gauge(c.git, truth(r.Error != ""), r.Name)
		}
	}
	if s := c.agent.secrets.state(); s != nil {
		gauge(c.sec, truth(s.Healthy))
	}
}
