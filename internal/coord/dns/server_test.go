package dns_test

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	mdns "github.com/miekg/dns"
)

// server is a DNS server on a loopback port, by UDP and TCP.
type server struct {
	addr string
	t    *testing.T

	mu      sync.Mutex
	records []mdns.RR
	rcode   int    // of all answers, unless it is success
	failing uint16 // type whose questions fail
	mute    bool   // it answers nothing
	asked   []string
}

func start(t *testing.T) *server {
	t.Helper()
	s := &server{t: t}
	for range 20 { // the same port of both networks must be free
		pc, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", pc.LocalAddr().String())
		if err != nil {
			_ = pc.Close()
			continue
		}
		s.addr = pc.LocalAddr().String()
		s.serve(&mdns.Server{PacketConn: pc, Handler: s})
		s.serve(&mdns.Server{Listener: l, Handler: s})
		return s
	}
	t.Fatal("no port is free for UDP and TCP")
	return nil
}

func (s *server) serve(d *mdns.Server) {
	started, ended := make(chan struct{}), make(chan struct{})
	d.NotifyStartedFunc = func() { close(started) }
	go func() {
		defer close(ended)
		_ = d.ActivateAndServe()
	}()
	<-started
	s.t.Cleanup(func() {
		_ = d.Shutdown()
		<-ended
	})
}

// set replaces the zone: records in the form of a zone file.
func (s *server) set(records ...string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = nil
	for _, text := range records {
		rr, err := mdns.NewRR(text)
		if err != nil {
			s.t.Fatal(err)
		}
		s.records = append(s.records, rr)
	}
}

func (s *server) fail(rcode int, mute bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rcode, s.mute = rcode, mute
}

// failOf has questions of one type fail.
func (s *server) failOf(t uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing = t
}

// questions returns what was asked since it was called last.
func (s *server) questions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

// ServeDNS implements dns.Handler.
func (s *server) ServeDNS(w mdns.ResponseWriter, q *mdns.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ask, network := q.Question[0], w.LocalAddr().Network()
	s.asked = append(s.asked, fmt.Sprintf("%s %s %s", network, mdns.TypeToString[ask.Qtype], ask.Name))
	if s.mute {
		return
	}
	a := new(mdns.Msg)
	a.SetRcode(q, mdns.RcodeNameError)
	owner := strings.ToLower(ask.Name)
	for _, rr := range s.records {
		if h := rr.Header(); h.Rrtype != mdns.TypeSOA && strings.ToLower(h.Name) == owner {
			a.Rcode = mdns.RcodeSuccess
			if h.Rrtype == ask.Qtype || h.Rrtype == mdns.TypeCNAME {
				a.Answer = append(a.Answer, rr)
			}
		}
		if rr.Header().Rrtype == mdns.TypeSOA {
			a.Ns = append(a.Ns, rr)
		}
	}
	if ask.Qtype == s.failing {
		a.SetRcode(q, mdns.RcodeServerFailure)
	}
	if s.rcode != mdns.RcodeSuccess {
		a.SetRcode(q, s.rcode)
		a.Answer, a.Ns = nil, nil
	}
	if network == "udp" {
		a.Truncate(mdns.MinMsgSize)
	}
	_ = w.WriteMsg(a)
}
