package cli

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"drover/client"
	"drover/internal/proctree"
	"drover/internal/repo/fstest"
)

// testFlippedBits: a bit is flipped in each kind of object in turn. A check names the
// object, a restore refuses what is touched, nothing is changed in the store.
func testFlippedBits(t *testing.T, m *machine) {
	m.write("state/a", string(fstest.Noise(1<<10)))
	m.is(0, "created", "init")
	// An agent that is killed leaves a lock.
	agent := m.start("run", "--first-start", "adopt", "--state", m.dir+"/state", "--", "sleep", "600")
	st := m.status("holder, and its job runs", func(s client.Status) bool { return s.Role == "holder" && s.Jobs[0].PID > 0 })
	m.is(0, "committed", "backup")
	fstest.Must(t, unix.Kill(workerOf(t, st), unix.SIGKILL))
	<-agent.ended
	bucket := m.dir + "/bucket/data/"
	for key := range bucketKeys(t, bucket) {
		kind, _, _ := strings.Cut(strings.TrimPrefix(key, "drover/"), "/")
		t.Run(kind, func(t *testing.T) {
			m := *m
			m.t = t
			text, err := os.ReadFile(bucket + key)
			fstest.Must(t, err)
			for _, at := range []int{len(text) / 3, len(text) - 5} {
				bad := []byte(string(text))
				bad[at] ^= 0x10
				fstest.Must(t, os.Chmod(bucket+key, 0o644), os.WriteFile(bucket+key, bad, 0o644))
				before := bucketKeys(t, bucket)
				checked := m.do("verify", "--read-data")
				restored := m.do("restore", "--target", m.dir+"/out")
				fstest.Must(t, os.RemoveAll(m.dir+"/out"))
				t.Logf("byte %d of %s: %d %q %q; %d %q", at, key, checked.code, checked.out, checked.err, restored.code, restored.err)
				for object := range before {
					if _, ok := bucketKeys(t, bucket)[object]; !ok && !strings.HasPrefix(object, "locks/") {
						t.Errorf("%s is gone", object)
					}
				}
				// What is not read by a restore: how it all began, the head of a pack at its end.
				spared := kind == "init" || kind == "data" && at == len(text)-5
				if kind == "keys" && (restored.code == exitNoRepository || strings.Contains(restored.err, "drover init")) {
					t.Errorf("restore: %+v", restored)
				}
				for what, got := range map[string]result{"verify": checked, "restore": restored} {
					if (got.code == 0) != (spared && what == "restore") || strings.Contains(got.err+got.out, "panic") || got.code != 0 && got.err == "" {
						t.Errorf("%s: %+v", what, got)
					}
				}
				if name := filepath.Base(key); !strings.Contains(checked.out+checked.err, name) {
					t.Errorf("verify does not name %s: %+v", key, checked)
				}
				fstest.Must(t, os.WriteFile(bucket+key, text, 0o644))
			}
		})
	}
	m.is(0, "no problem found", "verify", "--read-data")
}

// bucketKeys lists the objects, and their sizes.
func bucketKeys(t *testing.T, bucket string) map[string]int64 {
	t.Helper()
	all := map[string]int64{}
	fstest.Must(t, filepath.WalkDir(bucket, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), ".") {
			return err
		}
		info, err := d.Info()
		if err == nil {
			all[strings.TrimPrefix(path, bucket)] = info.Size()
		}
		return err
	}))
	return all
}

// workerOf is the process of the agent itself: its jobs are its children.
func workerOf(t *testing.T, st client.Status) int {
	t.Helper()
	if len(st.Jobs) == 0 {
		t.Fatalf("no job in %+v", st)
	}
	p, ok := proctree.Lookup(st.Jobs[0].PID)
	if !ok {
		t.Fatalf("no process of the job in %+v", st)
	}
	return p.PPID
}
