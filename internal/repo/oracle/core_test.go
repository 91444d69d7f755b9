package oracle

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover/internal/repo"
	"drover/internal/repo/format"
)

func day(n int) time.Time { return time.Date(2026, 3, n, 12, 30, 0, 123456789, time.UTC) }

// randomBytes gives n bytes that do not compress; text gives n that do.
func randomBytes(seed uint64, n int) []byte {
	rnd := rand.New(rand.NewPCG(seed, 2))
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(rnd.Uint32())
	}
	return out
}

func text(seed uint64, n int) []byte {
	rnd := rand.New(rand.NewPCG(seed, 3))
	var out []byte
	for len(out) < n {
		out = fmt.Appendf(out, "%d: the quick brown fox %d\n", len(out), rnd.IntN(5000))
	}
	return out[:n]
}

func someFiles(seed uint64) map[string][]byte {
	return map[string][]byte{
		"empty":     {},
		"one":       {1},
		"text":      text(seed, 300_000),
		"random":    randomBytes(seed, 3_000_000),
		"same":      text(99, 2_500_000),
		"new\nline": text(seed, 10),
	}
}

func checkDir(t *testing.T, path string, want map[string][]byte) {
	t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(want) {
		t.Errorf("%d files restored, want %d", len(entries), len(want))
	}
	for name, content := range want {
		got, err := os.ReadFile(filepath.Join(path, name))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, content) {
			t.Errorf("%q: content differs", name)
		}
	}
}

// Restic reads, checks and restores what we wrote, at every level of compression.
func TestResticReadsOurs(t *testing.T) {
	for _, opt := range []repo.Options{
		{},
		{Compression: repo.CompressionOff, PackSize: 1 << 20},
		{Compression: repo.CompressionMax, PackSize: 2 << 20},
	} {
		d := newDir(t)
		st, r := create(t, opt)
		save(t, r, day(1), someFiles(1))
		last := save(t, r, day(2), someFiles(2))
		d.dump(st)
		d.restic("check", "--read-data")
		target := t.TempDir()
		d.restic("restore", last.String(), "--target", target)
		checkDir(t, target, someFiles(2))
		list := decode[[]struct {
			ID       string
			Hostname string
			Tags     []string
		}](t, d.restic("snapshots", "--json"))
		if len(list) != 2 || list[1].ID != last.String() || list[1].Hostname != "here" || len(list[1].Tags) != 1 {
			t.Errorf("restic lists %+v", list)
		}
	}
}

// We read what restic wrote: its repository, and its snapshots in ours.
func TestWeReadRestics(t *testing.T) {
	for _, init := range []bool{true, false} {
		d := newDir(t)
		if init {
			d.restic("init")
		} else {
			st, r := create(t, repo.Options{})
			save(t, r, day(1), someFiles(1))
			d.dump(st)
		}
		source := t.TempDir()
		content := bytes.Repeat(append(randomBytes(5, 700_000), text(5, 900_000)...), 3)
		if err := os.WriteFile(filepath.Join(source, "big"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		d.restic("backup", source)
		r := open(t, d.load(), repo.Options{})
		var found *format.Snapshot
		err := r.Snapshots(t.Context(), func(_ format.ID, sn *format.Snapshot) error {
			if sn.Paths[0] == source {
				found = sn
			}
			return nil
		})
		if err != nil || found == nil {
			t.Fatalf("restic's snapshot: %v, %v", found, err)
		}
		tree := *found.Tree
		for _, name := range strings.Split(strings.Trim(source, "/"), "/") {
			tree = *node(t, r, tree, name).Subtree
		}
		var got []byte
		for _, id := range node(t, r, tree, "big").Content {
			data, err := r.LoadBlob(t.Context(), format.Handle{Type: format.DataBlob, ID: id}, nil)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, data...)
		}
		if !bytes.Equal(got, content) {
			t.Error("content differs")
		}
	}
}

func node(t *testing.T, r *repo.Repository, tree format.ID, name string) *format.Node {
	t.Helper()
	data, err := r.LoadBlob(t.Context(), format.Handle{Type: format.TreeBlob, ID: tree}, nil)
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := format.DecodeTree(data)
	if err != nil {
		t.Fatal(err)
	}
	for i := range nodes {
		if nodes[i].Name == name {
			return &nodes[i]
		}
	}
	t.Fatalf("no %q in tree %s", name, tree)
	return nil
}
