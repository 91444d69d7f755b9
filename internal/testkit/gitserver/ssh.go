package gitserver

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
)

// SSH serves the repositories of a server over SSH, for reading.
type SSH struct {
	KeyFile        string // of the one client that may come in
	KnownHostsFile string

	s        *Server
	listener net.Listener
	config   *ssh.ServerConfig

	mu    sync.Mutex
	conns []net.Conn
	wg    sync.WaitGroup
}

// StartSSH starts it.
func StartSSH(t testing.TB, s *Server) *SSH {
	t.Helper()
	g := &SSH{s: s, listener: loopback(t), KeyFile: filepath.Join(s.home, "id"), KnownHostsFile: filepath.Join(s.home, "known_hosts")}
	client, block := newKey(t)
	write(t, g.KeyFile, pem.EncodeToMemory(block))
	host, _ := newKey(t)
	g.config = &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		if !bytes.Equal(k.Marshal(), client.PublicKey().Marshal()) {
			return nil, errors.New("nobody I know")
		}
		return &ssh.Permissions{}, nil
	}}
	g.config.AddHostKey(host)
	_, port, _ := net.SplitHostPort(g.listener.Addr().String())
	line := append([]byte("[127.0.0.1]:"+port+" "), ssh.MarshalAuthorizedKey(host.PublicKey())...)
	write(t, g.KnownHostsFile, line)
	g.wg.Go(g.accept)
	t.Cleanup(g.close)
	return g
}

func newKey(t testing.TB) (ssh.Signer, *pem.Block) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	return signer, block
}

// URL is the address of a repository.
func (g *SSH) URL(r *Repository) string { return "ssh://git@" + g.listener.Addr().String() + r.bare }

func (g *SSH) close() {
	_ = g.listener.Close()
	g.mu.Lock()
	for _, c := range g.conns {
		_ = c.Close()
	}
	g.mu.Unlock()
	g.wg.Wait()
}

func (g *SSH) accept() {
	for {
		conn, err := g.listener.Accept()
		if err != nil {
			return
		}
		g.mu.Lock()
		g.conns = append(g.conns, conn)
		g.mu.Unlock()
		g.wg.Go(func() { g.serve(conn) })
	}
}

func (g *SSH) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	_, channels, requests, err := ssh.NewServerConn(conn, g.config)
	if err != nil {
		return
	}
	g.wg.Go(func() { ssh.DiscardRequests(requests) })
	for c := range channels {
		channel, requests, err := c.Accept()
		if err != nil {
			return
		}
		g.wg.Go(func() { g.session(channel, requests) })
	}
}

// session runs the one command that it is asked for, if it is git-upload-pack.
func (g *SSH) session(channel ssh.Channel, requests <-chan *ssh.Request) {
	defer func() { _ = channel.Close() }()
	for r := range requests {
		var command struct{ Line string }
		if r.Type != "exec" || ssh.Unmarshal(r.Payload, &command) != nil || !strings.HasPrefix(command.Line, "git-upload-pack ") {
			_ = r.Reply(false, nil)
			continue
		}
		_ = r.Reply(true, nil)
		cmd := exec.CommandContext(context.Background(), "sh", "-c", command.Line) // it ends with its channel
		cmd.Env, cmd.Stdout, cmd.Stderr = g.s.env(), channel, channel.Stderr()
		stdin, err := cmd.StdinPipe()
		if err != nil {
			return
		}
		g.wg.Go(func() { // until the channel is closed, or git has ended
			_, _ = io.Copy(stdin, channel)
			_ = stdin.Close()
		})
		status := struct{ Status uint32 }{}
		if err := cmd.Run(); err != nil {
			status.Status = 128
		}
		_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(status))
		return
	}
}
