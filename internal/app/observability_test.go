package app

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/client"
	"drover/internal/repo/fstest"
)

const observability = "../../examples/observability"

// everyMetric is an agent that has everything which there are metrics of.
func everyMetric(t *testing.T) *supervisor {
	t.Helper()
	dir := t.TempDir()
	s := runs(t, `
store: {url: "file://`+dir+`/bucket", password_command: "echo sesame"}
data_dir: `+dir+`/data
state: [{path: `+dir+`/state}]
watches: {keys: {prefix: shop/}}
templates: {conf: {content: "x", destination: `+dir+`/conf, roll: 1}}
secrets: {vault: {address: "http://127.0.0.1:1", token: x}}
git: {conf: {url: "http://127.0.0.1:1/conf.git"}}
jobs:
  app:
    command: sleep infinity
    main: true
    checks: {here: {exec: "true", every: 100ms}}
    service: {name: app, address: "static:127.0.0.1"}
  once: {command: "true"}
`)
	// In either order.
	s.until("both jobs have done what they are to do", func(st client.Status) bool {
		done := map[string]bool{}
		for _, j := range st.Jobs {
			done[j.Name] = j.Exit != nil || j.Health == "healthy"
		}
		return done["app"] && done["once"]
	})
	_, err := s.Backup(t.Context(), false)
	fstest.Must(t, err)
	return s
}

// scrape reads what the agent shows, in Prometheus's own form.
func (s *supervisor) scrape() string {
	s.t.Helper()
	ask := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", s.cfg.Socket)
		},
	}}
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://drover/metrics", nil)
	fstest.Must(s.t, err)
	answer, err := ask.Do(req)
	fstest.Must(s.t, err)
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	fstest.Must(s.t, err)
	return string(text)
}

// families are the names of the metrics in an exposition.
func families(text string) map[string]bool {
	names := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (drover_\w+) `).FindAllStringSubmatch(text, -1) {
		names[m[1]] = true
	}
	return names
}

// named are the metrics that a text speaks of. (Histograms are asked for by their parts.)
func named(text string) map[string]bool {
	names := map[string]bool{}
	for _, name := range regexp.MustCompile(`\bdrover_\w+`).FindAllString(text, -1) {
		for _, part := range []string{"_bucket", "_sum", "_count"} {
			name = strings.TrimSuffix(name, part)
		}
		names[name] = true
	}
	return names
}

func promtool(t *testing.T, stdin io.Reader, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "promtool", args...)
	cmd.Dir, cmd.Stdin = observability, stdin
	if out, err := cmd.CombinedOutput(); err != nil || bytes.Contains(out, []byte("WARNING")) {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// TestMetricsAreWhatTheyAreSaidToBe holds names, documentation, dashboard and rules against
// what a real agent shows.
func TestMetricsAreWhatTheyAreSaidToBe(t *testing.T) {
	text := everyMetric(t).scrape()
	promtool(t, strings.NewReader(text), "check", "metrics")
	shown := families(text)
	if of := regexp.MustCompile(`drover_\w+\{(?:[^}]*,)?(?:job|instance)=`).FindString(text); of != "" {
		t.Errorf("%s…: that label is Prometheus's own", of)
	}
	for _, file := range []string{"dashboard.json", "rules.yaml", "rules_test.yaml"} {
		about, err := os.ReadFile(filepath.Join(observability, file))
		fstest.Must(t, err)
		for name := range named(string(about)) {
			if !shown[name] {
				t.Errorf("%s speaks of %s, which no agent shows", file, name)
			}
		}
	}
	page, err := os.ReadFile("../../docs/metrics.md")
	fstest.Must(t, err)
	told := named(string(page))
	for _, name := range slices.Sorted(maps.Keys(shown)) {
		if !told[name] {
			t.Errorf("docs/metrics.md does not tell of %s", name)
		}
	}
	for name := range told {
		if !shown[name] {
			t.Errorf("docs/metrics.md tells of %s, which no agent shows", name)
		}
	}
}

// TestAlertRules carries the rules out on made-up series.
func TestAlertRules(t *testing.T) {
	promtool(t, nil, "check", "rules", "rules.yaml")
	promtool(t, nil, "test", "rules", "rules_test.yaml")
	promtool(t, nil, "check", "config", "--syntax-only", "prometheus.yaml")
}

// TestLeaseMargin: a holder's claim is good for no more than the TTL, and a supervisor has none.
func TestLeaseMargin(t *testing.T) {
	s := everyMetric(t)
	if m := s.leaseMargin(); m <= 0 || m > s.cfg.Lease.TTL.Std() {
		t.Errorf("margin %v of a TTL of %v", m, s.cfg.Lease.TTL.Std())
	}
	alone := runs(t, "jobs: {app: {command: sleep infinity}}")
	if m := alone.leaseMargin(); m != time.Duration(0) {
		t.Errorf("margin %v without a store", m)
	}
}
