package app

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover/internal/config"
	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/repo/fstest"
	"drover/internal/volume"
)

// workshop is a bucket in a directory, with one volume, and a directory to commit.
type workshop struct {
	t      *testing.T
	bucket string
	state  string
}

func newWorkshop(t *testing.T) *workshop {
	t.Helper()
	dir := t.TempDir()
	w := &workshop{t: t, bucket: filepath.Join(dir, "bucket"), state: filepath.Join(dir, "state")}
	fstest.Must(t, os.Mkdir(w.bucket, 0o755), os.Mkdir(w.state, 0o755))
	if _, err := w.ops().Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *workshop) env() map[string]string {
	return map[string]string{"DROVER_STORE": "file://" + w.bucket, "DROVER_PASSWORD": "sesame", "DROVER_ID": "test", "DROVER_TTL": "1s"}
}

// ops are those of one command: what another has committed is seen.
func (w *workshop) ops(more ...string) *Ops {
	w.t.Helper()
	env := w.env()
	for i := 0; i < len(more); i += 2 {
		env[more[i]] = more[i+1]
	}
	cfg, err := LoadConfig(config.Sources{Files: []string{filepath.Join(w.state, "none")}, Env: func(name string) (string, bool) {
		v, ok := env[name]
		return v, ok
	}})
	fstest.Must(w.t, err)
	o := NewOps(cfg, slog.New(slog.DiscardHandler))
	w.t.Cleanup(func() { fstest.Must(w.t, o.Close()) })
	return o
}

// commit commits the state directory and returns the snapshot's id.
func (w *workshop) commit() string {
	w.t.Helper()
	b, err := w.ops().Snapshot(w.t.Context(), SnapshotOptions{Paths: []string{w.state}})
	fstest.Must(w.t, err)
	return b.Snapshot
}

func (w *workshop) write(name, content string) {
	fstest.Write(w.t, filepath.Join(w.state, name), content)
}

func TestNewestUntil(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	entry := func(n byte, s int64, seq uint64) volume.Entry {
		return volume.Entry{SnapshotRef: repo.SnapshotRef{ID: format.ID{n}, Snapshot: &format.Snapshot{Time: at(s)}}, Seq: seq}
	}
	line := []volume.Entry{entry(1, 10, 1), entry(3, 20, 3), entry(2, 20, 2), entry(4, 30, 4), entry(5, 40, 5), entry(6, 40, 6)}
	for s, want := range map[int64]byte{9: 0, 10: 1, 19: 1, 20: 3, 29: 3, 30: 4, 99: 6} {
		got := newestUntil(line, at(s))
		if want == 0 && got != nil || want != 0 && (got == nil || got.ID[0] != want) {
			t.Errorf("at %d: %+v, want %d", s, got, want)
		}
	}
}

func TestSnapshotAt(t *testing.T) {
	w := newWorkshop(t)
	if _, err := w.ops().SnapshotAt(t.Context(), time.Now()); !errors.Is(err, volume.ErrNoSnapshot) {
		t.Errorf("nothing committed: %v", err)
	}
	w.write("a", "1")
	first := w.commit()
	between := time.Now()
	w.write("a", "2")
	second := w.commit()
	for at, want := range map[time.Time]string{between: first, time.Now(): second, time.Now().Add(time.Hour): second} {
		if got, err := w.ops().SnapshotAt(t.Context(), at); err != nil || got.ID != want {
			t.Errorf("%v: got %s, %v; want %s", at, got.ID, err, want)
		}
	}
	_, err := w.ops().SnapshotAt(t.Context(), between.Add(-time.Hour))
	if !errors.Is(err, repo.ErrSnapshotNotFound) || !strings.Contains(err.Error(), "the oldest that there is, "+first[:8]) {
		t.Errorf("before the first: %v", err)
	}
	// One that was never committed is not meant, however new.
	o := w.ops()
	v, err := o.open(context.Background())
	fstest.Must(t, err)
	_, sn, err := v.Latest(t.Context())
	fstest.Must(t, err)
	sn.Time, sn.Tags = time.Now(), []string{"diverged"}
	_, err = v.Repo.SaveSnapshot(t.Context(), sn)
	fstest.Must(t, err)
	if got, err := w.ops().SnapshotAt(t.Context(), time.Now()); err != nil || got.ID != second {
		t.Errorf("beside a diverged one: got %s, %v; want %s", got.ID, err, second)
	}
}

// TestDiff: the default is what the newest commit changed; any two may be named.
func TestDiff(t *testing.T) {
	w := newWorkshop(t)
	w.write("stays", "1")
	w.write("goes", "1")
	first := w.commit()
	if _, err := w.ops().Diff(t.Context(), "", "", nil); !errors.Is(err, repo.ErrSnapshotNotFound) {
		t.Errorf("of the first commit: %v", err)
	}
	w.write("new/file", "1")
	fstest.Must(t, os.Remove(filepath.Join(w.state, "goes")))
	second := w.commit()
	w.write("stays", "2")
	third := w.commit()
	for _, c := range []struct{ from, to, want, ends string }{
		{"", "", "changed stays; ", second + third},
		{first[:10], second[:10], "removed goes; added new; added new/file; ", first + second},
		{second, first, "added goes; removed new; removed new/file; ", second + first},
		{first, "", "removed goes; added new; added new/file; changed stays; ", first + third},
		{third, "latest", "", third + third},
	} {
		got := ""
		res, err := w.ops().Diff(t.Context(), c.from, c.to, func(d Change) error {
			got += string(d.Kind) + strings.Replace(d.Path, w.state+"/", " ", 1) + "; "
			return nil
		})
		if err != nil || got != c.want || res.From.ID+res.To.ID != c.ends {
			t.Errorf("from %q to %q: %q, %+v, %v; want %q", c.from, c.to, got, res, err, c.want)
		}
		if n := int64(strings.Count(got, ";")); res.Added+res.Removed+res.Changed != n {
			t.Errorf("from %q to %q: counted %+v, listed %d", c.from, c.to, res, n)
		}
	}
}
