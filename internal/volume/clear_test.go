package volume

import (
	"os"
	"slices"
	"testing"

	"drover/internal/repo/fstest"
	"drover/internal/volume/protocol"
)

func TestClearPathsKeepsMarkersAndWhatIsExcluded(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	fstest.Write(t, outside+"/file", "not ours")
	fstest.Must(t, os.MkdirAll(dir+"/a/b", 0o755), os.Mkdir(dir+"/c", 0o755), os.Symlink(outside, dir+"/link"))
	for _, name := range []string{"/file", "/a/b/file", "/c/x.lock", "/" + MarkerFile} {
		fstest.Write(t, dir+name, "x")
	}
	for range 2 {
		fstest.Must(t, clearPaths(t.Context(), []string{dir, dir + "/none"}, []string{"*.lock"}))
		var left []string
		entries, err := os.ReadDir(dir)
		fstest.Must(t, err)
		for _, e := range entries {
			left = append(left, e.Name())
		}
		if !slices.Equal(left, []string{MarkerFile, "c"}) {
			t.Errorf("left: %v", left)
		}
	}
	if _, err := os.Stat(outside + "/file"); err != nil {
		t.Error(err)
	}
}

// Of several records the one whose markers match says whose the files are; another
// volume inherits them only when they are settled.
func TestLeftover(t *testing.T) {
	base, paths := t.TempDir(), []string{t.TempDir()}
	write := func(volume string, r protocol.Record, mark bool) *DataDir {
		d, err := OpenDataDir(base, volume)
		fstest.Must(t, err)
		t.Cleanup(func() { _ = d.Close() })
		old, err := d.load(volume)
		fstest.Must(t, err)
		r.Volume = volume
		f := recordFile{Record: r}
		if old != nil {
			f.Markers = old.Markers
		}
		if mark {
			f.Markers, err = writeMarkers(paths)
			fstest.Must(t, err)
		}
		fstest.Must(t, d.store(f), d.Close())
		return d
	}
	find := func(want Leftover) {
		t.Helper()
		got, err := FindLeftover(base, []string{"data-0", "data-1", "data-2"}, paths)
		if err != nil || got != want {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
	}
	find(Leftover{})
	write("data-0", protocol.Record{Role: protocol.RoleHolder}, true)
	one := write("data-1", protocol.Record{Role: protocol.RoleHolder, SeenEpoch: 7}, true)
	find(Leftover{"data-1", true})
	other := &DataDir{path: base + "/data-0"}
	if err := other.Inherit("data-0", Leftover{"data-1", true}); err == nil {
		t.Error("unsettled files were inherited")
	}
	write("data-1", protocol.Record{Restoring: true, SeenEpoch: 7}, false)
	find(Leftover{Volume: "data-1"})
	fstest.Must(t, other.Inherit("data-0", Leftover{Volume: "data-1"}))
	rec, err := other.load("data-0")
	if err != nil || !rec.Restoring || rec.Role != protocol.RoleNone || !markersMatch(paths, rec.Markers) {
		t.Errorf("%+v, %v", rec, err)
	}
	if rec, err := one.load("data-1"); err != nil || rec.SeenEpoch != 7 {
		t.Errorf("%+v, %v", rec, err)
	}
}
