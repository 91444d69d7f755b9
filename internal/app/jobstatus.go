package app

import (
	"drover/client"
	"drover/internal/supervise"
)

// phaseWords are the states of a job as the API has them.
var phaseWords = map[supervise.Phase]string{
	supervise.Idle: "waiting", supervise.Starting: "starting", supervise.Running: "running", supervise.Draining: "draining", supervise.Stopping: "stopping",
	supervise.Clearing: "stopping", supervise.Killing: "stopping", supervise.Waiting: "restarting", supervise.Ended: "exited",
}

// jobStates are the jobs and their checks as they are now.
func (a *agent) jobStates() []client.Job {
	list := a.jobs.states()
	a.checks.show(list)
	return list
}

// states are the jobs as they are now; without a supervisor all of them wait.
func (j *jobs) states() []client.Job {
	var list []client.Job
	s := j.supervisor()
	if s == nil || len(s.Jobs()) == 0 {
		for _, job := range j.all() {
			list = append(list, client.Job{Name: job.Name, Main: job.Main, State: "waiting"})
		}
		return list
	}
	for _, job := range s.Jobs() {
		c := client.Job{
			Name: job.Name, Main: job.Main, State: phaseWords[job.Phase], PID: job.PID, Since: job.Since,
			Ready: job.Ready, Restarts: job.Restarts, Runs: job.Runs, Held: job.Held,
		}
		if job.Ended {
			c.Exit = &job.Exit
		}
		if !job.Due.IsZero() {
			c.Next = &job.Due
		}
		list = append(list, c)
	}
	return list
}
