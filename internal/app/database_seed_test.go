package app

import (
	le "encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"drover/internal/database/pgbackup"
	"drover/internal/database/postgres"
	"drover/internal/database/wal"
	"drover/internal/objstore/mem"
	"drover/internal/repo/fstest"
)

// testArchive is the archive of a database whose backups are none but by name, and whose log has empty segments.
type testArchive struct {
	t       *testing.T
	at      *pgbackup.Store
	archive *wal.Archive
}

const testSegment, testSystem = 1 << 20, 42

func newTestArchive(t *testing.T) testArchive {
	t.Helper()
	st := mem.New()
	fstest.Must(t, st.Put(t.Context(), "config", []byte("x")))
	archive, err := wal.New(st, wal.Options{Secret: make([]byte, 32), System: testSystem})
	fstest.Must(t, err)
	return testArchive{t, &pgbackup.Store{Archive: archive}, archive}
}

// backup is one that is made within a segment.
func (a testArchive) backup(name string, timeline wal.Timeline, segment wal.LSN) {
	a.t.Helper()
	text, err := json.Marshal(pgbackup.Record{
		Format: 1, System: testSystem, Snapshot: name, Timeline: timeline, Segment: testSegment,
		Start: segment*testSegment + 40, Stop: segment*testSegment + 300, End: time.Unix(int64(timeline)<<32+int64(segment), 0),
	})
	fstest.Must(a.t, err)
	fstest.Must(a.t, a.archive.AddNote(a.t.Context(), name, text))
}

func (a testArchive) segments(timeline uint32, numbers ...uint64) {
	a.t.Helper()
	for _, n := range numbers {
		b := make([]byte, testSegment)
		le.LittleEndian.PutUint16(b[2:], 2)
		le.LittleEndian.PutUint32(b[4:], timeline)
		le.LittleEndian.PutUint64(b[8:], n*testSegment)
		le.LittleEndian.PutUint64(b[24:], testSystem)
		le.LittleEndian.PutUint32(b[32:], testSegment)
		fstest.Must(a.t, a.archive.Push(a.t.Context(), wal.SegmentAt(wal.Timeline(timeline), wal.LSN(n*testSegment), testSegment), b))
	}
}

func (a testArchive) history(timeline wal.Timeline, text string) {
	a.t.Helper()
	fstest.Must(a.t, a.archive.Push(a.t.Context(), wal.Name{Kind: wal.History, Timeline: timeline}, []byte(text)))
}

// TestLeadingTo: a replica is made of a base backup only if that one, and the archived log after it, lead to what
// the primary has.
func TestLeadingTo(t *testing.T) {
	const size = testSegment
	a := newTestArchive(t)
	is := func(want string, lead postgres.Lead) {
		t.Helper()
		record, err := leadingTo(t.Context(), a.at, lead)
		got := record.Snapshot
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%+v: %s, want %s", lead, got, want)
		}
	}
	first := postgres.Lead{Timeline: 1, End: 6 * size, Kept: 5 * size}
	is("there is no base backup yet", first)
	a.backup("first", 1, 3)
	a.segments(1, 3)
	is("the archived log ends at", first)
	a.segments(1, 4)
	is("first", first)
	a.backup("second", 1, 4)
	is("second", first)

	left := fmt.Sprintf("1\t%s\twhy\n", wal.LSN(3*size+1000))
	a.history(2, left)
	is("of which the primary knows nothing", first)
	second := postgres.Lead{Timeline: 2, History: left, End: 5 * size, Kept: 4 * size}
	is("the archived log ends at", second) // the segment of the fork is the new timeline's
	a.segments(2, 3)
	is("first", second) // "second" is of what was left behind
	is("no base backup is of the primary's history", postgres.Lead{Timeline: 2, History: fmt.Sprintf("1\t%s\twhy\n", wal.LSN(2*size)), End: 5 * size})
	is("it is in no order", postgres.Lead{Timeline: 2, History: "7\t0/1\twhy\n"})
}
