package volume

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"drover/internal/volume/protocol"
)

func TestMarkersTellWhatWasPutInPlace(t *testing.T) {
	dir := fastDir(t)
	state := filepath.Join(dir, "state")
	writeFile(t, state+"/file", "x")
	marks, err := writeMarkers([]string{state})
	if err != nil {
		t.Fatal(err)
	}
	if !markersMatch([]string{state}, marks) {
		t.Fatal("the marked directory does not match")
	}
	if markersMatch([]string{state, dir}, marks) || markersMatch([]string{dir}, marks) || markersMatch(nil, marks) {
		t.Error("other paths match")
	}
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", state, dir+"/copy").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Rename(state, dir+"/aside"); err != nil {
		t.Fatal(err)
	}
	if markersMatch([]string{state}, marks) {
		t.Error("a path that is gone matches")
	}
	if err := os.Rename(dir+"/copy", state); err != nil {
		t.Fatal(err)
	}
	if getMarker(state) != marks[0].Value {
		t.Fatal("the copy has no marker: this proves nothing")
	}
	if markersMatch([]string{state}, marks) {
		t.Error("a copy with all its attributes matches")
	}
	// The same inode, marked again: the record is older than the mark.
	if err := os.RemoveAll(state); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir+"/aside", state); err != nil {
		t.Fatal(err)
	}
	if !markersMatch([]string{state}, marks) {
		t.Error("the directory moved back does not match")
	}
	if _, err := writeMarkers([]string{state}); err != nil {
		t.Fatal(err)
	}
	if markersMatch([]string{state}, marks) {
		t.Error("a newer mark matches")
	}
}

func TestMarkerOfAPathThatIsNotThere(t *testing.T) {
	state := fastDir(t) + "/state"
	marks, err := writeMarkers([]string{state})
	if err != nil {
		t.Fatal(err)
	}
	if !markersMatch([]string{state}, marks) {
		t.Error("still not there, and does not match")
	}
	writeFile(t, state+"/file", "x")
	if markersMatch([]string{state}, marks) {
		t.Error("matches although it appeared")
	}
}

// Where there are no extended attributes (here: a file system that has none) a
// file stands in, which no snapshot contains.
func TestMarkerFileStandsIn(t *testing.T) {
	t.Parallel()
	dir := fastDir(t)
	if err := unix.Mount("none", dir, "ramfs", 0, ""); err != nil {
		t.Fatalf("mount a file system without attributes (needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	st := newStore(t)
	a := newServer(t, st, "a", dir+"/state").start().waitStarted()
	if _, err := os.Stat(a.state + "/" + MarkerFile); err != nil {
		t.Fatalf("this file system has attributes: %v", err)
	}
	a.write("file", "1")
	a.backup()
	a.write("newer", "1")
	a.crash()
	a.start().waitStarted().want("newer", "1")
	if _, stats := a.rt.Status(); stats.Restore != 0 {
		t.Errorf("restored: %+v", stats)
	}
	a.backup()
	a.lose()
	v := openVolume(t, st)
	_, sn, err := v.Latest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if sn.Summary.TotalFilesProcessed != 2 {
		t.Errorf("%d files are in the snapshot, want 2 without the marker", sn.Summary.TotalFilesProcessed)
	}
}

func TestRecordIsReadAsItWasWritten(t *testing.T) {
	d, err := OpenDataDir(fastDir(t), "data")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	if got, err := d.load("data"); got != nil || err != nil {
		t.Fatalf("%v, %v; want none", got, err)
	}
	want := recordFile{
		Record: protocol.Record{
			Volume: "data", Role: protocol.RoleHolder, Epoch: 7, Claim: "c", IntendedClaim: "i",
			EarlierClaims: []string{"e"}, Last: "l", Intended: "n", SyncedLast: true, Boot: "b", SeenEpoch: 8, SeenSeq: 9,
		},
		Markers: []marker{{Path: "/p", Inode: 3, Value: "v"}},
	}
	if err := d.store(want); err != nil {
		t.Fatal(err)
	}
	want.Version = recordVersion
	if got, err := d.load("data"); err != nil || !reflect.DeepEqual(*got, want) {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if got, err := d.load("other"); got != nil || err != nil {
		t.Errorf("of another volume: %v, %v", got, err)
	}
	for content, wanted := range map[string]error{`{"version":2,"volume":"data"}`: ErrNewer, `{"version":1,"vol`: nil, ``: nil} {
		if err := os.WriteFile(d.Path("record"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := d.load("data")
		if err == nil || wanted != nil && !errors.Is(err, wanted) || !strings.Contains(err.Error(), "record") {
			t.Errorf("%q: %v", content, err)
		}
	}
}

// FuzzRecord: what is read is either refused or survives being written.
func FuzzRecord(f *testing.F) {
	good, err := json.Marshal(recordFile{Record: protocol.Record{Version: 1, Volume: "data", Role: protocol.RoleHolder}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"version":9}`))
	f.Add([]byte(`{"markers":[{"inode":-1}]}`))
	d, err := OpenDataDir(f.TempDir(), "data")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = d.Close() })
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(d.Path("record"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := d.load("data")
		if err != nil || r == nil {
			return
		}
		if err := d.store(*r); err != nil {
			t.Fatal(err)
		}
		again, err := d.load("data")
		if err != nil || again.Claim != r.Claim || again.Epoch != r.Epoch || len(again.Markers) != len(r.Markers) {
			t.Errorf("%+v became %+v, %v", r, again, err)
		}
		_ = markersMatch([]string{"/nowhere"}, r.Markers)
	})
}
