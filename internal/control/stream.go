package control

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"drover/client"
	"drover/internal/event"
)

const (
	// eventQueue is how many events may wait for a slow reader.
	eventQueue = 1000
	// drainTime is how long a reader may take, at the end, for what waits for it.
	drainTime = 300 * time.Millisecond
)

// How much a stream begins with, if nothing is said.
const (
	recentEvents = 20
	newestLines  = 100
)

// stream is an answer of JSON lines.
type stream struct {
	control *http.ResponseController
	json    *json.Encoder
	err     error // of a write: the reader is gone
}

// begin starts a stream. ctx ends with the reader and with the server; close must be
// called.
func (s *Server) begin(w http.ResponseWriter, r *http.Request) (out *stream, ctx context.Context, closing func()) {
	ctx, cancel := context.WithCancel(r.Context())
	out = &stream{control: http.NewResponseController(w), json: json.NewEncoder(w)}
	unwatch := context.AfterFunc(s.ending, func() {
		_ = out.control.SetWriteDeadline(time.Now().Add(drainTime)) // without one, the end of the server cuts it
		cancel()
	})
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	out.flush()
	return out, ctx, func() {
		unwatch()
		cancel()
	}
}

func (s *stream) line(v any) {
	if s.err == nil {
		s.err = s.json.Encode(v)
	}
}

func (s *stream) flush() {
	if s.err == nil {
		s.err = s.control.Flush()
	}
}

// ended is a context in which nothing waits.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	q := queryOf(r)
	recent, follow := q.count("recent", recentEvents), q.flag("follow")
	if err := q.end(); err != nil {
		s.refuse(w, err)
		return
	}
	sub := s.agent.Bus().Subscribe(event.Options{Queue: max(eventQueue, recent), Recent: recent})
	defer sub.Close()
	out, ctx, closing := s.begin(w, r)
	defer closing()
	if !follow {
		ctx = ended()
	}
	// What waits is passed on also when ctx has ended.
	for n := 0; out.err == nil && (follow || n < recent); n++ {
		e, missed, err := sub.Next(ctx)
		if err != nil {
			return
		}
		if missed > 0 {
			out.line(client.Missed{Missed: missed})
		}
		out.line(client.Event(e))
		out.flush()
	}
}

func (s *Server) logs(w http.ResponseWriter, r *http.Request) {
	q := queryOf(r)
	job, newest, follow := q.text("job"), q.count("lines", newestLines), q.flag("follow")
	err := q.end()
	if err == nil && job != "" {
		_, err = s.job(job)
	}
	if err != nil {
		s.refuse(w, err)
		return
	}
	lines := s.agent.Logs(job, newest)
	out, ctx, closing := s.begin(w, r)
	defer closing()
	batch := lines.Next()
	for out.err == nil {
		if missed := lines.Missed(); missed > 0 {
			out.line(client.Missed{Missed: missed})
		}
		for _, line := range batch {
			out.line(line)
		}
		out.flush()
		if !follow || ctx.Err() != nil {
			return
		}
		if batch, err = lines.Wait(ctx); err != nil {
			batch = lines.Next() // what came with the end
		}
	}
}
