package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"drover/internal/objstore"
	"drover/internal/objstore/mem"
	"drover/internal/repo/format"
)

const password = "correct horse"

// testRepository is made and opened once: scrypt is slow on purpose.
var testRepository = sync.OnceValues(func() (*made, error) {
	bundle, err := NewBundle(password)
	if err != nil {
		return nil, err
	}
	st := mem.New()
	if err := Materialise(context.Background(), st, bundle); err != nil {
		return nil, err
	}
	r, err := Open(context.Background(), st, password, Options{})
	return &made{bundle, r}, err
})

type made struct {
	*Bundle
	r *Repository
}

// newRepo makes the one test repository in st, with an index loaded.
func newRepo(t testing.TB, st objstore.Store, opt Options) *Repository {
	t.Helper()
	m, err := testRepository()
	if err != nil {
		t.Fatal(err)
	}
	if err := Materialise(t.Context(), st, m.Bundle); err != nil {
		t.Fatal(err)
	}
	return openRepo(t, st, opt)
}

// openRepo is Open of the test repository without deriving its key again.
func openRepo(t testing.TB, st objstore.Store, opt Options) *Repository {
	t.Helper()
	m, err := testRepository()
	if err != nil {
		t.Fatal(err)
	}
	r := newRepository(st, opt.withDefaults(), m.r.key, m.r.keyID, m.r.cfg)
	if err := r.LoadIndex(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

// testData gives n bytes that depend on seed: random ones, or compressible text.
func testData(seed uint64, n int, compressible bool) []byte {
	rnd := rand.New(rand.NewPCG(seed, 1))
	out := make([]byte, 0, n+64)
	for len(out) < n {
		if compressible {
			out = fmt.Appendf(out, "line %d of the file number %d\n", rnd.IntN(1000), seed)
		} else {
			out = append(out, byte(rnd.Uint32()))
		}
	}
	return out[:n]
}

// tree makes a tree blob of one file with the given blobs, in restic's JSON.
func treeBlob(name string, size int, content ...format.ID) []byte {
	ids := ""
	for i, id := range content {
		if i > 0 {
			ids += ","
		}
		ids += `"` + id.String() + `"`
	}
	at := "2024-05-06T07:08:09.123456789Z"
	return fmt.Appendf(nil, `{"nodes":[{"name":%q,"type":"file","mode":420,"mtime":%q,"atime":%q,"ctime":%q,"uid":0,"gid":0,"size":%d,"links":1,"content":[%s]}]}`+"\n",
		name, at, at, at, size, ids)
}

// saveFile stores a snapshot of one file with the given blobs.
func saveSnapshotOf(t testing.TB, r *Repository, name string, blobs ...[]byte) (format.ID, []format.ID) {
	t.Helper()
	w := r.NewWriter(t.Context(), WriterOptions{})
	defer w.Abort()
	var ids []format.ID
	size := 0
	for _, b := range blobs {
		id, err := w.Save(t.Context(), format.DataBlob, b)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
		size += len(b)
	}
	tree, err := w.Save(t.Context(), format.TreeBlob, treeBlob(name, size, ids...))
	if err != nil {
		t.Fatal(err)
	}
	sn := &format.Snapshot{Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Tree: &tree, Paths: []string{"/" + name}, Hostname: "h", Summary: &format.Summary{}}
	id, _, err := w.Finish(t.Context(), sn)
	if err != nil {
		t.Fatal(err)
	}
	return id, ids
}

func TestBlobsSurviveReopening(t *testing.T) {
	for _, compression := range []Compression{CompressionAuto, CompressionOff, CompressionMax} {
		st := mem.New()
		r := newRepo(t, st, Options{Compression: compression, PackSize: 256 << 10})
		var blobs [][]byte
		for i, n := range []int{0, 1, 63, 64, 1000, 70_000, 200_000, 300_000, 1 << 20} {
			blobs = append(blobs, testData(uint64(i), n, i%2 == 0), testData(uint64(100+i), n+1, i%2 == 1))
		}
		sn, ids := saveSnapshotOf(t, r, "file", blobs...)
		again, err := Open(t.Context(), st, password, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := again.LoadIndex(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, r := range []*Repository{r, again} {
			for i, id := range ids {
				got, err := r.LoadBlob(t.Context(), format.Handle{Type: format.DataBlob, ID: id}, nil)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, blobs[i]) {
					t.Fatalf("blob %d differs", i)
				}
			}
			_, found, err := r.FindSnapshot(t.Context(), sn.String()[:10])
			if err != nil {
				t.Fatal(err)
			}
			if found.Hostname != "h" || found.Summary.DataBlobs == 0 {
				t.Fatalf("snapshot came back as %+v", found)
			}
		}
	}
}

func TestOpenErrors(t *testing.T) {
	ctx := context.Background()
	st := mem.New()
	_, err := Open(ctx, st, password, Options{})
	wantError(t, err, ErrNoRepository)
	put(t, st, "config", []byte("something else"))
	_, err = Open(ctx, st, password, Options{})
	wantError(t, err, ErrNoRepository)
	put(t, st, format.KeyFile.Key(format.Hash([]byte("x"))), []byte("x"))
	_, err = Open(ctx, st, password, Options{})
	wantError(t, err, ErrNoRepository)

	st = mem.New()
	r := newRepo(t, st, Options{})
	_, err = Open(ctx, st, "wrong", Options{})
	wantError(t, err, ErrWrongPassword)
	put(t, st, "config", r.Seal([]byte(`{"version":1,"id":"`+r.ID()+`","chunker_polynomial":"25b468838dcb75"}`)))
	_, err = Open(ctx, st, password, Options{})
	wantError(t, err, ErrVersion)
	put(t, st, "config", []byte("0123456789012345678901234567890123456789"))
	_, err = Open(ctx, st, password, Options{})
	wantError(t, err, ErrDamaged)
}

func wantError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

func put(t testing.TB, st objstore.Store, key string, data []byte) {
	t.Helper()
	if err := st.Put(t.Context(), key, data); err != nil {
		t.Fatal(err)
	}
}

func TestMaterialiseIsIdempotentAndRefusesAnother(t *testing.T) {
	st := mem.New()
	newRepo(t, st, Options{})
	newRepo(t, st, Options{})
	other, err := NewBundle("other")
	if err != nil {
		t.Fatal(err)
	}
	if err := Materialise(t.Context(), st, other); err == nil {
		t.Fatal("a second repository was materialised over the first")
	}
	if _, err := Open(t.Context(), st, password, Options{}); err != nil {
		t.Fatal(err)
	}
}
