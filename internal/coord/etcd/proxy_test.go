package etcd

import (
	"net"
	"net/url"
	"sync"
	"testing"
)

// proxy is a way to a member that can be cut, or made to swallow everything.
type proxy struct {
	URL    string
	target string
	listen net.Listener
	group  sync.WaitGroup

	mu    sync.Mutex
	mode  linkMode
	moved chan struct{} // closed when mode changes
	conns map[net.Conn]bool
}

type linkMode int

const (
	up linkMode = iota
	cut
	hanging
)

func startProxy(t *testing.T, endpoint string) *proxy {
	t.Helper()
	u, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{target: u.Host, moved: make(chan struct{}), conns: map[net.Conn]bool{}}
	if p.listen, err = new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	p.URL = u.Scheme + "://" + p.listen.Addr().String()
	p.group.Go(p.accept)
	t.Cleanup(func() {
		_ = p.listen.Close()
		p.set(cut)
		p.group.Wait()
	})
	return p
}

func (p *proxy) accept() {
	for {
		c, err := p.listen.Accept()
		if err != nil {
			return
		}
		p.group.Go(func() { p.serve(c) })
	}
}

func (p *proxy) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	p.mu.Lock()
	refused := p.mode == cut
	if !refused {
		p.conns[client], p.conns[server] = true, true
	}
	p.mu.Unlock()
	if refused {
		return
	}
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, client)
		delete(p.conns, server)
	}()
	var both sync.WaitGroup
	both.Go(func() { p.copy(client, server) })
	both.Go(func() { p.copy(server, client) })
	both.Wait()
}

// copy ends both connections when one has ended.
func (p *proxy) copy(to, from net.Conn) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if !p.pass() {
			return
		}
		if _, werr := to.Write(buf[:n]); werr != nil || err != nil {
			return
		}
	}
}

// pass waits while the proxy hangs, and returns false when it is cut.
func (p *proxy) pass() bool {
	for {
		p.mu.Lock()
		mode, moved := p.mode, p.moved
		p.mu.Unlock()
		if mode != hanging {
			return mode == up
		}
		<-moved
	}
}

func (p *proxy) set(mode linkMode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mode = mode
	close(p.moved)
	p.moved = make(chan struct{})
	if mode == cut {
		for c := range p.conns {
			_ = c.Close()
		}
	}
}
