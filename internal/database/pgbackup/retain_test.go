package pgbackup

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"drover/internal/database/wal"
)

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// day is so many days before noon.
func day(n float64) time.Time { return noon.Add(-time.Duration(n * float64(24*time.Hour))) }

func made(name string, t wal.Timeline, start wal.LSN, end time.Time) Record {
	return Record{Name: name, Timeline: t, Start: start, Stop: start + 5, End: end, Segment: 1 << 20}
}

func names(list []Record) string {
	var all []string
	for _, r := range list {
		all = append(all, r.Name)
	}
	return strings.Join(all, " ")
}

func TestRetain(t *testing.T) {
	first := map[wal.Timeline]history{1: {line: wal.Line{{Timeline: 1}}}}
	daily := []Record{made("a", 1, 100, day(9)), made("b", 1, 200, day(8)), made("c", 1, 300, day(7.5)), made("d", 1, 400, day(6)), made("e", 1, 500, day(1))}
	// Timeline 2 left 1 at 250, a week ago: b and what came after it on timeline 1 do not lead there.
	back := map[wal.Timeline]history{
		1: {line: wal.Line{{Timeline: 1}}, left: day(7.2)},
		2: {line: wal.Line{{Timeline: 2, Begin: 150}, {Timeline: 1, End: 150}}},
	}
	old := map[wal.Timeline]history{1: {line: back[1].line, left: day(30)}, 2: back[2]}
	for _, c := range []struct {
		what  string
		all   []Record
		lines map[wal.Timeline]history
		w     Window
		keep  string
		from  wal.LSN
	}{
		{"none", nil, first, Window{Keep: 7 * 24 * time.Hour}, "", 0},
		{"the last before the window is its begin", daily, first, Window{Keep: 7 * 24 * time.Hour}, "c d e", 300},
		{"one that ended just before the window may not, by another's clock", daily, first, Window{Keep: 6*24*time.Hour - time.Minute}, "c d e", 300},
		{"none is old enough", daily[3:], first, Window{Keep: 7 * 24 * time.Hour}, "d e", 400},
		{"a number", daily, first, Window{Least: 4}, "b c d e", 200},
		{"always one", daily, first, Window{}, "e", 500},
		{"a long window", daily, first, Window{Keep: 365 * 24 * time.Hour}, "a b c d e", 100},
		{"only one leads to where the database went back to", append(daily[:3:3], made("x", 2, 160, day(1))), back, Window{Keep: 6 * 24 * time.Hour}, "a x", 100},
		{"and to the moments before it went back", append(daily[:3:3], made("x", 2, 160, day(1))), back, Window{Keep: 175 * time.Hour}, "a c x", 100},
		{"a timeline left long ago", append(daily[:3:3], made("x", 2, 160, day(8)), made("y", 2, 180, day(1))), old, Window{Keep: 7 * 24 * time.Hour}, "x y", 160},
		{"of a line without a backup nothing is known", daily[1:3], map[wal.Timeline]history{1: {line: back[1].line, left: day(30)}, 2: back[2]}, Window{}, "b c", 200},
	} {
		got := retain(c.all, c.lines, noon, c.w)
		if names(got.Keep) != c.keep || got.From != c.from || len(got.Keep)+len(got.Drop) != len(c.all) {
			t.Errorf("%s: keeps %q from %s, drops %q; want %q from %s", c.what, names(got.Keep), got.From, names(got.Drop), c.keep, c.from)
		}
	}
}

func TestRetainOfTwoSegmentSizes(t *testing.T) {
	all := []Record{made("a", 1, 100, day(2)), made("b", 1, 200, day(1))}
	all[1].Segment *= 2
	if got := retain(all, map[wal.Timeline]history{1: {line: wal.Line{{Timeline: 1}}}}, noon, Window{Least: 2}); got.From != 0 {
		t.Errorf("log goes up to %s", got.From)
	}
}

// Whatever the history: each moment of the window that could be restored before can be restored
// after, and again after the next time; and what is kept grows not without end.
func TestRetainLosesNoMoment(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		w := Window{Keep: time.Duration(r.IntN(10)+1) * 24 * time.Hour, Least: r.IntN(3)}
		lines := map[wal.Timeline]history{1: {line: wal.Line{{Timeline: 1}}}}
		type point struct {
			at   time.Time
			line wal.Timeline
			lsn  wal.LSN
		}
		var (
			all    []Record
			points []point
			now    = noon
			cur    = wal.Timeline(1)
			lsn    = wal.LSN(100)
			cut    wal.LSN
		)
		restorable := func(p point) bool {
			for _, b := range all {
				if lines[p.line].line.Has(b.Timeline, b.Stop) && b.Stop <= p.lsn && !b.End.After(p.at) && b.Start >= cut {
					return true
				}
			}
			return false
		}
		for step := range 60 {
			now = now.Add(time.Duration(r.IntN(20)+1) * time.Hour)
			lsn += wal.LSN(r.IntN(100) + 20)
			switch r.IntN(6) {
			case 0, 1:
				all = append(all, made(fmt.Sprint(step), cur, lsn-10, now))
			case 2: // the database goes back, or is promoted, and a new timeline begins
				begin := lsn
				if r.IntN(2) == 0 && len(points) > 0 {
					p := points[r.IntN(len(points))]
					if !restorable(p) {
						continue
					}
					begin, cur = p.lsn, p.line
				}
				next := wal.Timeline(len(lines) + 1)
				line := wal.Line{{Timeline: next, Begin: begin}}
				for _, part := range lines[cur].line {
					if part.End == 0 || part.End > begin {
						part.End = begin
					}
					line = append(line, part)
				}
				for _, part := range line[1:] {
					h := lines[part.Timeline]
					if h.left.IsZero() {
						h.left = now
						lines[part.Timeline] = h
					}
				}
				lines[next], cur, lsn = history{line: line}, next, begin+1
			case 3:
				d := retain(all, lines, now, w)
				all, cut = d.Keep, max(cut, d.From)
			}
			points = append(points, point{now, cur, lsn})
		}
		could := map[point]bool{}
		for _, p := range points {
			could[p] = restorable(p)
		}
		d := retain(all, lines, now, w)
		all, cut = d.Keep, max(cut, d.From)
		for _, p := range points {
			if could[p] && p.at.After(now.Add(-w.Keep)) && !restorable(p) {
				t.Fatalf("seed %d: what was there at %v (timeline %d, %s) cannot be restored any more: kept %q from %s", seed, p.at, p.line, p.lsn, names(d.Keep), d.From)
			}
		}
	}
}
