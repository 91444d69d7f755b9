package repo

import (
	"encoding/binary"
	"sync"

	"drover/internal/repo/format"
	"drover/internal/repo/pack"
)

// memIndex is all copies of all blobs, in memory. An entry is 52 bytes and a
// bucket 4, without pointers: a million blobs take about 57 MB, and the garbage
// collector does not look at them.
type memIndex struct {
	mu      sync.RWMutex
	buckets []uint32 // heads of chains: number of an entry + 1; a power of two of them
	blocks  [][]indexEntry
	count   uint32 // entries

	packs     []packState
	packNo    map[format.ID]uint32
	condemned map[format.ID]struct{} // of the last setCondemned
}

type indexEntry struct {
	id           format.ID
	packAndType  uint32 // number of the pack << 1 | 1 for a tree
	offset       uint32
	length       uint32
	uncompressed uint32
	next         uint32 // entry of the same bucket, + 1
}

// packState is what is known of one pack.
type packState struct {
	id        format.ID
	named     bool // in the index; others are only known to be condemned
	present   bool // the store has it, as far as the last listing or our own put says
	condemned bool // reading may use it, deduplication may not
	dropped   bool // taken out of the index
}

// rank is 0 for a pack to rely on, 1 for one that is about to go, 2 for one that
// is missing.
func (p *packState) rank() int {
	switch {
	case !p.present:
		return 2
	case p.condemned:
		return 1
	}
	return 0
}

const blockEntries = 1 << 12

func newMemIndex() *memIndex {
	return &memIndex{buckets: make([]uint32, 1<<8), packNo: make(map[format.ID]uint32)}
}

func bucketOf(id format.ID, n int) uint32 {
	return binary.LittleEndian.Uint32(id[:]) & uint32(n-1) // ids are hashes already
}

func (x *memIndex) entry(i uint32) *indexEntry { return &x.blocks[i/blockEntries][i%blockEntries] }

func (e *indexEntry) handle() format.Handle {
	if e.packAndType&1 == 1 {
		return format.Handle{Type: format.TreeBlob, ID: e.id}
	}
	return format.Handle{Type: format.DataBlob, ID: e.id}
}

func (x *memIndex) location(e *indexEntry) Location {
	return Location{Pack: x.packs[e.packAndType>>1].id, Offset: e.offset, Length: e.length, Uncompressed: e.uncompressed}
}

// add notes that the pack holds blobs. present says that the pack is known to be stored.
func (x *memIndex) add(id format.ID, blobs []pack.Blob, present bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	no := x.packNumber(id)
	state := &x.packs[no]
	state.named, state.present = true, state.present || present
	x.enter(no, blobs)
}

// recall notes what a stored pack holds that no index object names.
func (x *memIndex) recall(id format.ID, blobs []pack.Blob) {
	x.mu.Lock()
	defer x.mu.Unlock()
	no := x.packNumber(id)
	x.packs[no].present = true
	x.enter(no, blobs)
}

// enter needs the lock.
func (x *memIndex) enter(no uint32, blobs []pack.Blob) {
	for _, b := range blobs {
		e := indexEntry{id: b.ID, packAndType: no << 1, offset: b.Offset, length: b.Length, uncompressed: b.Uncompressed}
		if b.Type == format.TreeBlob {
			e.packAndType |= 1
		}
		x.insert(e)
	}
}

// packNumber needs the lock.
func (x *memIndex) packNumber(id format.ID) uint32 {
	no, ok := x.packNo[id]
	if !ok {
		no = uint32(len(x.packs))
		x.packs = append(x.packs, packState{id: id})
		x.packNo[id] = no
	}
	return no
}

// insert needs the lock. An entry that is there already (the same pack in two
// index objects) is not added again.
func (x *memIndex) insert(e indexEntry) {
	if int(x.count) >= len(x.buckets) {
		x.rehash()
	}
	head := &x.buckets[bucketOf(e.id, len(x.buckets))]
	for i := *head; i != 0; {
		old := x.entry(i - 1)
		if old.id == e.id && old.packAndType == e.packAndType && old.offset == e.offset {
			return
		}
		i = old.next
	}
	if x.count%blockEntries == 0 && int(x.count/blockEntries) == len(x.blocks) {
		x.blocks = append(x.blocks, make([]indexEntry, blockEntries))
	}
	e.next = *head
	*x.entry(x.count) = e
	x.count++
	*head = x.count
}

func (x *memIndex) rehash() {
	x.buckets = make([]uint32, 2*len(x.buckets))
	for i := range x.count {
		e := x.entry(i)
		head := &x.buckets[bucketOf(e.id, len(x.buckets))]
		e.next, *head = *head, i+1
	}
}

// has reports whether a present, uncondemned pack holds the blob, and which.
func (x *memIndex) has(h format.Handle) (format.ID, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var found format.ID
	ok := x.each(h, func(e *indexEntry, p *packState) bool {
		if p.present && !p.condemned {
			found = p.id
			return true
		}
		return false
	})
	return found, ok
}

// each calls fn for the blob's copies until it returns true. It needs the lock.
func (x *memIndex) each(h format.Handle, fn func(*indexEntry, *packState) bool) bool {
	for i := x.buckets[bucketOf(h.ID, len(x.buckets))]; i != 0; {
		e := x.entry(i - 1)
		i = e.next
		if e.id != h.ID || e.handle().Type != h.Type {
			continue
		}
		if p := &x.packs[e.packAndType>>1]; !p.dropped && fn(e, p) {
			return true
		}
	}
	return false
}

// lookup returns the blob's copies, the best first: stored and uncondemned ones,
// then stored ones, then those whose pack the last listing did not show.
func (x *memIndex) lookup(h format.Handle) []Location {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var ranked [3][]Location
	x.each(h, func(e *indexEntry, p *packState) bool {
		ranked[p.rank()] = append(ranked[p.rank()], x.location(e))
		return false
	})
	return append(append(ranked[0], ranked[1]...), ranked[2]...)
}

// setCondemned replaces the set of condemned packs. It is called for each commit, and
// touches only the packs of the two sets.
func (x *memIndex) setCondemned(set map[format.ID]struct{}) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for id := range x.condemned {
		if no, ok := x.packNo[id]; ok {
			x.packs[no].condemned = false
		}
	}
	for id := range set {
		x.packs[x.packNumber(id)].condemned = true
	}
	x.condemned = set
}

// setPresent notes which of the packs are stored.
func (x *memIndex) setPresent(stored map[format.ID]int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := range x.packs {
		_, x.packs[i].present = stored[x.packs[i].id]
	}
}

// drop takes packs out of the index.
func (x *memIndex) drop(packs map[format.ID]struct{}) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for id := range packs {
		if no, ok := x.packNo[id]; ok {
			x.packs[no].dropped = true
			delete(x.packNo, id) // it may be added again, under a new number
		}
	}
}

// missing returns the packs that are indexed and were not in the last listing.
func (x *memIndex) missing() []format.ID {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var ids []format.ID
	for _, p := range x.packs {
		if p.named && !p.present && !p.dropped {
			ids = append(ids, p.id)
		}
	}
	return ids
}

// hasPack reports whether the index names the pack.
func (x *memIndex) hasPack(id format.ID) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	no, ok := x.packNo[id]
	return ok && x.packs[no].named
}

// packBlobs groups all entries by pack. The result is large; it is for checks
// and pruning.
func (x *memIndex) packBlobs() map[format.ID][]PackedBlob {
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := make(map[format.ID][]PackedBlob, len(x.packs))
	for i := range x.count {
		e := x.entry(i)
		if p := x.packs[e.packAndType>>1]; !p.dropped {
			out[p.id] = append(out[p.id], PackedBlob{e.handle(), x.location(e)})
		}
	}
	return out
}

// len returns how many copies of blobs are indexed.
func (x *memIndex) len() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return int(x.count)
}
