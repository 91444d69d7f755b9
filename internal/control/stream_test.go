package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"drover/client"
	"drover/internal/event"
)

// patience is how long something may take that should be at once.
const patience = 20 * time.Second

// within fails the test if fn takes too long.
func within(t *testing.T, what string, fn func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); fn() }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s takes longer than %s", what, patience)
	}
}

func TestEvents(t *testing.T) {
	a := newAgent()
	c := dial(t, start(t, a, Options{}))
	for i := range 30 {
		a.bus.Publish(event.Event{Name: "exit", Source: "db", Status: &i})
	}
	names := func(opt client.EventsOptions) (seqs []uint64) {
		for line, err := range c.Events(t.Context(), opt) {
			if err != nil || line.Name != "exit" || line.Source != "db" || line.Status == nil || line.Time.IsZero() {
				t.Errorf("got %+v, %v", line, err)
			}
			seqs = append(seqs, line.Seq)
		}
		return seqs
	}
	for recent, want := range map[int]int{0: 0, 3: 3, 30: 30, 1000: 30} {
		if got := names(client.EventsOptions{Recent: recent}); len(got) != want || want > 0 && got[want-1] != 30 {
			t.Errorf("recent %d: got %d: %v", recent, len(got), got)
		}
	}
	within(t, "an event that happens", func() {
		for line, err := range c.Events(t.Context(), client.EventsOptions{Recent: 1, Follow: true}) {
			if err != nil {
				t.Error(err)
			}
			if line.Seq == 30 {
				a.bus.Publish(event.Event{Name: "committed"})
				continue
			}
			if line.Name != "committed" || line.Seq != 31 {
				t.Errorf("got %+v", line)
			}
			break
		}
	})
	mine := errors.New("interrupted")
	ctx, leave := context.WithCancelCause(t.Context())
	defer leave(nil)
	for _, err := range c.Events(ctx, client.EventsOptions{Recent: 1, Follow: true}) {
		leave(mine)
		if err != nil && !errors.Is(err, mine) {
			t.Errorf("left, and got %v", err)
		}
	}
}

// TestSlowReader: a reader that does not read holds up nobody, and is told what it lost.
func TestSlowReader(t *testing.T) {
	const many = 20_000
	a := newAgent()
	socket := start(t, a, Options{})
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /v1/events?follow=true&recent=0 HTTP/1.0\r\nHost: drover\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer := bufio.NewReader(conn)
	for { // the stream has begun
		line, err := answer.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == "\r\n" {
			break
		}
	}
	within(t, "to publish", func() {
		for range many {
			a.bus.Publish(event.Event{Name: "exit", Text: strings.Repeat("x", 200)})
		}
	})
	c := dial(t, socket)
	within(t, "another's call", func() { _, err = c.Status(t.Context()) })
	if err != nil {
		t.Error(err)
	}
	var seen, missed int
	within(t, "to read what is left", func() {
		for seen+missed < many {
			line, err := answer.ReadString('\n')
			var n int
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := fmt.Sscanf(line, `{"missed":%d}`, &n); err == nil {
				missed += n
			} else if strings.HasPrefix(line, `{"seq":`) {
				seen++
			}
		}
	})
	if missed == 0 || seen < eventQueue || seen+missed != many {
		t.Errorf("saw %d, was told of %d lost", seen, missed)
	}
}

// TestEndOfStreams: at the server's end every stream ends in order, with what waits for
// it; one whose reader does not read does not hold up the end.
func TestEndOfStreams(t *testing.T) {
	const streams = 20
	a := newAgent()
	a.write(client.LogLine{Job: "db", Stream: "stdout", Text: "first"})
	var readers sync.WaitGroup
	var begun sync.WaitGroup
	begun.Add(2 * streams)
	t.Run("serve", func(t *testing.T) {
		socket := start(t, a, Options{})
		c := client.New(socket)
		a.bus.Publish(event.Event{Name: "startup"})
		for range streams {
			readers.Go(func() {
				n := 0
				for _, err := range c.Events(context.Background(), client.EventsOptions{Recent: 1, Follow: true}) {
					if err != nil {
						t.Errorf("events: %v", err)
					}
					if n++; n == 1 {
						begun.Done()
					}
				}
				if n != 2 {
					t.Errorf("saw %d events", n)
				}
			})
			readers.Go(func() {
				var texts []string
				for line, err := range c.Logs(context.Background(), client.LogsOptions{Lines: 1, Follow: true}) {
					if err != nil {
						t.Errorf("logs: %v", err)
					}
					if texts = append(texts, line.Text); len(texts) == 1 {
						begun.Done()
					}
				}
				if strings.Join(texts, " ") != "first last" {
					t.Errorf("read %v", texts)
				}
			})
		}
		lazy, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = lazy.Close() })
		if _, err := io.WriteString(lazy, "GET /v1/events?follow=true HTTP/1.1\r\nHost: drover\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReaderSize(lazy, 16).ReadByte(); err != nil {
			t.Fatal(err)
		}
		begun.Wait()
		a.bus.Publish(event.Event{Name: "shutdown"})
		a.write(client.LogLine{Job: "db", Stream: "stdout", Text: "last"})
	})
	within(t, "the end of the streams", readers.Wait)
}

// TestEndWithASlowReader: the pipe to a reader that never reads is full, and the
// server ends.
func TestEndWithASlowReader(t *testing.T) {
	a := newAgent()
	var ended time.Duration
	t.Run("serve", func(t *testing.T) {
		var from time.Time
		var conn net.Conn
		var err error
		t.Cleanup(func() { // after the server's end
			ended = time.Since(from)
			_ = conn.Close()
		})
		socket := start(t, a, Options{})
		conn, err = net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { from = time.Now() })
		if _, err := io.WriteString(conn, "GET /v1/events?follow=true HTTP/1.1\r\nHost: drover\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		for range 20_000 {
			a.bus.Publish(event.Event{Name: "exit", Text: strings.Repeat("x", 200)})
		}
	})
	if ended > stopGrace+time.Second {
		t.Errorf("the end took %s", ended)
	}
}

func TestLogs(t *testing.T) {
	a := newAgent()
	c := dial(t, start(t, a, Options{}))
	for i := range 10 {
		a.write(client.LogLine{Time: time.Now(), Job: []string{"db", "web"}[i%2], Stream: "stderr", Text: fmt.Sprintf("<%d>\x1b\xff", i)})
	}
	read := func(opt client.LogsOptions) (texts []string) {
		for line, err := range c.Logs(t.Context(), opt) {
			if err != nil {
				t.Error(err)
			}
			if line.Missed > 0 {
				texts = append(texts, fmt.Sprint(line.Missed, " missed"))
				continue
			}
			texts = append(texts, line.Job+line.Text[:3])
		}
		return texts
	}
	if got := strings.Join(read(client.LogsOptions{Lines: 3}), " "); got != "web<7> db<8> web<9>" {
		t.Errorf("three of all: %s", got)
	}
	if got := strings.Join(read(client.LogsOptions{Job: "db", Lines: 4}), " "); got != "db<6> db<8>" {
		t.Errorf("of db: %s", got)
	}
	a.mu.Lock()
	a.lost = 4
	a.mu.Unlock()
	if got := strings.Join(read(client.LogsOptions{Lines: 1}), " "); got != "4 missed web<9>" {
		t.Errorf("of a slow reader: %s", got)
	}
	a.mu.Lock()
	a.lost = 0
	a.mu.Unlock()
	for _, err := range c.Logs(t.Context(), client.LogsOptions{Job: "none"}) {
		var refusal *client.Error
		if !errors.As(err, &refusal) || refusal.Kind != client.KindUnknown || refusal.Message != "there is no job none" {
			t.Errorf("no such job: %v", err)
		}
	}
	within(t, "lines that come", func() {
		want := 1000
		for line, err := range c.Logs(t.Context(), client.LogsOptions{Lines: 1, Follow: true}) {
			if err != nil {
				t.Error(err)
			}
			if line.Text[:3] == "<9>" {
				go func() {
					for range 1000 {
						a.write(client.LogLine{Job: "db", Stream: "stdout", Text: "more"})
					}
				}()
				continue
			}
			if want--; want == 0 {
				break
			}
		}
	})
}
