package config

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestDiscoveryIsRead(t *testing.T) {
	c, err := Load(sources(t, `
service: shop
coordinator: {url: "consul://127.0.0.1:8500", token_file: /run/secrets/consul, datacenter: dc2, tls: true, ca: /ca.pem}
watches:
  db: {service: postgres, tag: primary}
  cache: redis
  conf: {prefix: shop/conf/}
jobs:
  web:
    command: web
    main: true
    service: {name: web, port: 8080, address: [eth0, 10.0.0.0/8, "static:web.example"], tags: [a, b], meta: {v: "1"}, ttl: 15s, initial: warning, drain: 2s, deregister_after: 1h}
  side: {command: side, on: ["changed:conf", "healthy:db", "unhealthy:cache"], service: side}
`, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	w := c.Jobs["web"].Service
	got := fmt.Sprint(c.CoordinatorKind(), c.CoordinatorHosts(), c.CoordinatorPrefix(), c.Watches["db"], c.Watches["cache"].Service, c.Watches["conf"].Prefix,
		w.Name, w.Port, w.Address, w.Tags, w.Meta, w.TTL, w.Initial, w.Drain, w.DeregisterAfter, c.Jobs["side"].Service.Name, c.Jobs["side"].Service.TTL)
	want := "consul[127.0.0.1:8500]drover/shop{postgres primary   }redisshop/conf/web8080[eth0 10.0.0.0/8 static:web.example][a b]map[v:1]15swarning2s1hside30s"
	if strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for url, want := range map[string]string{
		"etcd://a:1,b:2":       "etcd [a:1 b:2] ",
		"etcd://a:1,b:2/team":  "etcd [a:1 b:2] /team",
		"dns://10.0.0.2:53/dc": "dns [10.0.0.2:53] /dc",
		"file:///etc/c.yaml":   "file [] /etc/c.yaml",
	} {
		c, err := Load(sources(t, "coordinator: "+url, nil, nil))
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(c.CoordinatorKind(), " ", c.CoordinatorHosts(), " ", c.CoordinatorPath()); got != want {
			t.Errorf("%s: %q, want %q", url, got, want)
		}
	}
	for url, want := range map[string]string{"etcd://a:1": "", "etcd://a:1/": "", "etcd://a:1/team": "team/", "etcd://a:1/team/shop/": "team/shop/"} {
		if c, err := Load(sources(t, "coordinator: "+url, nil, nil)); err != nil || c.KeysBelow() != want {
			t.Errorf("%s: %q, %v; want %q", url, c.KeysBelow(), err, want)
		}
	}
	if c, err := Load(sources(t, "store: {url: file:///s, password: x}", nil, nil)); err != nil || c.CoordinatorKind() != CoordinatorStore || c.Coordinator.Every.Std() != 5*time.Second {
		t.Errorf("%v, %v", c, err)
	}
}

func TestDiscoveryThatCannotBe(t *testing.T) {
	const consul = "coordinator: consul://h:1\n"
	job := func(service string) string { return consul + "jobs: {a: {command: x, service: " + service + "}}" }
	for text, want := range map[string]string{
		"coordinator: zookeeper://h:1":                                                       `drover.yaml:1:14: no coordinator is written as "zookeeper://h:1"; write consul://`,
		"coordinator: consul":                                                                `no coordinator is written as`,
		"coordinator: consul://h":                                                            `address "h" is not host:port`,
		"coordinator: consul://a:1,b:2":                                                      `several hosts`,
		"coordinator: etcd://user:x@a:1":                                                     `holds credentials`,
		"coordinator: etcd://a:1/team/../x":                                                  `no keys can be below "team/../x/"`,
		"coordinator: consul://a:1/team":                                                     `take /team out`,
		"coordinator: file://a/b":                                                            `is not absolute`,
		"coordinator: store":                                                                 `the coordinator is the store, and there is none`,
		"coordinator: {url: \"etcd://a:1\", token_file: /t}":                                 `coordinator.token_file is of consul only`,
		"coordinator: {url: \"etcd://a:1\", user: x}":                                        `belong together`,
		"coordinator: {url: \"consul://a:1\", token: x, token_file: /t}":                     `given in two ways`,
		"coordinator: {url: \"consul://a:1\", cert: /t}":                                     `cert and key belong together`,
		"coordinator: {url: \"consul://a:1\", ca: /t}":                                       `write tls: true`,
		"coordinator: {url: \"consul://a:1\", every: 1ms}":                                   `too short`,
		"watches: {a: b}":                                                                    `there is no coordinator, and no store that could be it`,
		"jobs: {a: {command: x, service: web}}":                                              `there is no coordinator`,
		"coordinator: file:///c.yaml\njobs: {a: {command: x, service: web}}":                 `nothing can be written`,
		"coordinator: dns://h:53/x\nwatches: {a: {key: k}}":                                  `only a catalog`,
		consul + "watches: {a: {service: b, key: c}}":                                        `is of 2 things`,
		consul + "watches: {a: {key: c, tag: x}}":                                            `has a tag or a datacenter`,
		consul + "watches: {a: b}\njobs: {a: {command: x}}":                                  `"a" is a watch and a job`,
		consul + "watches: {conf: {key: x}}\njobs: {a: {command: x, on: [\"changed:cnf\"]}}": `event changed:cnf is of no watch; did you mean "conf"?`,
		consul + "jobs: {a: {command: x, on: [\"changed:w\"]}}":                              `add it below watches`,
		job("{port: 1}"):                                                                     `has no name`,
		job("{name: a b}"):                                                                   `service name "a b" is not valid`,
		job("{name: a, port: 65536}"):                                                        `out of range`,
		job("{name: a, ttl: 1s}"):                                                            `write 3s or more`,
		job("{name: a, initial: maintenance}"):                                               `initial`,
		job("{name: a, address: \"eth0:ipv4\"}"):                                             `"eth0:ipv4" finds no address`,
		consul + "jobs: {b: {command: x}, a: {command: x, before_stop: b, service: c}}":      `runs only when others stop, and is a service`,
	} {
		_, err := Load(sources(t, text, nil, nil))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n%v\nwant %s", text, err, want)
		}
	}
}
