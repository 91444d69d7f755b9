package wal

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

// Timeline of a database's history.
type Timeline uint32

func (t Timeline) String() string { return fmt.Sprintf("%08X", uint32(t)) }

// LSN is a position in the log, in bytes.
type LSN uint64

// ParseLSN reads PostgreSQL's form, 16/B374D848.
func ParseLSN(text string) (LSN, error) {
	high, low, ok := strings.Cut(text, "/")
	h, err1 := strconv.ParseUint(high, 16, 32)
	l, err2 := strconv.ParseUint(low, 16, 32)
	if !ok || err1 != nil || err2 != nil {
		return 0, fmt.Errorf("%q is no log position, which looks like 16/B374D848", text)
	}
	return LSN(h<<32 | l), nil
}

func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// Kind of a file.
type Kind uint8

// The kinds.
const (
	Segment Kind = iota + 1
	Partial      // the last segment of a timeline that was left: its end may be missing
	History      // where a timeline comes from
	Backup       // PostgreSQL's own note about a base backup
)

// Name is the name of a file that PostgreSQL archives. Of a segment the number depends on
// the segments' size, so it is kept in PostgreSQL's two parts.
type Name struct {
	Kind      Kind
	Timeline  Timeline
	High, Low uint32 // as in the name; not of a History
	Offset    uint32 // of a Backup
}

// ParseName reads a file's name. Errors: ErrName.
func ParseName(text string) (Name, error) {
	bad := fmt.Errorf("%w: %.80q", ErrName, text)
	first, rest, dotted := strings.Cut(text, ".")
	parts, ok := hexParts(first)
	if !ok {
		return Name{}, bad
	}
	n := Name{Timeline: Timeline(parts[0])}
	switch {
	case n.Timeline == 0:
		return Name{}, bad
	case len(parts) == 1 && rest == "history":
		n.Kind = History
		return n, nil
	case len(parts) != 3:
		return Name{}, bad
	}
	n.High, n.Low = parts[1], parts[2]
	switch {
	case !dotted:
		n.Kind = Segment
		return n, nil
	case rest == "partial":
		n.Kind = Partial
		return n, nil
	}
	offset, backup := strings.CutSuffix(rest, ".backup")
	at, ok := hexParts(offset)
	if !backup || !ok || len(at) != 1 {
		return Name{}, bad
	}
	n.Kind, n.Offset = Backup, at[0]
	return n, nil
}

// hexParts splits what is nothing but groups of eight hexadecimal digits, in capitals.
func hexParts(text string) (parts []uint32, ok bool) {
	if len(text) == 0 || len(text)%8 != 0 || len(text) > 24 || strings.Trim(text, "0123456789ABCDEF") != "" {
		return nil, false
	}
	for at := 0; at < len(text); at += 8 {
		v, err := strconv.ParseUint(text[at:at+8], 16, 32)
		if err != nil {
			return nil, false
		}
		parts = append(parts, uint32(v))
	}
	return parts, true
}

func (n Name) String() string {
	segment := fmt.Sprintf("%08X%08X%08X", uint32(n.Timeline), n.High, n.Low)
	switch n.Kind {
	case Segment:
		return segment
	case Partial:
		return segment + ".partial"
	case History:
		return n.Timeline.String() + ".history"
	case Backup:
		return fmt.Sprintf("%s.%08X.backup", segment, n.Offset)
	}
	return "nothing"
}

// CheckSize says whether segments can have that size, in bytes.
func CheckSize(size int64) error {
	if size < 1<<20 || size > 1<<30 || size&(size-1) != 0 {
		return fmt.Errorf("%w: segments of %d bytes", ErrForeign, size)
	}
	return nil
}

// SegmentAt is the segment of size bytes that holds the byte at l.
func SegmentAt(t Timeline, l LSN, size int64) Name { return numbered(t, uint64(l)/uint64(size), size) }

// SegmentBefore is the last segment that is needed for a log that ends at l.
func SegmentBefore(t Timeline, l LSN, size int64) Name { return SegmentAt(t, max(l, 1)-1, size) }

func numbered(t Timeline, number uint64, size int64) Name {
	each := uint64(1<<32) / uint64(size)
	return Name{Kind: Segment, Timeline: t, High: uint32(number / each), Low: uint32(number % each)}
}

// Number counts segments of size bytes from the log's beginning, of all timelines alike.
func (n Name) Number(size int64) uint64 {
	return uint64(n.High)*(uint64(1<<32)/uint64(size)) + uint64(n.Low)
}

// Begin is the position of the segment's first byte.
func (n Name) Begin(size int64) LSN { return LSN(n.Number(size) * uint64(size)) }

// Next is the segment that follows on the same timeline.
func (n Name) Next(size int64) Name { return numbered(n.Timeline, n.Number(size)+1, size) }

// check says whether content is what the name says, and of the system.
func (n Name) check(content []byte, system uint64) error {
	switch n.Kind {
	case History, Backup:
		if len(content) == 0 || len(content) > 16<<20 {
			return fmt.Errorf("%w: %s has %d bytes", ErrForeign, n, len(content))
		}
		return nil
	}
	size := int64(len(content))
	if err := CheckSize(size); err != nil {
		return err
	}
	// struct XLogLongPageHeaderData, in the byte order of all that PostgreSQL is run on here.
	var (
		long  = binary.LittleEndian.Uint16(content[2:])&2 != 0
		line  = Timeline(binary.LittleEndian.Uint32(content[4:]))
		begin = LSN(binary.LittleEndian.Uint64(content[8:]))
		whose = binary.LittleEndian.Uint64(content[24:])
		said  = int64(binary.LittleEndian.Uint32(content[32:]))
	)
	switch {
	case !long || said != size:
		return fmt.Errorf("%w: %s does not begin as a segment of %d bytes does", ErrForeign, n, size)
	case whose != system:
		return fmt.Errorf("%w: %s is of system %d, not %d", ErrForeign, n, whose, system)
	case begin != n.Begin(size) || line > n.Timeline:
		return fmt.Errorf("%w: %s holds what comes at %s on timeline %d", ErrForeign, n, begin, line)
	}
	return nil
}
