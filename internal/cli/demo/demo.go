// Package demo acts out the story that Drover is for, with real processes on this
// machine: a server of Git repositories whose pushes wait until they are safe, the loss
// of that server with its disk, and another server that has every pushed commit.
//
// It promises: nothing is played. The pushes, kill -9, the removal of the disk and the
// recovery happen and are timed; what is not so is an error. It needs git, no server, no
// network but the loopback, no root; it ends every process that it started and removes
// what it wrote. It leaves everything that is shown to the drover binary itself.
package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Options of Run.
type Options struct {
	Binary string        // the drover binary
	Out    io.Writer     // of the narration
	Colour bool          // whether Out shows colours
	Pushes int           // how many commits are pushed before the loss
	TTL    time.Duration // of the lease
	Keep   bool          // leave the files
}

// Summary is what was measured.
type Summary struct {
	OK             bool      `json:"ok"`
	Pushed         []string  `json:"pushed"`                    // commits whose push returned
	Found          []string  `json:"found"`                     // of those, what the clone from server B has
	PushSeconds    []float64 `json:"push_seconds"`              // each, until it was safe
	StartSeconds   float64   `json:"start_seconds"`             // server A, first start to serving
	TTLSeconds     float64   `json:"ttl_seconds"`               // that B waits until A is given up
	RestoreSeconds float64   `json:"restore_seconds,omitempty"` // of that, by B's own account; 0: it had copied all while it waited
	OutageSeconds  float64   `json:"outage_seconds"`            // from the loss of A to B serving
	Killed         int       `json:"killed"`                    // processes of server A
	Directory      string    `json:"directory,omitempty"`
}

// DefaultTTL is short, so that nobody waits long; the agent's own default is 10 s.
const DefaultTTL = 3 * time.Second

// timeLimit bounds the whole story.
const timeLimit = 3 * time.Minute

// story is one performance.
type story struct {
	Options
	dir     string // holds everything
	git     git
	a, b    *server
	summary Summary
}

// Run performs the story. The summary is filled in as far as it came.
func Run(ctx context.Context, opt Options) (Summary, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeLimit, fmt.Errorf("not at its end after %s", timeLimit))
	defer cancel()
	s := &story{Options: opt}
	err := s.prepare(ctx)
	if err == nil {
		err = s.perform(ctx)
	}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	err = s.cleanUp(context.WithoutCancel(ctx), err)
	s.summary.OK = err == nil
	return s.summary, err
}

// prepare makes the directory and looks for git.
func (s *story) prepare(ctx context.Context) error {
	for _, program := range [][]string{{"git", "--version"}, {"git", "daemon", "--help"}} {
		// `git daemon --help` fails on machines without manuals, but finds the program.
		out, err := exec.CommandContext(ctx, program[0], program[1:]...).CombinedOutput()
		if errors.Is(err, exec.ErrNotFound) || strings.Contains(string(out), "is not a git command") {
			return fmt.Errorf("find %q: install git, with its daemon", strings.Join(program[:len(program)-1], " "))
		}
	}
	dir, err := os.MkdirTemp("", "drover-demo-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	s.dir = dir
	for _, sub := range []string{"bucket", "bin", "server-a", "server-b", "client"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	if err := os.WriteFile(s.path("password"), []byte(rand.Text()), 0o600); err != nil {
		return fmt.Errorf("write password: %w", err)
	}
	// So that the hook reads as it would on a server: drover backup.
	if err := os.Symlink(s.Binary, s.path("bin/drover")); err != nil {
		return fmt.Errorf("link the binary: %w", err)
	}
	s.git = git{home: s.path("client")}
	s.summary.TTLSeconds = s.TTL.Seconds()
	return nil
}

func (s *story) path(sub string) string { return filepath.Join(s.dir, sub) }

// repository is the path of the review server's repository, on every server the same:
// the disk is each server's own, the path is the application's.
func (s *story) repository() string { return s.path("srv/git") }

// perform tells the acts in order.
func (s *story) perform(ctx context.Context) error {
	for _, act := range []func(context.Context) error{s.start, s.push, s.lose, s.recover, s.compare, s.end} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) start(ctx context.Context) error {
	s.act("A bucket, and a server of Git repositories")
	s.tell("The bucket is an empty directory: %s", s.path("bucket"))
	s.tell("A server's disk is %s, which git daemon serves.", s.path("srv"))
	var err error
	if s.a, err = s.newServer(ctx, "server-a"); err != nil {
		return err
	}
	s.tell("Server A:  %s", s.a.commandLine())
	took, err := s.a.start(ctx)
	if err != nil {
		return err
	}
	s.summary.StartSeconds = took.Seconds()
	s.good("serves after %s: bucket initialised, volume claimed, repository made", rounded(took))
	s.tell("Its post-receive hook is one line, which waits:  exec drover backup")
	return nil
}

func (s *story) push(ctx context.Context) error {
	s.act("Pushes, each of which returns when it is safe in the bucket")
	work := s.path("client/work")
	if err := s.git.run(ctx, "clone", "--quiet", s.a.url(), work); err != nil {
		return err
	}
	for i := range s.Pushes {
		commit, err := s.git.commit(ctx, work, i+1)
		if err != nil {
			return err
		}
		begun := time.Now()
		if err := s.git.run(ctx, "-C", work, "push", "--quiet", "origin", "HEAD:refs/heads/main"); err != nil {
			return fmt.Errorf("push %d: %w", i+1, err)
		}
		took := time.Since(begun)
		// git ignores the hook's status: the agent's own word counts.
		if err := s.a.committed(ctx, begun); err != nil {
			return fmt.Errorf("push %d returned: %w", i+1, err)
		}
		s.summary.Pushed = append(s.summary.Pushed, commit)
		s.summary.PushSeconds = append(s.summary.PushSeconds, took.Seconds())
		s.good("push %d  %s  %s", i+1, commit[:10], rounded(took))
	}
	return nil
}

func (s *story) lose(ctx context.Context) error {
	s.act("Server A is lost: kill -9 for all of it, and its disk is removed")
	killed, err := s.a.kill(ctx)
	if err != nil {
		return err
	}
	s.summary.Killed = killed
	for _, sub := range []string{"srv", "server-a", "client/work"} {
		if err := os.RemoveAll(s.path(sub)); err != nil {
			return fmt.Errorf("remove server A's disk: %w", err)
		}
	}
	s.good("killed %d processes; removed its disk, and the client's clone too", killed)
	return nil
}

func (s *story) recover(ctx context.Context) error {
	s.act("Server B starts, with an empty disk")
	lost := s.a.killed
	var err error
	if s.b, err = s.newServer(ctx, "server-b"); err != nil {
		return err
	}
	s.tell("Server B:  %s", s.b.commandLine())
	s.tell("It must be sure that A is gone: A's lease is %s.", s.TTL)
	if _, err := s.b.start(ctx); err != nil {
		return err
	}
	s.summary.OutageSeconds = time.Since(lost).Seconds()
	status, err := s.b.status(ctx)
	if err != nil {
		return err
	}
	how := "it had copied the state while it waited"
	if status.RTO != nil {
		s.summary.RestoreSeconds = *status.RTO
		how = "of that, the restore took " + rounded(time.Duration(*status.RTO*float64(time.Second)))
	}
	s.good("serves %s after the loss of A; %s (epoch %d)", rounded(time.Since(lost)), how, status.Epoch)
	return nil
}

func (s *story) compare(ctx context.Context) error {
	s.act("A fresh clone from server B")
	clone := s.path("client/clone")
	if err := s.git.run(ctx, "clone", "--quiet", s.b.url(), clone); err != nil {
		return err
	}
	history, err := s.git.output(ctx, "-C", clone, "rev-list", "origin/main")
	if err != nil {
		return err
	}
	have := strings.Fields(history)
	var missing []string
	for i, commit := range s.summary.Pushed {
		if !slices.Contains(have, commit) {
			missing = append(missing, fmt.Sprintf("push %d (%s)", i+1, commit[:10]))
			continue
		}
		s.summary.Found = append(s.summary.Found, commit)
	}
	if len(missing) > 0 {
		return fmt.Errorf("pushed commits are lost: %s", strings.Join(missing, ", "))
	}
	if err := s.git.run(ctx, "-C", clone, "fsck", "--full", "--strict", "--no-progress"); err != nil {
		return err
	}
	s.good("has %d of %d pushed commits; git fsck finds no fault", len(s.summary.Found), len(s.summary.Pushed))
	return nil
}

func (s *story) end(ctx context.Context) error {
	s.act("Server B ends in order")
	took, err := s.b.end(ctx)
	if err != nil {
		return err
	}
	state, err := s.b.headState(ctx)
	if err != nil {
		return err
	}
	if state != "released" {
		return fmt.Errorf("server B ended, but the volume is %q, not released", state)
	}
	s.good("last backup made, volume released, in %s: the next server need not wait", rounded(took))
	out, err := s.b.drover(ctx, "verify", "--read-data")
	if err != nil {
		return err
	}
	s.good("drover verify --read-data: %s", strings.TrimSpace(string(out)))
	return nil
}

// cleanUp ends what runs and removes the files; on failure it shows the logs first.
func (s *story) cleanUp(ctx context.Context, failure error) error {
	var errs []error
	for _, server := range []*server{s.a, s.b} {
		if server == nil {
			continue
		}
		if _, err := server.kill(ctx); err != nil {
			errs = append(errs, err)
		}
		if failure != nil && !s.Keep {
			s.tell("The end of %s's log:\n%s", server.name, server.lastLines())
		}
	}
	switch {
	case s.dir == "":
	case s.Keep:
		s.summary.Directory = s.dir
		s.tell("\nEverything is left in %s", s.dir)
		s.tell("restic -r %s/bucket/data --password-file %s/password snapshots", s.dir, s.dir)
	default:
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(failure, errors.Join(errs...))
}

// rounded shows a measured time with as many digits as it is worth.
func rounded(d time.Duration) string {
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}
