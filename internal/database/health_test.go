package database

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"drover/internal/failover"
)

// shown is a member that answers its paths, and never runs.
func shown(t *testing.T, v View) *Member {
	t.Helper()
	m := &Member{opt: Options{Driver: newEngine().node("m"), Prefix: "db", Failover: failover.Config{Name: "m", TTL: time.Hour}}, began: time.Now()}
	v.Name, v.ID = "m", "m-1"
	if v.State == "" {
		v.State = "running"
	}
	if v.Role == RolePrimary {
		v.until = time.Hour
	}
	m.seen.Store(&v)
	return m
}

func (m *Member) get(method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	m.health(w, httptest.NewRequest(method, path, nil))
	return w
}

func number64(n int64) *int64 { return &n }

// TestPatroniPaths: each path says of each kind of member what Patroni says.
func TestPatroniPaths(t *testing.T) {
	record := &failover.Record{Epoch: 2, Phase: failover.Running, Primary: "p-1"}
	standby := &failover.Record{Epoch: 1, Phase: failover.Standby}
	kinds := []View{
		{Role: RolePrimary, Primary: "m", Record: record},
		{Role: RoleReplica, Receiving: true, Sync: true, Lag: number64(2 << 20), Record: record},
		{Role: RoleReplica, Receiving: true, Lag: number64(0), Tags: failover.Tags{NoSync: true, Priority: 3}, Record: record},
		{Role: RoleReplica, Receiving: true, Tags: failover.Tags{NoLoadBalance: true}, Record: record},
		{Role: RoleNone, State: "starting", Record: record},
		{Role: RoleNone, Received: "/a", Record: record}, // a server that runs, without a primary
		{Role: RoleStandby, Foremost: true, Record: standby}, {Role: RoleStandby, Record: standby},
	}
	// primary, synchronous replica 2 MiB behind, asynchronous replica, one with noloadbalance, starting, without a primary;
	// of a standby cluster who answers for it, and another one
	for path, want := range map[string]string{
		"/":                                    "+.......",
		"/primary":                             "+.......",
		"/master":                              "+.......",
		"/leader":                              "+.....+.",
		"/read-write":                          "+.......",
		"/primary?lag=0":                       "+.......",
		"/primary?tag_nosync=true":             "+.......", // tags do not count there
		"/standby-leader":                      "......+.",
		"/standby_leader":                      "......+.",
		"/replica":                             ".++...++",
		"/replica/":                            ".++...++",
		"/replica?lag=1048576":                 "..+.....",
		"/replica?lag=2097152":                 ".++.....",
		"/replica?lag=1MB":                     "..+.....",
		"/replica?lag=2MB":                     ".++.....",
		"/replica?lag=1024kB":                  "..+.....",
		"/replica?lag=1GB":                     ".++.....",
		"/replica?lag=0":                       "..+.....",
		"/replica?lag=":                        ".++...++",
		"/replica?lag=much":                    ".++...++",
		"/replica?replication_state=streaming": ".++.....",
		"/replica?replication_state=lost":      "........",
		"/replica?tag_nosync=true":             "..+.....",
		"/replica?tag_failover_priority=3":     "..+.....",
		"/replica?tag_nosync=false":            "........",
		"/replica?tag_zone=a":                  "........",
		"/read-only":                           "+++...++",
		"/read-only?lag=1MB":                   "+.+.....",
		"/sync":                                ".+......",
		"/synchronous":                         ".+......",
		"/quorum":                              ".+......",
		"/read-only-sync":                      "++......",
		"/read-only-synchronous":               "++......",
		"/read-only-quorum":                    "++......",
		"/async":                               "..+...++",
		"/asynchronous?lag=1MB":                "..+.....",
		"/health":                              "++++.+++",
		"/liveness":                            "++++++++",
		"/readiness":                           "+.+...++", // at most 1 MiB behind
		"/readiness?lag=16MB":                  "+++...++",
		"/patroni":                             "++++++++",
		"/cluster":                             "++++++++",
		"/history":                             "++++++++",
		"/replica?replication_state=in%20archive%20recovery": "......++",
	} {
		got := ""
		for _, v := range kinds {
			m := shown(t, v)
			codes := map[int]string{}
			for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodOptions} {
				w := m.get(method, path)
				codes[w.Code] = method
				if method == http.MethodGet != (w.Body.Len() > 0) {
					t.Errorf("%s %s has %d bytes", method, path, w.Body.Len())
				}
				if method == http.MethodGet && !json.Valid(w.Body.Bytes()) {
					t.Errorf("%s: %s", path, w.Body)
				}
			}
			switch {
			case len(codes) != 1:
				t.Errorf("%s: the methods differ: %v", path, codes)
			case codes[http.StatusOK] != "":
				got += "+"
			case codes[http.StatusServiceUnavailable] != "":
				got += "."
			default:
				t.Errorf("%s: %v", path, codes)
			}
		}
		if got != want {
			t.Errorf("%-36s got %s, want %s", path, got, want)
		}
	}
	m := shown(t, kinds[0])
	if c := m.get(http.MethodGet, "/nothing").Code; c != http.StatusNotFound {
		t.Error("a path that is none:", c)
	}
	if c := m.get(http.MethodPost, "/primary").Code; c == http.StatusOK {
		t.Error("POST:", c)
	}
}

// TestHeldUp: a member whose decisions hang is not alive, and no primary once its claim is over; and it still
// answers, while its lock is held.
func TestHeldUp(t *testing.T) {
	m := shown(t, View{Role: RolePrimary})
	m.opt.Failover.TTL = time.Millisecond
	v := *m.seen.Load()
	v.until = 0
	m.seen.Store(&v)
	m.mu.Lock()
	defer m.mu.Unlock()
	for deadline := time.Now().Add(time.Minute); m.now() < 2*time.Millisecond && time.Now().Before(deadline); {
	}
	for path, want := range map[string]int{"/primary": 503, "/liveness": 503, "/patroni": 200, "/read-only": 503} {
		if c := m.get(http.MethodGet, path).Code; c != want {
			t.Errorf("%s: %d", path, c)
		}
	}
}

// TestBodies: what monitoring reads is there, under Patroni's names.
func TestBodies(t *testing.T) {
	c := newCluster(t, failover.On, "a", "b", "c")
	first := c.formed()
	get := func(i *instance, path string) string {
		resp, err := http.Get("http://" + i.opt.Failover.Self.API + path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	defer http.DefaultClient.CloseIdleConnections()
	if _, err := first.Switchover(c.ctx(), "", time.Time{}); err != nil {
		t.Fatal(err)
	}
	second := c.formed()
	for path, parts := range map[string][]string{
		"/primary": {`"role":"primary"`, `"state":"running"`, `"timeline":2`, `"xlog":{"location":`, `"sync_state":"quorum"`, `"database_system_identifier":"system"`, `"name":"` + second.name() + `"`, `"version":"test"`},
		"/cluster": {`"role":"leader"`, `"role":"quorum_standby"`, `"state":"streaming"`, `"lag":0`, `"api_url":"http://127.0.0.1:`, `"timeline":2`},
		"/history": {`[[1,`, `"switchover"`},
	} {
		text := get(second, path)
		for _, part := range parts {
			if !strings.Contains(text, part) {
				t.Errorf("%s has no %s: %s", path, part, text)
			}
		}
	}
	text := get(c.other(second), "/replica")
	for _, part := range []string{`"role":"replica"`, `"received_location":`, `"replayed_location":`, `"replication_state":"streaming"`, `"sync_standby":true`} {
		if !strings.Contains(text, part) {
			t.Errorf("/replica has no %s: %s", part, text)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1048576": 1 << 20, "16kB": 16 << 10, "64MB": 64 << 20, "1GB": 1 << 30, "1 TB": 1 << 40, "1.5MB": 3 << 19, "7B": 7,
		"": -1, "MB": -1, "-1": -1, "1XB": -1, "1e99GB": -1, "NaN": -1,
	} {
		got, ok := parseSize(text)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
}
