package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// handshakeTimeout bounds connecting and logging in.
const handshakeTimeout = 30 * time.Second

// sshSession is git-upload-pack at the other end of an SSH connection. It is spoken to here
// and not by the library, so that the context bounds all of it and no agent, and no
// configuration of somebody's home, is asked.
type sshSession struct {
	client  *ssh.Client
	channel *ssh.Session
	stop    func() bool // no longer watch the context
	stdin   io.WriteCloser
	stdout  io.Reader
	stderr  note
	once    sync.Once
}

// note keeps the beginning of what is written to it.
type note struct{ text []byte }

func (n *note) Write(p []byte) (int, error) {
	n.text = append(n.text, p[:min(len(p), 500-min(500, len(n.text)))]...)
	return len(p), nil
}

func (r *Remote) dialSSH(ctx context.Context) (session, error) {
	port := r.endpoint.Port
	if port <= 0 {
		port = 22
	}
	addr := net.JoinHostPort(strings.Trim(r.endpoint.Host, "[]"), strconv.Itoa(port))
	config, err := r.sshConfig(addr)
	if err != nil {
		return nil, err
	}
	dialCtx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(dialCtx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	timedOut := context.AfterFunc(dialCtx, func() { _ = conn.Close() })
	c, channels, requests, err := ssh.NewClientConn(conn, addr, config)
	if err != nil {
		timedOut()
		_ = conn.Close()
		return nil, err
	}
	s := &sshSession{client: ssh.NewClient(c, channels, requests)}
	if !timedOut() {
		_ = s.client.Close()
		return nil, dialCtx.Err()
	}
	s.stop = context.AfterFunc(ctx, func() { _ = s.client.Close() })
	if err := s.start(r.endpoint.Path, r.o.Limits.Pack*2+1<<20); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

func (s *sshSession) start(path string, limit int64) error {
	channel, err := s.client.NewSession()
	if err != nil {
		return err
	}
	if s.stdin, err = channel.StdinPipe(); err != nil {
		return err
	}
	stdout, err := channel.StdoutPipe()
	if err != nil {
		return err
	}
	s.stdout = &cutOff{io.NopCloser(stdout), limit}
	channel.Stderr = &s.stderr
	s.channel = channel
	return channel.Start("git-upload-pack " + quoted(path))
}

// quoted is one word for a shell, and for git-shell, which knows these two escapes only.
func quoted(s string) string {
	return "'" + strings.NewReplacer("'", `'\''`, "!", `'\!'`).Replace(s) + "'"
}

func (r *Remote) sshConfig(addr string) (*ssh.ClientConfig, error) {
	pem, err := os.ReadFile(r.o.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read the SSH key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(pem)
	if locked := (*ssh.PassphraseMissingError)(nil); errors.As(err, &locked) && r.o.PassphraseFile != "" {
		passphrase, readErr := secret(r.o.PassphraseFile)
		if readErr != nil {
			return nil, readErr
		}
		signer, err = ssh.ParsePrivateKeyWithPassphrase(pem, []byte(passphrase))
	}
	if err != nil {
		return nil, fmt.Errorf("read the SSH key %s: %w", r.o.KeyFile, err)
	}
	known, err := knownhosts.New(r.o.KnownHostsFile)
	if err != nil {
		return nil, fmt.Errorf("read known hosts: %w", err)
	}
	user := r.endpoint.User
	if user == "" {
		user = "git"
	}
	return &ssh.ClientConfig{
		User:              user,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback:   known,
		HostKeyAlgorithms: algorithms(known, addr),
	}, nil
}

// algorithms are those of the keys that are known of the server: it may have others too, and
// would show one of these first. None: it is not known, and the callback will say so.
func algorithms(known ssh.HostKeyCallback, addr string) []string {
	var wrong *knownhosts.KeyError
	if !errors.As(known(addr, &net.TCPAddr{}, noKey{}), &wrong) {
		return nil
	}
	var all []string
	for _, k := range wrong.Want {
		if t := k.Key.Type(); t == ssh.KeyAlgoRSA {
			all = append(all, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		} else {
			all = append(all, t)
		}
	}
	return all
}

// noKey is nobody's key.
type noKey struct{}

func (noKey) Type() string                        { return "none" }
func (noKey) Marshal() []byte                     { return []byte("none") }
func (noKey) Verify([]byte, *ssh.Signature) error { return errors.New("no key") }

// AdvertisedReferencesContext implements session.
func (s *sshSession) AdvertisedReferencesContext(context.Context) (*packp.AdvRefs, error) {
	adv := packp.NewAdvRefs()
	if err := adv.Decode(s.stdout); err != nil {
		if errors.Is(err, packp.ErrEmptyAdvRefs) {
			return nil, transport.ErrEmptyRemoteRepository
		}
		return nil, s.explain(err)
	}
	if adv.IsEmpty() {
		return nil, transport.ErrEmptyRemoteRepository
	}
	transport.FilterUnsupportedCapabilities(adv.Capabilities)
	return adv, nil
}

// explain adds what the other end said on its standard error, if it has ended.
func (s *sshSession) explain(err error) error {
	if !errors.Is(err, packp.ErrEmptyInput) {
		return err
	}
	_ = s.stdin.Close()
	if s.channel.Wait() == nil || len(s.stderr.text) == 0 {
		return err
	}
	return fmt.Errorf("the server says %q: %w", strings.TrimSpace(string(s.stderr.text)), err)
}

// UploadPack implements session.
func (s *sshSession) UploadPack(_ context.Context, req *packp.UploadPackRequest) (*packp.UploadPackResponse, error) {
	if err := req.Validate(); err != nil {
		return nil, err
	}
	if err := req.UploadRequest.Encode(s.stdin); err != nil {
		return nil, err
	}
	if err := pktline.NewEncoder(s.stdin).EncodeString("done\n"); err != nil {
		return nil, err
	}
	if err := s.stdin.Close(); err != nil {
		return nil, err
	}
	answer := packp.NewUploadPackResponse(req)
	return answer, answer.Decode(io.NopCloser(s.stdout))
}

// Close implements session.
func (s *sshSession) Close() error {
	s.once.Do(func() {
		if s.stop != nil {
			s.stop()
		}
		_ = s.client.Close() // nothing was written that could be lost
		_ = s.client.Wait()
	})
	return nil
}
