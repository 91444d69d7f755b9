package app

import (
	"testing"

	"drover/client"
)

func TestUnsettled(t *testing.T) {
	one := 1
	for want, job := range map[string]client.Job{
		"":                            {Name: "a", State: "running", Ready: true, Checks: []client.Check{{Name: "c", Health: "healthy"}}},
		"job a is draining":           {Name: "a", State: "draining", Ready: true},
		"job a is restarting":         {Name: "a", State: "restarting"},
		"job a is not ready":          {Name: "a", State: "running"},
		"job a ended with status 1":   {Name: "a", State: "exited", Exit: &one},
		"check c of job a is unknown": {Name: "a", State: "running", Ready: true, Checks: []client.Check{{Name: "c", Health: "unknown"}}},
	} {
		if got := unsettled([]client.Job{{Name: "by turns", State: "waiting", Exit: &one}, {Name: "by hand", State: "exited", Held: true}, job}); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
