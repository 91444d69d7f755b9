package etcdserver

import (
	"net"
	"strings"
	"testing"

	"drover/internal/testkit/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

func (s *Server) put(t *testing.T, i int, key, value string) {
	t.Helper()
	s.Call(i, "/v3/kv/put", map[string]string{"key": encode(key), "value": encode(value)}, nil)
}

func (s *Server) has(t *testing.T, i int, key string) bool {
	t.Helper()
	var answer struct{ Count string }
	s.Call(i, "/v3/kv/range", map[string]any{"key": encode(key)}, &answer)
	return answer.Count == "1"
}

func TestDataOutliveTheProcess(t *testing.T) {
	s := Start(t, Options{})
	s.put(t, 0, "a", "x")
	at := s.Revision()
	s.Stop()
	if c, err := net.Dial("tcp", strings.TrimPrefix(s.Endpoints[0], "http://")); err == nil {
		_ = c.Close()
		t.Error("a stopped server takes connections")
	}
	s.StartAgain()
	if !s.has(t, 0, "a") || s.Revision() != at {
		t.Error("the key is gone")
	}
	s.Compact()
	s.Wipe()
	if s.has(t, 0, "a") || s.Revision() >= at {
		t.Error("the key is still there")
	}
	s.Pause(0) // the clean-up has to end a paused one, too
}

func TestClusterOutlivesItsLeader(t *testing.T) {
	s := Start(t, Options{Members: 3})
	first := s.Leader()
	s.put(t, (first+1)%3, "a", "x")
	s.StopMember(first)
	if second := s.Leader(); second == first {
		t.Errorf("member %d leads, which is stopped", second)
	}
	s.put(t, (first+2)%3, "b", "x")
	s.StartAgain()
	if !s.has(t, first, "b") {
		t.Error("the old leader has not what was written meanwhile")
	}
}

func TestUsersAndCertificates(t *testing.T) {
	s := Start(t, Options{TLS: true, ClientCerts: true, Auth: true})
	s.AddUser("reader", "secret", "below/")
	if err := s.call(0, "/v3/kv/range", map[string]string{"key": encode("x")}, nil, ""); err == nil {
		t.Error("somebody without a name may read")
	}
	if len(s.Leases()) != 0 {
		t.Error("there are leases")
	}
}
