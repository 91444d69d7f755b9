package wal

// Cover is how far a log without a gap goes.
type Cover struct {
	Timeline Timeline // of its end
	End      LSN      // the first position that is not stored; the begin of what was asked for, if nothing is
	// Missing is the first segment that is not there, and Gap says that later ones of the line are.
	Missing Name
	Gap     bool
}

// CoverOf follows a line from a segment on through what is stored. Where one timeline leaves another within
// a segment, the later one's is needed: it has the begin of the other's, too. size is that of a segment.
func CoverOf(all []Stored, line Line, from Name, size int64) Cover {
	have := map[Name]bool{}
	for _, s := range all {
		if s.Kind == Segment {
			have[s.Name] = true
		}
	}
	at := from.Number(size)
	for have[line.segment(at, size)] {
		at++
	}
	missing := line.segment(at, size)
	c := Cover{Timeline: missing.Timeline, End: missing.Begin(size), Missing: missing}
	if at > from.Number(size) {
		c.Timeline = line.segment(at-1, size).Timeline
	}
	for n := range have {
		c.Gap = c.Gap || n.Number(size) > at && n == line.segment(n.Number(size), size)
	}
	return c
}

// segment is the one of that number which the line goes through.
func (l Line) segment(number uint64, size int64) Name {
	t := l[len(l)-1].Timeline
	for _, p := range l {
		if uint64(p.Begin)/uint64(size) <= number {
			t = p.Timeline
			break
		}
	}
	return numbered(t, number, size)
}
