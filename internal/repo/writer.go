package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"drover/internal/repo/format"
	"drover/internal/repo/pack"
)

const (
	// indexBlobs is how many blobs one index object lists at most, about; it
	// keeps the object near 8 MiB of JSON, as the format asks.
	indexBlobs = 40_000
	// maxBlob is the longest blob that Save takes, in bytes.
	maxBlob = 1 << 30
)

var errWriterDone = errors.New("writer is finished")

// WriterOptions of NewWriter. The zero value is good.
type WriterOptions struct {
	Uploaded func(bytes int) // called after each stored pack, from any goroutine
}

// Writer stores blobs in packs, then their index, then one snapshot. Save may be
// called from many goroutines; Finish or Abort ends the Writer, exactly one of
// them after all calls of Save have returned.
type Writer struct {
	r      *Repository
	opt    WriterOptions
	index  *memIndex       // where what is stored goes: the one loaded when the Writer began
	ctx    context.Context // of the uploads
	cancel context.CancelFunc
	data   packer
	tree   packer
	slots  chan struct{} // one per pack being stored
	wg     sync.WaitGroup
	spare  sync.Pool // of *[]byte, for compression

	mu      sync.Mutex
	err     error                    // the first one; ends everything
	pending map[format.Handle]uint32 // length of what is saved, in no index yet
	used    map[format.ID]struct{}   // packs stored or deduplicated against
	stored  []indexPack              // packs in no index yet
	inIndex int                      // blobs in stored
	buffers [][]byte                 // of packs that were stored, for the next ones
	stats   Stats
}

// NewWriter begins to store blobs. ctx ends the uploads. LoadIndex comes before,
// or everything is stored again.
func (r *Repository) NewWriter(ctx context.Context, opt WriterOptions) *Writer {
	ctx, cancel := context.WithCancel(ctx)
	w := &Writer{
		r: r, opt: opt, index: r.idx(), ctx: ctx, cancel: cancel,
		slots:   make(chan struct{}, r.opt.Connections),
		pending: make(map[format.Handle]uint32),
		used:    make(map[format.ID]struct{}),
	}
	w.data.lock, w.tree.lock = make(chan struct{}, 1), make(chan struct{}, 1)
	w.spare.New = func() any { return new([]byte) }
	r.crew.join(w)
	return w
}

// Save stores data as a blob if it is not stored yet. data is the caller's again
// when Save returns. It blocks while too many packs are under way.
func (w *Writer) Save(ctx context.Context, t format.BlobType, data []byte) (format.ID, error) {
	h := format.Handle{Type: t, ID: format.Hash(data)}
	return h.ID, w.SaveHashed(ctx, h, data)
}

// SaveHashed is Save for data whose id is known.
func (w *Writer) SaveHashed(ctx context.Context, h format.Handle, data []byte) error {
	if len(data) > maxBlob {
		return fmt.Errorf("save blob %s: %d bytes are more than a blob may have", h, len(data))
	}
	isNew, err := w.claim(h, len(data))
	if err != nil || !isNew {
		return err
	}
	spare := w.spare.Get().(*[]byte)
	defer w.spare.Put(spare)
	blob := pack.Blob{Handle: h}
	plain := data
	packed, ok := w.r.zstd.blob((*spare)[:0], data)
	if ok {
		plain, blob.Uncompressed = packed, uint32(len(data))
	}
	*spare = packed
	blob.Length = uint32(sealedLength(len(plain)))
	if err := w.pack(ctx, blob, plain); err != nil {
		return w.fail(fmt.Errorf("save blob %s: %w", h, err))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if h.Type == format.TreeBlob {
		w.stats.TreeBlobs++
	} else {
		w.stats.DataBlobs++
	}
	w.stats.Bytes += uint64(len(data))
	return nil
}

// claim reports whether the caller is the one to store the blob.
func (w *Writer) claim(h format.Handle, length int) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return false, w.err
	}
	if _, ok := w.pending[h]; ok {
		w.stats.Known++
		return false, nil
	}
	if id, ok := w.r.idx().has(h); ok {
		w.used[id] = struct{}{}
		w.stats.Known++
		return false, nil
	}
	if err := w.r.writable(); err != nil {
		return false, err
	}
	w.pending[h] = uint32(length)
	return true, nil
}

// Length returns how long a blob is that Save would not store again; ok is false
// for any other.
func (w *Writer) Length(h format.Handle) (n int64, ok bool) {
	w.mu.Lock()
	length, ok := w.pending[h]
	w.mu.Unlock()
	if ok {
		return int64(length), true
	}
	if locations := w.r.idx().lookup(h); len(locations) > 0 && w.r.Has(h) {
		return int64(locations[0].PlainLength()), true
	}
	return 0, false
}

// fail notes the first error, stops the uploads, and returns the first error.
func (w *Writer) fail(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
		w.cancel()
	}
	return w.err
}

// Packs returns the packs that the snapshot counts on: those stored by this
// Writer, and those that hold a blob which Save did not store again.
func (w *Writer) Packs() []format.ID {
	w.mu.Lock()
	defer w.mu.Unlock()
	ids := make([]format.ID, 0, len(w.used))
	for id := range w.used {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b format.ID) int { return slices.Compare(a[:], b[:]) })
	return ids
}

// Finish stores what is left: first the last data and tree packs, in parallel,
// then the index object and sn's object, in parallel. If nothing is new there is
// only sn's; with a nil sn there is no snapshot object and its id is zero. It
// sets the counts of blobs and bytes in sn.Summary, if that is there. When it
// returns nil, the new blobs are in the index in memory that the Writer began with.
func (w *Writer) Finish(ctx context.Context, sn *format.Snapshot) (format.ID, Stats, error) {
	stop := context.AfterFunc(ctx, w.cancel)
	defer stop()
	defer w.Abort()
	if err := errors.Join(w.flush(ctx, &w.data), w.flush(ctx, &w.tree)); err != nil {
		_ = w.fail(err)
	}
	w.wg.Wait()
	w.mu.Lock()
	packs, stats, err := w.stored, w.stats, w.err
	w.stored = nil
	w.mu.Unlock()
	if err != nil {
		return format.ID{}, stats, fmt.Errorf("finish backup: %w", err)
	}
	if sn != nil && sn.Summary != nil {
		stats.Into(sn.Summary)
	}
	id, err := w.commit(packs, sn)
	if err != nil {
		return format.ID{}, stats, fmt.Errorf("finish backup: %w", err)
	}
	return id, stats, nil
}

// Into sets the counts of what was stored.
func (s Stats) Into(sum *format.Summary) {
	sum.DataBlobs, sum.TreeBlobs = s.DataBlobs, s.TreeBlobs
	sum.DataAdded, sum.DataAddedPacked = s.Bytes, s.Stored
}

// removeLimit bounds the removal of a snapshot object whose index could not be stored.
const removeLimit = 10 * time.Second

// commit stores the index of packs and the snapshot object in parallel. One without the
// other is a snapshot that nobody can restore: if only its object was stored it is removed
// again, unless the caller has given up. (What stays so, a prune removes.)
func (w *Writer) commit(packs []indexPack, sn *format.Snapshot) (id format.ID, _ error) {
	var saved, indexed error
	var both sync.WaitGroup // the failure of one does not leave open what becomes of the other
	if sn != nil {
		both.Go(func() { id, saved = w.r.SaveSnapshot(w.ctx, sn) })
	}
	both.Go(func() { indexed = w.saveIndex(w.ctx, packs) })
	both.Wait()
	if sn != nil && indexed != nil && saved == nil && w.ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(w.ctx, removeLimit)
		defer cancel()
		_ = w.r.RemoveSnapshot(ctx, id)
	}
	if err := errors.Join(indexed, saved); err != nil {
		return format.ID{}, err
	}
	return id, nil
}

// saveIndex stores an index of packs, and adds them to the one in memory. If another
// one was loaded meanwhile, it stays without them: a call that hung may store its index
// when a new holder has long removed the packs as orphans, and nothing new may count on
// those. Only what the next LoadIndex finds in the store does.
func (w *Writer) saveIndex(ctx context.Context, packs []indexPack) error {
	if len(packs) == 0 {
		return nil
	}
	if _, err := w.r.saveFile(ctx, format.IndexFile, encodeIndex(packs)); err != nil {
		return fmt.Errorf("save index: %w", err)
	}
	for _, p := range packs {
		w.index.add(p.ID, p.Blobs, true)
	}
	if w.index != w.r.idx() {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range packs {
		for _, b := range p.Blobs {
			delete(w.pending, b.Handle) // the index has it now
		}
	}
	return nil
}

// Abort ends the Writer and waits for its goroutines. Packs that were stored and
// are in no index stay as orphans. After Finish it does nothing.
func (w *Writer) Abort() {
	_ = w.fail(errWriterDone)
	w.wg.Wait()
	w.r.crew.leave(w)
}

// packer fills one pack at a time.
type packer struct {
	lock chan struct{} // a mutex that is waited for under a context: its holder may wait for uploads
	open *openPack
}

func (p *packer) acquire(ctx context.Context) error {
	select {
	case p.lock <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *packer) release() { <-p.lock }

// openPack is a pack being filled. Space in buf is handed out under the packer's
// lock, and filled outside of it.
type openPack struct {
	buf     []byte // its length is what was handed out
	blobs   []pack.Blob
	filling sync.WaitGroup
}

func (p *openPack) fits(n, packSize int) bool {
	return len(p.blobs) < pack.MaxEntries && len(p.buf)+n+pack.HeaderSize(len(p.blobs)+1) <= packSize
}

// pack seals plain into the open pack of its type.
func (w *Writer) pack(ctx context.Context, blob pack.Blob, plain []byte) error {
	p := &w.data
	if blob.Type == format.TreeBlob {
		p = &w.tree
	}
	open, space, err := w.reserve(ctx, p, blob)
	if err != nil {
		return err
	}
	defer open.filling.Done()
	w.r.key.SealInto(space, plain)
	return nil
}

// reserve hands out space for the blob; the caller fills it and then calls
// filling.Done. A full pack is sent off first, which may block.
func (w *Writer) reserve(ctx context.Context, p *packer, blob pack.Blob) (*openPack, []byte, error) {
	if err := p.acquire(ctx); err != nil {
		return nil, nil, err
	}
	defer p.release()
	n := int(blob.Length)
	if p.open != nil && !p.open.fits(n, w.r.opt.PackSize) {
		if err := w.send(ctx, p); err != nil {
			return nil, nil, err
		}
	}
	if p.open == nil {
		p.open = &openPack{buf: w.buffer()}
	}
	o := p.open
	blob.Offset = uint32(len(o.buf))
	o.blobs = append(o.blobs, blob)
	if need := len(o.buf) + n + pack.HeaderSize(len(o.blobs)); need > cap(o.buf) {
		o.filling.Wait() // the array is about to move
		grown := make([]byte, len(o.buf), max(need, min(8*cap(o.buf), w.r.opt.PackSize)))
		copy(grown, o.buf)
		o.buf = grown
	}
	o.buf = o.buf[:len(o.buf)+n]
	o.filling.Add(1)
	return o, o.buf[blob.Offset:], nil
}

// buffer returns an empty buffer: a used one, which is large, or a small one that grows.
func (w *Writer) buffer() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.buffers); n > 0 {
		buf := w.buffers[n-1]
		w.buffers = w.buffers[:n-1]
		return buf[:0]
	}
	return make([]byte, 0, 64<<10)
}

// flush sends off what is in the packer.
func (w *Writer) flush(ctx context.Context, p *packer) error {
	if err := p.acquire(ctx); err != nil {
		return err
	}
	defer p.release()
	if p.open == nil {
		return nil
	}
	return w.send(ctx, p)
}

// send stores the packer's open pack in the background, as soon as a slot is
// free. It needs the packer's lock.
func (w *Writer) send(ctx context.Context, p *packer) error {
	select {
	case w.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
	o := p.open
	p.open = nil
	w.wg.Go(func() {
		defer func() { <-w.slots }()
		if err := w.upload(o); err != nil {
			_ = w.fail(err)
		}
	})
	return nil
}

// upload completes the pack and stores it; if that makes enough blobs for an
// index object, it stores one.
func (w *Writer) upload(o *openPack) error {
	o.filling.Wait()
	file := pack.AppendHeader(o.buf, w.r.key, o.blobs)
	id := format.Hash(file)
	w.mu.Lock()
	w.used[id] = struct{}{} // before it is stored: see survey
	w.mu.Unlock()
	if err := w.r.st.Put(w.ctx, format.DataFile.Key(id), file); err != nil {
		return fmt.Errorf("store pack: %w", err)
	}
	full := w.stow(id, o.blobs, file)
	if w.opt.Uploaded != nil {
		w.opt.Uploaded(len(file))
	}
	return w.saveIndex(w.ctx, full)
}

// stow notes a stored pack, and returns the packs of an index object that is due.
func (w *Writer) stow(id format.ID, blobs []pack.Blob, file []byte) (full []indexPack) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats.Packs++
	w.stats.Stored += uint64(len(file))
	w.buffers = append(w.buffers, file)
	w.stored = append(w.stored, indexPack{id, blobs})
	w.inIndex += len(blobs)
	if w.inIndex >= indexBlobs {
		full, w.stored, w.inIndex = w.stored, nil, 0
	}
	return full
}
