package postgres

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A position is written "2/0/5000148<1/0/3000158": timeline 2, as far as 0/5000148, which left
// timeline 1 at 0/3000158. So it says by itself whether another one is a part of the same
// history: that a timeline goes further is no sign that it has what a later one has.

// lsn is a place in the log of one timeline, in bytes.
type lsn uint64

func (l lsn) String() string { return fmt.Sprintf("%X/%X", uint64(l)>>32, uint32(l)) }

func parseLSN(s string) (lsn, error) {
	high, low, ok := strings.Cut(s, "/")
	if !ok {
		return 0, fmt.Errorf("%q is no log position", s)
	}
	h, err1 := parseHex(high)
	l, err2 := parseHex(low)
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("%q is no log position", s)
	}
	return lsn(uint64(h)<<32 | uint64(l)), nil
}

func parseHex(s string) (uint32, error) {
	if s == "" || len(s) > 8 {
		return 0, strconv.ErrRange
	}
	n, err := strconv.ParseUint(s, 16, 32)
	return uint32(n), err
}

// span is a timeline, and where it ends, or how far it is known.
type span struct {
	timeline uint32
	end      lsn
}

func (s span) String() string { return fmt.Sprintf("%d/%s", s.timeline, s.end) }

func parseSpan(s string) (span, error) {
	t, l, _ := strings.Cut(s, "/")
	n, err := strconv.ParseUint(t, 10, 32)
	if err != nil || n == 0 {
		return span{}, fmt.Errorf("%q is no position", s)
	}
	end, err := parseLSN(l)
	return span{timeline: uint32(n), end: end}, err
}

// position is a place in a history.
type position struct {
	span
	before []span // the timelines that it came from, the newest first
}

// remembered is how many ancestors a position names. Who is further behind than that is compared with nobody.
const remembered = 12

func (p position) String() string {
	parts := []string{p.span.String()}
	for _, s := range p.before {
		parts = append(parts, s.String())
	}
	return strings.Join(parts, "<")
}

func parsePosition(s string) (position, error) {
	var p position
	for i, part := range strings.Split(s, "<") {
		sp, err := parseSpan(part)
		switch {
		case err != nil:
			return position{}, err
		case i == 0:
			p.span = sp
			continue
		case sp.timeline >= p.oldest():
			return position{}, fmt.Errorf("%q is no position: a timeline comes from an older one", s)
		}
		p.before = append(p.before, sp)
	}
	return p, nil
}

func (p position) oldest() uint32 {
	if len(p.before) > 0 {
		return p.before[len(p.before)-1].timeline
	}
	return p.timeline
}

// end is where a timeline ended, as p's history has it.
func (p position) ended(timeline uint32) (lsn, bool) {
	i := slices.IndexFunc(p.before, func(s span) bool { return s.timeline == timeline })
	if i < 0 {
		return 0, false
	}
	return p.before[i].end, true
}

// compare orders positions; ok is false if neither contains the other.
func compare(a, b position) (order int, ok bool) {
	for _, s := range a.before {
		if end, both := b.ended(s.timeline); both && end != s.end {
			return 0, false
		}
	}
	if a.timeline == b.timeline {
		return cmp.Compare(a.end, b.end), true
	}
	if end, has := b.ended(a.timeline); has {
		return -1, a.end <= end
	}
	if end, has := a.ended(b.timeline); has {
		return 1, b.end <= end
	}
	return 0, false
}

// Compare implements database.Driver.
func (d *Driver) Compare(a, b string) (order int, ok bool) {
	p, err1 := parsePosition(a)
	q, err2 := parsePosition(b)
	if err1 != nil || err2 != nil {
		return 0, false
	}
	order, ok = compare(p, q)
	if !ok {
		order = 0
	}
	return order, ok
}

// Bytes implements database.Gauge.
func (d *Driver) Bytes(text string) (int64, bool) {
	p, err := parsePosition(text)
	return int64(p.end), err == nil
}

// parseHistory reads a timeline's history file: its ancestors, the newest first.
func parseHistory(text string) ([]span, error) {
	var spans []span
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) < 2 {
			return nil, fmt.Errorf("%q is no line of a history", line)
		}
		s, err := parseSpan(fields[0] + "/" + fields[1])
		if err != nil {
			return nil, err
		}
		if len(spans) > 0 && spans[0].timeline >= s.timeline {
			return nil, fmt.Errorf("%q is no line of a history after timeline %d", line, spans[0].timeline)
		}
		spans = slices.Insert(spans, 0, s)
	}
	return spans, nil
}

// place makes a position of an LSN on a timeline with its ancestors.
func place(timeline uint32, at lsn, ancestors []span) position {
	return position{span{timeline, at}, ancestors[:min(len(ancestors), remembered)]}
}
