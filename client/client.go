package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"
)

// ErrNoAgent: nobody listens on the socket.
var ErrNoAgent = errors.New("no agent answers")

// Kinds of errors that an agent answers with, in Backup.Kind and Error.Kind.
const (
	KindUnknown    = "unknown"    // no such job, metric or hook
	KindAbsent     = "absent"     // the store does not have the file asked for
	KindConflict   = "conflict"   // the store has another content under that name
	KindBusy       = "busy"       // something of the kind is under way
	KindInvalid    = "invalid"    // the request cannot be meant
	KindIncomplete = "incomplete" // files could not be read; no commit
	KindHeld       = "held"       // this instance is not the holder
	KindUnsafe     = "unsafe"     // the database's cluster is not in a state for it; nothing was done
	KindTimeout    = "timeout"    // the caller's time is over
	KindForbidden  = "forbidden"  // the caller's user may not ask this
	KindFailed     = "failed"     // anything else
)

// Error is an agent's refusal.
type Error struct {
	Kind    string `json:"kind"`
	Message string `json:"error"` // one line
}

func (e *Error) Error() string { return e.Message }

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 16 << 20

// connectTimeout is how long an agent may take to accept on a local socket.
const connectTimeout = 10 * time.Second

// Client speaks with the agent on one socket. Its methods may be called at once.
type Client struct {
	socket string
	http   *http.Client
}

// New makes a client of the agent on the socket, without asking for it yet.
func New(socket string) *Client {
	dialer := &net.Dialer{Timeout: connectTimeout}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
		MaxResponseHeaderBytes: 64 << 10,
	}
	return &Client{socket: socket, http: &http.Client{Transport: transport}}
}

// Dial makes a client and pings its agent. The error is ErrNoAgent if nobody listens.
func Dial(ctx context.Context, socket string) (*Client, error) {
	c := New(socket)
	if err := c.Ping(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close gives the connections back.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Ping asks whether the agent is there.
func (c *Client) Ping(ctx context.Context) error {
	return c.call(ctx, http.MethodGet, "/v1/ping", nil, &struct{}{})
}

// Status asks for the instance's account of itself.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.call(ctx, http.MethodGet, "/v1/status", nil, &s)
	return s, err
}

// BackupRequest is the body of POST /v1/backup.
type BackupRequest struct {
	Queue bool `json:"queue"`
}

// Backup asks for a commit of what is on the disk now, and waits for it, however long;
// queue: only until the request is accepted. The end of ctx ends the wait, not the
// backup. An *Error says what the agent refused; the Backup then holds what is known.
func (c *Client) Backup(ctx context.Context, queue bool) (Backup, error) {
	var b Backup
	err := c.call(ctx, http.MethodPost, "/v1/backup", BackupRequest{Queue: queue}, &b)
	return b, err
}

// TakeoverRequest is the body of POST /v1/takeover.
type TakeoverRequest struct {
	Grace float64 `json:"grace_seconds"`
}

// HandOver asks the holder to make room for a standby, within grace, and waits until one
// has the volume. An *Error says what the agent refused, or that nobody took it.
func (c *Client) HandOver(ctx context.Context, grace time.Duration) (Takeover, error) {
	var t Takeover
	err := c.call(ctx, http.MethodPost, "/v1/takeover", TakeoverRequest{Grace: grace.Seconds()}, &t)
	return t, err
}

// call makes one request. A refusal's body fills out too.
func (c *Client) call(ctx context.Context, method, path string, body, out any) error {
	answer, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }() // it was read whole, or is given up
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return c.explain(ctx, err)
	}
	if answer.StatusCode >= http.StatusBadRequest {
		refusal := &Error{Kind: KindFailed, Message: strings.TrimSpace(string(text))}
		if json.Unmarshal(text, refusal) == nil {
			_ = json.Unmarshal(text, out) // what it knows; the refusal says enough
		}
		return refusal
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("read answer of agent on %s: %w", c.socket, err)
	}
	return nil
}

// send makes a request and returns the answer when its head is there.
func (c *Client) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("write request: %w", err)
		}
		reader = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://drover"+path, reader)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	answer, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	return answer, nil
}

// explain makes one line of what net/http says.
func (c *Client) explain(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w on %s", ErrNoAgent, c.socket)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("open socket %s: %w", c.socket, os.ErrPermission)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("agent on %s ended before it answered", c.socket)
	}
	var at *net.OpError
	if errors.As(err, &at) {
		return fmt.Errorf("ask agent on %s: %w", c.socket, at.Err)
	}
	return fmt.Errorf("ask agent on %s: %w", c.socket, err)
}
