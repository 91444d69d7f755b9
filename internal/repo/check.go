package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"drover/internal/objstore"
	"drover/internal/repo/crypto"
	"drover/internal/repo/format"
	"drover/internal/repo/pack"
)

// maxPaths is how many paths a Problem names.
const maxPaths = 20

// CheckOptions of Check.
type CheckOptions struct {
	ReadData bool // read every byte of every pack, or of those chosen
	// Choose names the packs that ReadData reads; it gets all of them, by id, and
	// may shorten and reorder what it gets. nil: all. Of the others the size is compared.
	Choose   func(packs []StoredPack) []StoredPack
	Progress func(CheckProgress) // after each pack that was read; one call at a time
}

// Problem is one thing that is wrong.
type Problem struct {
	Object    string // key of the object, or "blob " and its id
	Err       error
	Snapshots []format.ID // that it touches
	Paths     []string    // that it touches: the first ones
}

// Report is the result of Check.
type Report struct {
	Problems  []Problem
	Snapshots int
	Packs     int // stored
	PacksRead int // every byte of them
	Blobs     int // copies, in the index
	BytesRead uint64
	Orphans   []format.ID // packs in no index: left by what was cut off, harmless
}

// checker is one run of Check.
type checker struct {
	r      *Repository
	idx    *memIndex
	stored map[format.ID]int64

	mu     sync.Mutex
	report Report
	bad    map[format.ID]map[format.Handle]int // damaged copies, by pack → number of the Problem
	lost   map[format.Handle]int               // blobs without a good copy → number of the Problem
}

// Check compares the repository with itself: keys, index objects, packs (their
// size; with ReadData every byte), and everything that snapshots reach. What is
// wrong is in the Report; an error means that the check is not complete. The
// index in memory is left as it was.
func (r *Repository) Check(ctx context.Context, opt CheckOptions) (Report, error) {
	c := &checker{
		r: r, idx: newMemIndex(),
		bad: make(map[format.ID]map[format.Handle]int), lost: make(map[format.Handle]int),
	}
	for _, step := range []func(context.Context, CheckOptions) error{c.keys, c.load, c.packs, c.lose, c.snapshots} {
		if err := step(ctx, opt); err != nil {
			return c.report, fmt.Errorf("check repository: %w", err)
		}
	}
	slices.SortFunc(c.report.Orphans, compareIDs)
	return c.report, nil
}

// problem notes one and returns its number.
func (c *checker) problem(object string, err error) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Problems = append(c.report.Problems, Problem{Object: object, Err: err})
	return len(c.report.Problems) - 1
}

// unanswered reports whether err leaves open what is stored.
func unanswered(err error) bool { return err != nil && !copyLost(err) }

func (c *checker) keys(ctx context.Context, _ CheckOptions) error {
	ids, err := listIDs(ctx, c.r.st, format.KeyFile)
	if err != nil {
		return err
	}
	for _, id := range ids {
		name := format.KeyFile.Key(id)
		data, _, err := c.r.st.Get(ctx, name, 0, -1)
		if unanswered(err) {
			return err
		}
		if err == nil && format.Hash(data) != id {
			err = fmt.Errorf("%w: its content has another id", ErrDamaged)
		}
		if err == nil {
			_, err = crypto.ParseKeyFile(data)
		}
		if err != nil {
			c.problem(name, err)
		}
	}
	return nil
}

// load reads the index and lists the packs, in the order that readIndex explains.
func (c *checker) load(ctx context.Context, _ CheckOptions) error {
	if err := c.loadIndex(ctx); err != nil {
		return err
	}
	var err error
	if c.stored, err = c.r.listPacks(ctx); err != nil {
		return err
	}
	c.idx.setPresent(c.stored)
	c.report.Packs, c.report.Blobs = len(c.stored), c.idx.len()
	return nil
}

// loadIndex starts over when an object goes that was listed: somebody merges them, or
// takes packs out. Each object's content is in others before it goes.
func (c *checker) loadIndex(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		ids, err := listIDs(ctx, c.r.st, format.IndexFile)
		if err != nil {
			return err
		}
		idx := newMemIndex()
		damaged := make(map[format.ID]error)
		err = forEach(ctx, c.r.opt.Connections, ids, func(ctx context.Context, id format.ID) error {
			file, err := c.r.loadIndexFile(ctx, id)
			for _, p := range file.Packs {
				idx.add(p.ID, p.Blobs, false)
			}
			if err == nil || unanswered(err) || errors.Is(err, objstore.ErrNotFound) && attempt < indexLoadAttempts {
				return err
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			damaged[id] = err
			return nil
		})
		switch {
		case err == nil:
			for id, err := range damaged {
				c.problem(format.IndexFile.Key(id), err)
			}
			c.idx = idx
			return nil
		case !errors.Is(err, objstore.ErrNotFound):
			return err
		}
	}
}

// packs compares every pack with the index.
func (c *checker) packs(ctx context.Context, opt CheckOptions) error {
	indexed := c.idx.packBlobs()
	for id, blobs := range indexed {
		if _, ok := c.stored[id]; !ok {
			c.damage(id, blobs, fmt.Errorf("the index names it: %w", objstore.ErrNotFound))
		}
	}
	var chosen []StoredPack
	if opt.ReadData {
		chosen = sortedPacks(c.stored)
		if opt.Choose != nil {
			chosen = opt.Choose(chosen)
		}
	}
	reads := make(map[format.ID]bool, len(chosen))
	for _, p := range chosen {
		reads[p.ID] = true
	}
	for id := range c.stored {
		if len(indexed[id]) == 0 {
			c.report.Orphans = append(c.report.Orphans, id)
		}
		if !reads[id] {
			c.size(id, indexed[id])
		}
	}
	return c.readPacks(ctx, chosen, indexed, opt.Progress)
}

func (c *checker) readPacks(ctx context.Context, chosen []StoredPack, indexed map[format.ID][]PackedBlob, tell func(CheckProgress)) error {
	c.report.PacksRead = len(chosen)
	now := CheckProgress{TotalPacks: len(chosen)}
	for _, p := range chosen {
		now.TotalBytes += p.Size
	}
	return forEach(ctx, c.r.opt.Connections, chosen, func(ctx context.Context, p StoredPack) error {
		err := c.read(ctx, p.ID, indexed[p.ID])
		c.mu.Lock()
		defer c.mu.Unlock()
		now.Packs++
		now.Bytes += p.Size
		if tell != nil {
			tell(now)
		}
		return err
	})
}

// damage notes that copies of blobs in a pack are unusable.
func (c *checker) damage(id format.ID, blobs []PackedBlob, err error) {
	n := c.problem(format.DataFile.Key(id), err)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bad[id] == nil {
		c.bad[id] = make(map[format.Handle]int)
	}
	for _, b := range blobs {
		c.bad[id][b.Handle] = n
	}
}

// size compares the pack's length with what the index says is in it.
func (c *checker) size(id format.ID, blobs []PackedBlob) {
	if len(blobs) == 0 {
		return
	}
	if want := pack.Size(packBlobs(blobs)); want != c.stored[id] {
		c.damage(id, blobs, fmt.Errorf("%w: %d bytes, and by the index %d", ErrDamaged, c.stored[id], want))
	}
}

// packBlobs sorts blobs by offset and leaves out the pack.
func packBlobs(blobs []PackedBlob) []pack.Blob {
	out := make([]pack.Blob, len(blobs))
	for i, b := range blobs {
		out[i] = pack.Blob{Handle: b.Handle, Offset: b.Offset, Length: b.Length, Uncompressed: b.Uncompressed}
	}
	slices.SortFunc(out, func(a, b pack.Blob) int { return int(int64(a.Offset) - int64(b.Offset)) })
	return out
}

// read compares every byte of the pack with its id, its header and the index.
func (c *checker) read(ctx context.Context, id format.ID, blobs []PackedBlob) error {
	file, _, err := c.r.st.Get(ctx, format.DataFile.Key(id), 0, -1)
	if unanswered(err) {
		return err
	}
	c.mu.Lock()
	c.report.BytesRead += uint64(len(file))
	c.mu.Unlock()
	if err != nil {
		c.damage(id, blobs, err)
		return nil
	}
	if format.Hash(file) == id {
		header, err := pack.ParseFile(c.r.key, file)
		if err == nil && len(blobs) > 0 && !slices.Equal(header, packBlobs(blobs)) {
			err = fmt.Errorf("%w: its header and the index differ", ErrDamaged)
		}
		if err != nil {
			c.damage(id, nil, err)
		}
	} else {
		c.damage(id, nil, fmt.Errorf("%w: its content has another id", ErrDamaged))
	}
	// Whatever is wrong with the whole, what matters is which blobs are readable.
	for _, b := range blobs {
		if err := c.blob(file, b); err != nil {
			c.damage(id, []PackedBlob{b}, err)
		}
	}
	return nil
}

// blob decrypts the blob in place.
func (c *checker) blob(file []byte, b PackedBlob) error {
	end := int64(b.Offset) + int64(b.Length)
	if end > int64(len(file)) {
		return fmt.Errorf("%s blob %s: %w: the pack ends before it", b.Type, b.ID, ErrDamaged)
	}
	_, err := c.r.openBlob(b.Handle, b.Location, file[b.Offset:end:end], nil)
	if err != nil {
		return fmt.Errorf("%s blob %s: %w", b.Type, b.ID, err)
	}
	return nil
}

// lose finds the blobs all of whose copies are damaged.
func (c *checker) lose(context.Context, CheckOptions) error {
	for _, damaged := range c.bad {
		for h, n := range damaged {
			good := func(l Location) bool {
				_, bad := c.bad[l.Pack][h]
				return !bad
			}
			if !slices.ContainsFunc(c.idx.lookup(h), good) {
				c.lost[h] = n
			}
		}
	}
	return nil
}

// place is a directory in a snapshot: equal trees at equal paths are looked at
// once for all snapshots.
type place struct {
	tree format.ID
	path string
}

// snapshots walks everything that snapshots reach, level by level.
func (c *checker) snapshots(ctx context.Context, _ CheckOptions) error {
	ids, err := listIDs(ctx, c.r.st, format.SnapshotFile)
	if err != nil {
		return err
	}
	level := make(map[place][]format.ID)
	err = c.r.loadFiles(ctx, format.SnapshotFile, ids, func(id format.ID, plain []byte, err error) error {
		var sn *format.Snapshot
		if err == nil {
			sn, err = decodeSnapshot(plain)
		}
		switch {
		case errors.Is(err, objstore.ErrNotFound):
			return nil // removed since the listing
		case unanswered(err):
			return err
		case err != nil:
			n := c.problem(format.SnapshotFile.Key(id), err)
			c.report.Problems[n].Snapshots = []format.ID{id}
			return nil
		}
		c.report.Snapshots++
		p := place{*sn.Tree, "/"}
		level[p] = append(level[p], id)
		return nil
	})
	for err == nil && len(level) > 0 {
		level, err = c.level(ctx, level)
	}
	return err
}

// level looks at directories and returns those in them.
func (c *checker) level(ctx context.Context, level map[place][]format.ID) (map[place][]format.ID, error) {
	paths := make(map[format.ID][]string)
	for p := range level {
		paths[p.tree] = append(paths[p.tree], p.path)
	}
	next := make(map[place][]format.ID)
	visit := func(tree format.ID, nodes []format.Node, err error) error {
		if unanswered(err) && !errors.Is(err, ErrBlobNotFound) {
			return err
		}
		h := format.Handle{Type: format.TreeBlob, ID: tree}
		if err != nil {
			c.lostBlob(h, err)
		}
		for _, path := range paths[tree] {
			snapshots := level[place{tree, path}]
			c.touch(h, path, snapshots)
			for i := range nodes {
				c.node(&nodes[i], path, snapshots, next)
			}
		}
		return nil
	}
	trees := make([]format.ID, 0, len(paths))
	for id := range paths {
		trees = append(trees, id)
	}
	return next, c.view().loadTrees(ctx, trees, visit)
}

// view is the repository with the checker's own index.
func (c *checker) view() *Repository {
	return &Repository{st: c.r.st, opt: c.r.opt, key: c.r.key, cfg: c.r.cfg, zstd: c.r.zstd, index: c.idx}
}

func (c *checker) node(n *format.Node, dir string, snapshots []format.ID, next map[place][]format.ID) {
	path := dir + n.Name
	if n.Subtree != nil {
		p := place{*n.Subtree, path + "/"}
		next[p] = append(next[p], snapshots...)
	}
	for _, id := range n.Content {
		h := format.Handle{Type: format.DataBlob, ID: id}
		if _, ok := c.lost[h]; !ok {
			if len(c.idx.lookup(h)) > 0 {
				continue
			}
			c.lostBlob(h, ErrBlobNotFound)
		}
		c.touch(h, path, snapshots)
	}
}

// lostBlob notes a blob that is nowhere, unless a damaged pack says so already.
func (c *checker) lostBlob(h format.Handle, err error) {
	if _, ok := c.lost[h]; !ok {
		c.lost[h] = c.problem(fmt.Sprintf("%s blob %s", h.Type, h.ID), err)
	}
}

// touch adds a path to the problem of a lost blob; for others it does nothing.
func (c *checker) touch(h format.Handle, path string, snapshots []format.ID) {
	n, ok := c.lost[h]
	if !ok {
		return
	}
	p := &c.report.Problems[n]
	if len(p.Paths) < maxPaths && !slices.Contains(p.Paths, path) {
		p.Paths = append(p.Paths, path)
	}
	for _, id := range snapshots {
		if !slices.Contains(p.Snapshots, id) {
			p.Snapshots = append(p.Snapshots, id)
		}
	}
}
