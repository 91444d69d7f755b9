package consul_test

import (
	"net"
	"net/url"
	"sync"
	"testing"
)

// proxy is the line of one client to the server, which can be cut and held.
type proxy struct {
	t      *testing.T
	to     string
	listen net.Listener
	group  sync.WaitGroup

	mu      sync.Mutex
	open    *sync.Cond // of mu; told when hanging ends
	conns   map[net.Conn]bool
	down    bool
	hanging bool
	closed  bool
}

func startProxy(t *testing.T, server string) *proxy {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, to: u.Host, listen: l, conns: map[net.Conn]bool{}}
	p.open = sync.NewCond(&p.mu)
	p.group.Go(p.accept)
	t.Cleanup(func() {
		p.set(func() { p.closed = true })
		_ = l.Close()
		p.drop()
		p.group.Wait()
	})
	return p
}

func (p *proxy) address() string { return "http://" + p.listen.Addr().String() }

func (p *proxy) accept() {
	for {
		client, err := p.listen.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		refuse := p.down || p.closed
		p.mu.Unlock()
		if refuse {
			_ = client.Close()
			continue
		}
		server, err := new(net.Dialer).DialContext(p.t.Context(), "tcp", p.to)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.set(func() { p.conns[client], p.conns[server] = true, true })
		p.group.Go(func() { p.pipe(server, client) })
		p.group.Go(func() { p.pipe(client, server) })
	}
}

// pipe copies until either end is closed; then both are.
func (p *proxy) pipe(to, from net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		for p.hanging && !p.closed {
			p.open.Wait()
		}
		p.mu.Unlock()
		if n > 0 {
			if _, failed := to.Write(buf[:n]); failed != nil {
				err = failed
			}
		}
		if err != nil {
			_, _ = to.Close(), from.Close()
			p.set(func() { delete(p.conns, to); delete(p.conns, from) })
			return
		}
	}
}

func (p *proxy) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	p.open.Broadcast()
}

// drop ends all connections.
func (p *proxy) drop() {
	p.set(func() {
		for c := range p.conns {
			_ = c.Close()
		}
	})
}

func (p *proxy) cut() {
	p.set(func() { p.down = true })
	p.drop()
}

func (p *proxy) hang() { p.set(func() { p.hanging = true }) }
func (p *proxy) heal() { p.set(func() { p.down, p.hanging = false, false }) }
