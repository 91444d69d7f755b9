package wal

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Line is the history that a timeline is the end of, the newest part first.
type Line []Part

// Part is one timeline's part of a line.
type Part struct {
	Timeline Timeline
	Begin    LSN // 0 of the first timeline
	End      LSN // where the next one leaves it; 0 of the newest: it has no end
}

// ParseHistory reads the content of the .history file of a timeline.
func ParseHistory(t Timeline, content []byte) (Line, error) {
	line := Line{{Timeline: t}}
	var begin LSN
	for row := range strings.Lines(string(content)) {
		row, _, _ = strings.Cut(row, "#")
		fields := strings.Fields(row)
		if len(fields) == 0 {
			continue
		}
		if len(fields) < 2 {
			return nil, fmt.Errorf("read history of timeline %s: %q is no line of it", t, row)
		}
		parent, err := strconv.ParseUint(fields[0], 10, 32)
		end, err2 := ParseLSN(fields[1])
		if err := errors.Join(err, err2); err != nil {
			return nil, fmt.Errorf("read history of timeline %s: %w", t, err)
		}
		if parent == 0 || Timeline(parent) >= t || len(line) > 1 && line[1].Timeline >= Timeline(parent) || end < begin {
			return nil, fmt.Errorf("read history of timeline %s: it is in no order", t)
		}
		part := Part{Timeline: Timeline(parent), Begin: begin, End: end}
		line = append(line[:1], append(Line{part}, line[1:]...)...)
		begin = end
	}
	line[0].Begin = begin
	return line, nil
}

// Has reports whether what was written on timeline t up to the position end is a part of the line.
func (l Line) Has(t Timeline, end LSN) bool {
	for _, p := range l {
		if p.Timeline == t {
			return p.End == 0 || end <= p.End
		}
	}
	return false
}

// end is where the line leaves a timeline; 0: it does not.
func (l Line) end(t Timeline) LSN {
	for _, p := range l {
		if p.Timeline == t {
			return p.End
		}
	}
	return 0
}

// Line reads the line of a timeline. Errors: ErrNotFound, if its history is not stored.
func (a *Archive) Line(ctx context.Context, t Timeline) (Line, error) {
	if t == 1 {
		return Line{{Timeline: 1}}, nil
	}
	content, err := a.Fetch(ctx, Name{Kind: History, Timeline: t})
	if err != nil {
		return nil, err
	}
	return ParseHistory(t, content)
}

// Newest is the newest timeline, as PostgreSQL finds "latest": counted on from one that is
// known, while there is a history of the next.
func (a *Archive) Newest(ctx context.Context, known Timeline) (Timeline, error) {
	for newest := max(known, 1); ; newest++ {
		_, err := a.sealed(ctx, Name{Kind: History, Timeline: newest + 1})
		if errors.Is(err, ErrNotFound) {
			return newest, nil
		}
		if err != nil {
			return 0, err
		}
	}
}
