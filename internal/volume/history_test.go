package volume

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/volume/protocol"
)

func testID(n int) format.ID {
	id, err := format.ParseID(strings.Repeat(fmt.Sprintf("%02x", n), 32))
	if err != nil {
		panic(err)
	}
	return id
}

// made is an entry as History reads it: its number, those of its parent and of
// the one that it was rewritten from (0: none).
func made(n, parent int, epoch, seq uint64, original int, tags ...string) Entry {
	sn := &format.Snapshot{Tags: append([]string{fmt.Sprintf("epoch:%d", epoch), fmt.Sprintf("seq:%d", seq)}, tags...)}
	if parent > 0 {
		id := testID(parent)
		sn.Parent = &id
	}
	if original > 0 {
		id := testID(original)
		sn.Original = &id
	}
	return entryOf(testID(n), sn)
}

func TestMarkLine(t *testing.T) {
	cases := []struct {
		name    string
		entries []Entry
		head    int // number of the head's snapshot
		epoch   uint64
		seq     uint64
		want    []int
		isHead  int
	}{
		{name: "nothing committed yet", entries: []Entry{made(1, 0, 1, 1, 0)}, epoch: 1},
		{name: "a line", head: 3, epoch: 2, seq: 3, isHead: 3, want: []int{1, 2, 3},
			entries: []Entry{made(1, 0, 1, 1, 0), made(2, 1, 1, 2, 0), made(3, 2, 2, 3, 0)}},
		{name: "an uncommitted sibling of the same seq", head: 3, epoch: 2, seq: 2, isHead: 3, want: []int{1, 3},
			entries: []Entry{made(1, 0, 1, 1, 0), made(2, 1, 1, 2, 0), made(3, 1, 2, 2, 0)}},
		{name: "an uncommitted one after the head", head: 1, epoch: 1, seq: 1, isHead: 1, want: []int{1},
			entries: []Entry{made(1, 0, 1, 1, 0), made(2, 1, 1, 2, 0)}},
		{name: "forgotten middles", head: 5, epoch: 1, seq: 5, isHead: 5, want: []int{2, 5},
			entries: []Entry{made(2, 1, 1, 2, 0), made(5, 4, 1, 5, 0)}},
		{name: "a forgotten middle with a sibling of a later epoch left of it", head: 4, epoch: 2, seq: 4, isHead: 4, want: []int{1, 4},
			entries: []Entry{made(1, 0, 1, 1, 0), made(9, 1, 3, 2, 0), made(4, 3, 2, 4, 0)}},
		{name: "rewritten by restic", head: 2, epoch: 1, seq: 2, isHead: 7, want: []int{1, 7},
			entries: []Entry{made(1, 0, 1, 1, 0), made(7, 1, 1, 2, 2)}},
		{name: "a rewritten middle", head: 3, epoch: 1, seq: 3, isHead: 3, want: []int{1, 8, 3},
			entries: []Entry{made(1, 0, 1, 1, 0), made(8, 1, 1, 2, 2), made(3, 2, 1, 3, 0)}},
		{name: "rewritten while the original was kept", head: 2, epoch: 1, seq: 2, isHead: 2, want: []int{1, 2},
			entries: []Entry{made(1, 0, 1, 1, 0), made(7, 1, 1, 2, 2), made(2, 1, 1, 2, 0)}},
		{name: "diverged ones are none", head: 2, epoch: 2, seq: 2, isHead: 2, want: []int{1, 2},
			entries: []Entry{made(1, 0, 1, 1, 0), made(2, 1, 2, 2, 0), made(6, 1, 1, 2, 0, "diverged")}},
		{name: "the head's object is gone", head: 3, epoch: 1, seq: 3, want: []int{1, 2},
			entries: []Entry{made(1, 0, 1, 1, 0), made(2, 1, 1, 2, 0)}},
		{name: "a foreign one", head: 1, epoch: 1, seq: 1, isHead: 1, want: []int{1},
			entries: []Entry{made(1, 0, 1, 1, 0), {SnapshotRef: repo.SnapshotRef{ID: testID(5), Snapshot: &format.Snapshot{}}}}},
		{name: "parents in a ring", head: 1, epoch: 1, seq: 2, isHead: 1, want: []int{1, 2},
			entries: []Entry{made(1, 2, 1, 2, 0), made(2, 1, 1, 1, 0)}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h := protocol.Head{Epoch: c.epoch, Seq: c.seq}
			if c.head > 0 {
				h.Snapshot = testID(c.head).String()
			}
			markLine(c.entries, h)
			for _, e := range c.entries {
				n := int(e.ID[0])
				if e.Committed != slices.Contains(c.want, n) {
					t.Errorf("%d: committed is %v", n, e.Committed)
				}
				if e.Head != (n == c.isHead) {
					t.Errorf("%d: head is %v", n, e.Head)
				}
			}
		})
	}
}
