// Package control serves an agent's control API: HTTP on a unix socket, to the jobs
// and to people; and the little of it that monitoring needs on a TCP address.
//
// It promises: who asks is known by the kernel's word (SO_PEERCRED), not by a file
// mode; the users of jobs may do what the table in routes.go says, the agent's own user
// and root everything; what is answered over TCP is read-only and has no secrets; a
// caller that goes away ends its own wait and nothing else; a slow reader of a stream
// holds up neither those who publish nor the end; the socket of an agent that lives is
// never taken over.
//
// It leaves to others: what a backup or a job is (Agent), and the client's side
// (package client). docs/openapi.yaml describes the API; a test holds it to the table,
// the types and the answers.
package control

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"drover/client"
	"drover/internal/event"
)

// Agent is who answers. Its methods are called from many goroutines.
type Agent interface {
	// Status does not block.
	Status() client.Status
	// Backup waits until what is on the disk now is committed; queue: until the
	// request is accepted. The end of ctx ends the wait, never the backup. With an
	// error, Backup.Kind may say which; "" means failed.
	Backup(ctx context.Context, queue bool) (client.Backup, error)
	// HandOver makes room for a standby and waits until one has the volume; what is
	// not done after grace is given up. The end of ctx ends the wait alone.
	HandOver(ctx context.Context, grace time.Duration) (client.Takeover, error)

	// Bus is where events are published.
	Bus() *event.Bus
	// Logs begins with so many of the newest lines of the job; "": of all jobs.
	Logs(job string, newest int) Lines

	// The rest answer with a *client.Error where its Kind matters; any other error
	// counts as "failed". The end of ctx ends the wait alone.

	// StartJob starts the job, and waits until it runs and is ready, or has failed.
	StartJob(ctx context.Context, name string) error
	// StopJob stops the job, and waits until it is gone.
	StopJob(ctx context.Context, name string) error
	// RestartJob stops the job and starts it, and waits until it runs again.
	RestartJob(ctx context.Context, name string) error
	// SignalJob sends the job a signal, named as TERM or SIGTERM.
	SignalJob(name, signal string) error
	// Reload reads the configuration again, and waits until the new jobs are as it says.
	Reload(ctx context.Context) (client.Reload, error)
	Maintenance(on bool) error
	// PutEnv changes the environment of runs that start from now on; nil takes a
	// variable out.
	PutEnv(change map[string]*string) error
	// PutMetric sets, adds to or observes the metrics of the configuration, by their type.
	PutMetric(values map[string]float64) error
	// PushWAL stores a file of the database's log, at an absolute path in its data directory;
	// KindConflict, if another content is stored under its name.
	PushWAL(ctx context.Context, path string) error
	// FetchWAL brings a file of the log to such a path; KindAbsent only if the store does not have it.
	FetchWAL(ctx context.Context, name, path string) error
	// Webhook says that a hook of that name was called.
	Webhook(name string) error
	// Health says whether all that counts at a level ("alive" or "ready") is well. It
	// does not block.
	Health(level string) client.Health
	Database
}

// Lines are lines of jobs' output, oldest first. It is used by one goroutine.
type Lines interface {
	// Next returns what came since the last call, nothing if there is nothing.
	Next() []client.LogLine
	// Wait waits until there is something, or until ctx ends.
	Wait(ctx context.Context) ([]client.LogLine, error)
	// Missed is how many lines were lost before those that were returned last: they
	// came faster than they were read.
	Missed() int
}

// Bounds on a request: time to send its head and its body, and their sizes in bytes.
const (
	readTimeout = 5 * time.Second
	idleTimeout = time.Minute
	maxHead     = 16 << 10
	maxBody     = 64 << 10
	// stopGrace is how long answers that are being written may take at the end.
	stopGrace = time.Second
)

// Options of New.
type Options struct {
	Path    string          // of the socket
	Log     *slog.Logger    // nil: silent
	JobUIDs func() []uint32 // users of the jobs; nil: none but the agent's own
	Metrics http.Handler    // nil: no /metrics
	Listen  string          // TCP address of what monitoring needs; "": none

	readTimeout time.Duration // 0: the constant; tests shorten it
}

// Server is the API of one agent.
type Server struct {
	agent  Agent
	opt    Options
	http   *http.Server
	tcp    *http.Server    // nil: none
	ending context.Context // ends when streams are to end
	listen sync.Mutex      // guards socket and public
	socket *socket
	public net.Listener
}

// New prepares a server; Listen takes the socket, Serve answers.
func New(agent Agent, opt Options) *Server {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.readTimeout == 0 {
		opt.readTimeout = readTimeout
	}
	s := &Server{agent: agent, opt: opt}
	s.http = &http.Server{
		Handler:           s.private(),
		ReadHeaderTimeout: opt.readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHead,
		ConnContext:       withPeer,
		ErrorLog:          slog.NewLogLogger(opt.Log.Handler(), slog.LevelDebug),
	}
	ending, end := context.WithCancel(context.Background())
	s.ending = ending
	s.http.RegisterOnShutdown(end)
	if opt.Listen != "" {
		s.tcp = s.publicServer()
	}
	return s
}

// Listen takes the socket, so that jobs started from now on find it, and the TCP
// address. It fails if another agent has one of them.
func (s *Server) Listen() (err error) {
	s.listen.Lock()
	defer s.listen.Unlock()
	if s.socket != nil {
		return nil
	}
	socket, err := takeSocket(s.opt.Path)
	if err != nil {
		return err
	}
	if s.opt.Listen != "" {
		if s.public, err = listenPublic(s.opt.Listen); err != nil {
			socket.release()
			return err
		}
		s.opt.Log.Info("metrics and health are answered", "address", s.public.Addr().String())
	}
	s.socket = socket
	return nil
}

// Serve answers until ctx ends, then gives the socket back. It calls Listen if nobody
// did. A server serves once.
func (s *Server) Serve(ctx context.Context) error {
	if err := s.Listen(); err != nil {
		return err
	}
	defer s.socket.release()
	var group errgroup.Group
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	serve := func(server *http.Server, listener net.Listener) {
		group.Go(func() error {
			defer cancel() // one that ends by itself ends the other
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
		group.Go(func() error {
			<-stop.Done()
			shut(context.WithoutCancel(ctx), server)
			return nil
		})
	}
	serve(s.http, s.socket.listener)
	if s.tcp != nil {
		serve(s.tcp, s.public)
	}
	return group.Wait()
}

// shut ends a server, in bounded time.
func shut(ctx context.Context, server *http.Server) {
	grace, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		_ = server.Close() // cuts who still waits; it has no other failure to tell
	}
}
