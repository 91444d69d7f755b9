package config

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestJobsAreRead(t *testing.T) {
	c, err := Load(sources(t, `
jobs:
  db:
    command: [postgres]
    limits: {nofile: 1024, core: unlimited, nice: -5}
    ready: {notify: true}
    stop: {command: pg_ctl stop}
    checks: {up: {tcp: "localhost:5432", every: 1s}, sql: {exec: [psql, -c, "select 1"], level: alive, on_failure: restart}}
  app:
    command: app
    main: true
    restart: on-failure
    signals: {TERM: QUIT, sighup: USR1}
    after: {db: healthy}
    checks: {web: {http: "http://localhost/", level: ready}, rpc: {grpc: {address: "localhost:1", tls: true}}, page: {http: {url: "https://x/", status: [204, 3xx], headers: {A: b}}}}
  sweep: {command: sweep, every: "*/5 * * * *", timeout: 1m}
  tick: {command: tick, every: 30s, restart: {policy: always, count: 3}}
  on: {command: a, on: [committed, exit:db, signal:HUP, "webhook:go", maintenance: on]}
  once: {command: a, once: healthy:app}
  drain: {command: a, before_stop: app}
  after: {command: a, after_stop: [app, db]}
metrics: {app_queue: {type: histogram, buckets: [0.1, 1, 10], command: echo 1}}
listen: ":9464"
`, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	j := c.Jobs
	got := fmt.Sprint(j["db"].Limits.NoFile, j["db"].Limits.Core, j["db"].Limits.Nice, j["db"].Ready.Notify, len(j["db"].Checks), j["db"].Checks["sql"].OnFailure,
		j["app"].Restart.Policy, j["app"].Signals["HUP"], j["app"].After["db"], j["app"].Checks["page"].HTTP.Status, j["app"].Checks["rpc"].GRPC.TLS,
		j["sweep"].Every, j["tick"].Every.Interval, j["tick"].Restart.Count, j["on"].On, j["once"].Once, j["drain"].BeforeStop, j["after"].AfterStop, c.Metrics["app_queue"].Buckets)
	want := "1024 unlimited -5 true 2 restart on-failure USR1 healthy [204 3xx] true */5 * * * * 30s 3 [committed exit:db signal:HUP webhook:go maintenance:on] [healthy:app] [app] [app db] [0.1 1 10]"
	if strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if next := j["sweep"].Every.Schedule.Next(time.Date(2026, 1, 1, 0, 1, 0, 0, time.UTC)); next.Minute() != 5 {
		t.Errorf("next turn %s", next)
	}
}

func TestJobsThatCannotBe(t *testing.T) {
	const two = "jobs:\n  a: {command: x, main: true}\n  b: {command: x, "
	for text, want := range map[string]string{
		two + "after: {c: ready}}":                                    `drover.yaml:3:30: job "b" waits for "c", which is no job`,
		two + "after: {b: ready}}":                                    `job "b" waits for itself`,
		two + "after: {a: healthy}}":                                  `which has no checks`,
		two + "after: {a: redy}}":                                     `did you mean "ready"?`,
		two + "on: [exit:c]}":                                         `event exit:c is of no job`,
		two + "on: [exits]}":                                          `there is no event "exits"; did you mean "exit"?`,
		two + "on: [committed:a]}":                                    `event "committed" has no source`,
		two + "on: [signal:TERM]}":                                    `signal TERM starts no job; HUP, USR1 and USR2 can`,
		two + "on: [{exit: a, x: b}]}":                                `must be an event`,
		two + "on: [maintenance:maybe]}":                              `write maintenance:on or maintenance:off`,
		two + "every: 5}":                                             `duration "5" has no unit`,
		two + "every: 1ms}":                                           `interval 1ms is too short`,
		two + `every: "61 * * * *"}`:                                  `is not a cron expression`,
		two + "before_stop: c}":                                       `which is no job`,
		two + "before_stop: a, main: false, on: [committed]}":         `nothing else can start it`,
		two + "ready: {fd: 3, notify: true}}":                         `in more than one way that it is ready (fd, notify)`,
		two + "ready: {fd: 1}}":                                       `from 3 to 1023`,
		two + "ready: {check: web}}":                                  `which it does not have`,
		two + "ready: {log: \"(\"}}":                                  `is not a regular expression`,
		two + "checks: {c: {}}}":                                      `has 0 kinds; give it one of http, tcp, exec and grpc`,
		two + "checks: {c: {tcp: \"h:1\", exec: x}}}":                 `has 2 kinds`,
		two + "checks: {c: {tcp: h}}}":                                `address "h" is not host:port`,
		two + "checks: {c: {tcp: \"h:99999\"}}}":                      `port "99999"`,
		two + "checks: {c: {http: \"ftp://h\"}}}":                     `is not one of HTTP`,
		two + "checks: {c: {http: {url: \"http://h\", status: 99}}}}": `status "99" is none`,
		two + "checks: {c: {tcp: \"h:1\", every: 1ms}}}":              `too short`,
		two + "checks: {c: {tcp: \"h:1\", threshold: 0}}}":            `write 1 or more`,
		two + "limits: {nofile: many}}":                               `"many" is not a limit`,
		two + "limits: {nice: 20}}":                                   `from -20 to 19`,
		two + "restart: often}":                                       `"often" is not one of never, on-failure, always`,
		two + "signals: {TERM: NOSUCH}}":                              `"NOSUCH" is not a signal`,
		two + "signals: {NOSUCH: TERM}}":                              `"NOSUCH" is not a signal`,
		two + "signals: {TERM: QUIT, SIGTERM: INT}}":                  `is here twice`,
		two + "after: {a: started}}\n  c: {command: x, before_stop: b}\n  d: {command: x, after: {c: completed}}": `runs only when others stop`,
		"jobs:\n  a: {command: x, after: {b: ready}}\n  b: {command: x, after: {a: ready}}":                       `jobs wait for one another: a after b after a`,
		"jobs: {a: {command: x, main: true, every: 5m}}":                                                          `is main and runs by turns`,
		"metrics: {1x: {}}":                                `metric name "1x" is not valid`,
		"metrics: {drover_x: {}}":                          `a prefix of the agent's own`,
		"metrics: {x: {buckets: [1]}}":                     `has buckets, and is a gauge`,
		"metrics: {x: {type: histogram, buckets: [2, 1]}}": `do not rise`,
		"metrics: {x: {type: histogram, buckets: [a]}}":    `"a" is not a number`,
		"listen: here":                                     `is not host:port`,
	} {
		_, err := Load(sources(t, text, nil, nil))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s\n got %v\nwant %s", text, err, want)
		}
	}
}
