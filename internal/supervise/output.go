package supervise

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

const (
	pumpBuffer = 256 << 10       // bytes between a job and a slow reader
	pumpChunk  = 32 << 10        // bytes read at once, of a job that writes much
	firstChunk = 2 << 10         // of one that does not: many jobs are silent
	longLine   = 16 << 10        // bytes after which a line is cut in two
	stallLimit = 5 * time.Second // before output is dropped
	flushLimit = 2 * time.Second // how long the end of the output may take to be written
)

// pump carries one output of one run of a job to a writer. A slow writer holds
// the job up, as a pipe would, but not for ever: after a while what does not fit
// is dropped and counted.
type pump struct {
	from  *os.File
	to    io.Writer
	form  form
	taps  []func([]byte) // see what is read, in order, and nothing at its end; quick
	stall time.Duration  // how long a full buffer may hold the job up

	mu      sync.Mutex
	ready   []byte // formatted, to be written
	dropped int    // bytes
	ended   bool   // nothing more will come
	line    []byte // an unfinished line; the reader's own

	more, room chan struct{} // capacity 1: ready grew; ready was taken
	done       chan struct{}
}

func newPump(from *os.File, to io.Writer, f form, stall time.Duration) *pump {
	return &pump{
		from: from, to: to, form: f, stall: stall,
		more: make(chan struct{}, 1), room: make(chan struct{}, 1), done: make(chan struct{}),
	}
}

// start begins pumping; finish ends it.
func (p *pump) start() {
	go p.read()
	go p.write()
}

// finish waits for the end of the output and of its writing, until the
// deadline. It returns false if the writer is stuck; only then is a goroutine
// left behind, which nothing can end but the writer.
func (p *pump) finish(deadline time.Time) bool {
	// A pipe that somebody outside the job still holds has no end; what is in
	// it now is all that counts.
	_ = p.from.SetReadDeadline(time.Now().Add(time.Until(deadline) / 2))
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-p.done:
		return true
	case <-timer.C:
		return false
	}
}

func (p *pump) read() {
	defer p.from.Close()
	chunk := make([]byte, firstChunk)
	stalled := false
	for {
		n, err := p.from.Read(chunk)
		if n > 0 {
			for _, tap := range p.taps {
				tap(chunk[:n])
			}
			stalled = p.add(p.format(chunk[:n]), stalled)
		}
		if n == len(chunk) && n < pumpChunk {
			chunk = make([]byte, 2*n)
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded) {
				p.add(p.format(fmt.Appendf(nil, "drover: read output: %v\n", err)), stalled)
			}
			break
		}
	}
	for _, tap := range p.taps {
		tap(nil)
	}
	if len(p.line) > 0 {
		p.add(p.format([]byte("\n")), stalled)
	}
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	wake(p.more)
}

// format returns the whole lines that chunk completes, each in its form. Raw bytes
// pass as they are.
func (p *pump) format(chunk []byte) []byte {
	if p.form.kind == FormRaw {
		return chunk
	}
	var out []byte
	for len(chunk) > 0 {
		end := bytes.IndexByte(chunk, '\n') + 1
		whole := end > 0
		if !whole {
			end = len(chunk)
		}
		if room := longLine - len(p.line); end > room {
			end, whole = room, false
		}
		p.line = append(p.line, chunk[:end]...)
		chunk = chunk[end:]
		if !whole && len(p.line) < longLine {
			break
		}
		out = p.form.line(out, bytes.TrimSuffix(p.line, []byte("\n")))
		p.line = p.line[:0]
	}
	return out
}

// add hands data to the writer. It waits for room, but not for a writer that is
// known to be stalled, and returns whether it is: until half of the buffer is
// written.
func (p *pump) add(data []byte, stalled bool) bool {
	var patience <-chan time.Time
	for {
		p.mu.Lock()
		if stalled && len(p.ready) <= pumpBuffer/2 {
			stalled = false
		}
		if !stalled && len(p.ready)+len(data) <= pumpBuffer {
			if p.dropped > 0 {
				p.ready = p.form.line(p.ready, fmt.Appendf(nil, "drover: %d bytes of output were dropped: their reader was too slow", p.dropped))
				p.dropped = 0
			}
			p.ready = append(p.ready, data...)
			p.mu.Unlock()
			wake(p.more)
			return false
		}
		if stalled {
			p.dropped += len(data)
			p.mu.Unlock()
			return true
		}
		p.mu.Unlock()
		if patience == nil {
			timer := time.NewTimer(p.stall)
			defer timer.Stop()
			patience = timer.C
		}
		select {
		case <-p.room:
		case <-patience:
			stalled = true
		}
	}
}

func (p *pump) write() {
	defer close(p.done)
	var taken []byte
	for {
		p.mu.Lock()
		taken, p.ready = p.ready, taken[:0]
		ended := p.ended
		p.mu.Unlock()
		wake(p.room)
		if len(taken) > 0 {
			// An error has nobody to tell but the log, which is where the
			// output may have been going; the job is not to suffer for it.
			_, _ = p.to.Write(taken)
			continue
		}
		if ended {
			return
		}
		<-p.more
	}
}

func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
