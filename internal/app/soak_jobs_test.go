package app

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"drover/internal/repo/fstest"
)

const (
	soakMain    = "zmain"
	soakAnchors = 6 // jobs that every configuration has, for others to hang on
)

type fields = map[string]any

// soakKinds are the ways of a job to behave, one function each. What a job is called
// decides which is its own, so that all configurations have about the same mixture.
var soakKinds = []func(r *rand.Rand, s *soakPlan) fields{
	func(*rand.Rand, *soakPlan) fields { return fields{"command": []string{"sleep", "3600"}} },
	func(r *rand.Rand, _ *soakPlan) fields { // crashes, under limits
		return fields{
			"command": fmt.Sprintf("echo at work; sleep %.1f; kill -SEGV $$", r.Float64()),
			"limits":  fields{"core": 0, "nofile": 100 + r.IntN(100)}, "restart": soakRestart("always"),
		}
	},
	func(r *rand.Rand, _ *soakPlan) fields { // exits at once
		return fields{"command": []string{"sh", "-c", fmt.Sprint("exit ", r.IntN(3))}, "restart": soakRestart("on-failure")}
	},
	func(*rand.Rand, *soakPlan) fields { // is not there
		return fields{"command": []string{"/nonexistent/program"}, "restart": soakRestart("always")}
	},
	func(r *rand.Rand, _ *soakPlan) fields { // hangs for good
		return fields{
			"command": "kill -STOP $$; echo woken; sleep 1", "timeout": soakTime(r, 500, 3000),
			"restart": soakRestart("always"), "stop": fields{"grace": soakTime(r, 50, 400)},
		}
	},
	func(r *rand.Rand, _ *soakPlan) fields { // is deaf
		return fields{
			"command": "trap '' TERM HUP INT USR1 USR2; while :; do sleep 0.5; done", "timeout": soakTime(r, 2000, 6000),
			"restart": soakRestart("always"), "stop": fields{"grace": soakTime(r, 50, 500)},
		}
	},
	func(r *rand.Rand, _ *soakPlan) fields { // leaves daemons in sessions of their own, and ends
		return fields{
			"command": fmt.Sprintf("(setsid sh -c 'setsid sleep 3600 & exec sleep 3600' &); (setsid sleep 0.1 &); sleep %.1f; exit 1", r.Float64()),
			"restart": soakRestart("always"), "stop": fields{"grace": soakTime(r, 50, 300)},
		}
	},
	func(r *rand.Rand, _ *soakPlan) fields { // the same, and the daemons are deaf
		return fields{
			"command": `(setsid sh -c "trap '' TERM; while :; do sleep 0.3; done" &); exec sleep 3600`, "timeout": soakTime(r, 1000, 4000),
			"restart": soakRestart("always"), "stop": fields{"grace": soakTime(r, 50, 300)},
		}
	},
	func(r *rand.Rand, _ *soakPlan) fields { // floods its log
		return fields{
			"command": fmt.Sprintf("yes 'a line of output that says nothing at all, over and over' | head -n %d; sleep 1", 1000+r.IntN(10_000)),
			"restart": soakRestart("always"), "output": []string{"prefix", "raw", "json", "none"}[r.IntN(4)],
		}
	},
	func(r *rand.Rand, _ *soakPlan) fields { // is ready late, or too late
		return fields{
			"command": fmt.Sprintf("sleep %.1f; echo >&3; exec sleep 3600", r.Float64()), "ready": fields{"fd": 3, "timeout": soakTime(r, 500, 2000)},
			"restart": soakRestart("always"),
		}
	},
	func(r *rand.Rand, _ *soakPlan) fields { // is never ready
		return fields{
			"command": []string{"sleep", "3600"}, "ready": fields{"notify": true, "timeout": soakTime(r, 500, 1500)},
			"restart": soakRestart("always"),
		}
	},
	func(r *rand.Rand, _ *soakPlan) fields { // tells by its log, and waits for others
		return fields{
			"command": fmt.Sprintf("sleep 0.%d; echo up; exec sleep 3600", r.IntN(6)), "ready": fields{"log": "^up$"},
			"after": fields{soakName(r.IntN(soakAnchors)): "started"},
		}
	},
	func(r *rand.Rand, _ *soakPlan) fields { // its command hangs when it is checked
		return fields{"command": []string{"sleep", "3600"}, "restart": soakRestart("always"), "checks": fields{
			"hangs": fields{"exec": "sleep 60 & sleep 60", "every": soakTime(r, 700, 2000), "timeout": "300ms", "threshold": 2, "on_failure": []string{"ignore", "restart"}[r.IntN(2)]},
			"good":  fields{"exec": []string{"true"}, "every": soakTime(r, 700, 2000)},
		}}
	},
	func(r *rand.Rand, s *soakPlan) fields { // nobody answers when it is checked
		return fields{"command": []string{"sleep", "3600"}, "ready": fields{"check": "tcp"}, "checks": fields{
			"http": fields{"http": "http://" + s.deaf + "/", "every": soakTime(r, 500, 1500), "timeout": "400ms", "threshold": 1 + r.IntN(3)},
			"tcp":  fields{"tcp": s.deaf, "every": soakTime(r, 500, 1500)},
		}}
	},
	func(r *rand.Rand, _ *soakPlan) fields { // has its turns
		return fields{"command": fmt.Sprintf("sleep 0.%d; exit %d", r.IntN(9), r.IntN(2)), "every": soakTime(r, 500, 3000)}
	},
	func(r *rand.Rand, _ *soakPlan) fields { // runs at events, with a stop command
		return fields{
			"command": fmt.Sprintf("echo $SOAK_0; sleep 0.%d; exit %d", r.IntN(9), r.IntN(2)),
			"on":      []string{"signal:USR1", "webhook:soak", "maintenance:on", "exit:" + soakName(r.IntN(soakAnchors))},
			"stop":    fields{"command": []string{"sleep", "0.1"}, "grace": "200ms"},
		}
	},
	func(r *rand.Rand, _ *soakPlan) fields { // belongs to the end of others
		when := []string{"before_stop", "after_stop"}[r.IntN(2)]
		return fields{"command": fmt.Sprintf("sleep 0.%d", r.IntN(5)), when: soakName(r.IntN(soakAnchors)), "timeout": "2s"}
	},
}

func soakRestart(policy string) fields {
	return fields{"policy": policy, "delay": "300ms", "max": "3s", "reset": "10s"}
}

func soakTime(r *rand.Rand, least, most int) string {
	return fmt.Sprint(time.Duration(least+r.IntN(most-least)) * time.Millisecond)
}

func soakName(i int) string { return fmt.Sprintf("j%03d", i) }

// soakPlan is the configuration of now.
type soakPlan struct {
	dir, deaf string
	jobs      int
	now       map[int]fields
}

// tame says whether a job of that name does not fail by itself soon after its start.
func tame(i int) bool {
	switch kind := soakKind(i); kind {
	case 0, 11, 12, 13, 16:
		return true
	}
	return false
}

func soakKind(i int) int {
	if i < soakAnchors {
		return 0
	}
	return i % len(soakKinds)
}

// one makes the definition of job i anew.
func (s *soakPlan) one(r *rand.Rand, i int) fields {
	f := soakKinds[soakKind(i)](r, s)
	f["env"] = fields{"SOAK_EDITION": fmt.Sprint(r.Uint32())}
	return f
}

// change makes another configuration of the one of now: some jobs are defined anew, one
// goes, others come. Only tame ones: the new configuration can start.
func (s *soakPlan) change(r *rand.Rand, onlyTame bool) map[int]fields {
	next := map[int]fields{}
	for i, f := range s.now {
		next[i] = f
	}
	const names = 8 // more than there are jobs
	for range 1 + r.IntN(6) {
		i := r.IntN(s.jobs + names)
		if onlyTame && !tame(i) {
			continue
		}
		if _, there := next[i]; there && i >= soakAnchors && len(next) > s.jobs-names && r.IntN(3) == 0 {
			delete(next, i)
		} else {
			next[i] = s.one(r, i)
		}
	}
	return next
}

func (s *soakPlan) write(t testing.TB, jobs map[int]fields) {
	all := fields{soakMain: fields{
		"command": "trap : HUP USR1 USR2 WINCH; echo up; while :; do sleep 1; done", "main": true, "ready": fields{"log": "up"}, "output": "none",
	}}
	for i, f := range jobs {
		all[soakName(i)] = f
	}
	text, err := json.Marshal(fields{"jobs": all, "metrics": fields{"soak_count": fields{"type": "counter"}}})
	fstest.Must(t, err)
	file := filepath.Join(s.dir, "drover.yaml")
	fstest.Must(t, os.WriteFile(file+".new", text, 0o600))
	fstest.Must(t, os.Rename(file+".new", file))
}
