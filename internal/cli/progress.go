package cli

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"drover/internal/app"
)

// progressEvery is the least time between two redrawings.
const progressEvery = 100 * time.Millisecond

// progress draws one line on a terminal's stderr, over and over. Elsewhere it is nil.
type progress struct {
	s     *session
	mu    sync.Mutex // callers report from many goroutines
	start time.Time
	drawn time.Time
	width int // of what is on the screen
}

// newProgress starts a line; report is nil, and wipe does nothing, if nobody sees it.
func (s *session) newProgress() (report func(app.Progress), wipe func()) {
	if !s.ErrTerm || s.json {
		return nil, func() {}
	}
	p := &progress{s: s, start: s.Now()}
	return p.report, p.wipe
}

func (p *progress) report(now app.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.s.Now()
	if at.Sub(p.drawn) < progressEvery {
		return
	}
	p.drawn = at
	p.draw(progressLine(now, at.Sub(p.start)))
}

func (p *progress) draw(line string) {
	pad := strings.Repeat(" ", max(0, p.width-len(line)))
	_, _ = fmt.Fprint(p.s.Err, "\r"+line+pad)
	p.width = len(line)
}

// wipe takes the line away, so that what follows stands alone.
func (p *progress) wipe() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.width > 0 {
		p.draw("")
		_, _ = fmt.Fprint(p.s.Err, "\r")
	}
	p.width = 0
}

// progressLine is as much as is known of it.
func progressLine(now app.Progress, elapsed time.Duration) string {
	var b strings.Builder
	b.WriteString(now.Phase)
	done, total := fraction(now)
	if total > 0 {
		const cells = 20
		full := int(cells * done / total)
		fmt.Fprintf(&b, " [%s%s] %3d%%", strings.Repeat("#", full), strings.Repeat("-", cells-full), 100*done/total)
	}
	if now.Files > 0 || now.TotalFiles > 0 {
		fmt.Fprintf(&b, "  %d", now.Files)
		if now.TotalFiles > 0 {
			fmt.Fprintf(&b, "/%d", now.TotalFiles)
		}
	}
	if now.Bytes > 0 {
		fmt.Fprintf(&b, "  %s", size(now.Bytes))
		if s := elapsed.Seconds(); s >= 1 {
			fmt.Fprintf(&b, "  %s/s", size(int64(float64(now.Bytes)/s)))
		}
	}
	if done > 0 && done < total && elapsed >= time.Second {
		left := elapsed.Seconds() * float64(total-done) / float64(done)
		fmt.Fprintf(&b, "  %s left", time.Duration(left*float64(time.Second)).Round(time.Second))
	}
	return b.String()
}

// fraction measures by bytes, or by files where their bytes are not known.
func fraction(now app.Progress) (done, total int64) {
	done, total = now.Bytes, now.TotalBytes
	if total == 0 {
		done, total = now.Files, now.TotalFiles
	}
	return min(done, total), total
}
