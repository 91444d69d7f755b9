package restore

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"drover/internal/objstore"
	"drover/internal/objstore/mem"
	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/repo/fstest"

	"golang.org/x/sys/unix"
)

// unprivilegedEnv makes the test binary restore the repository on its standard
// input into the directory that it names.
const unprivilegedEnv = "DROVER_TEST_UNPRIVILEGED"

type parcel struct {
	Snapshot *format.Snapshot
	Objects  map[string][]byte
}

func unprivilegedRestore(dir string) int {
	res, err := func() (*Result, error) {
		data, err := io.ReadAll(os.Stdin)
		if err != nil {
			return nil, err
		}
		var p parcel
		if err := json.Unmarshal(data, &p); err != nil {
			return nil, err
		}
		ctx, st := context.Background(), mem.New()
		for key, data := range p.Objects {
			if err := st.Put(ctx, key, data); err != nil {
				return nil, err
			}
		}
		r, err := repo.Open(ctx, st, "secret", repo.Options{})
		if err != nil {
			return nil, err
		}
		if err := r.LoadIndex(ctx); err != nil {
			return nil, err
		}
		strict := Options{Target: dir + "/strict", StrictMetadata: true}
		if _, err := Run(ctx, r, p.Snapshot, strict); err == nil || !strings.Contains(err.Error(), "set owner") {
			return nil, fmt.Errorf("a strict restore ends with: %w", err)
		}
		if _, err := Run(ctx, r, p.Snapshot, Options{Target: dir + "/again", Verify: true}); err != nil {
			return nil, err
		}
		return Run(ctx, r, p.Snapshot, Options{Target: dir + "/again", Delete: true, Verify: true})
	}()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Printf("owner %v xattr %v node %v\n", res.SkippedOwner > 0, res.SkippedXattr > 0, res.SkippedNode > 0)
	return 0
}

// TestUnprivileged restores a tree full of what only root may make as somebody else.
func TestUnprivileged(t *testing.T) {
	src := filepath.Join(t.TempDir(), "vol")
	fstest.RichTree(t, src)
	r, st := newRepo(t)
	p := parcel{Snapshot: backUp(t, r, src), Objects: make(map[string][]byte)}
	fstest.Must(t, st.List(t.Context(), "", func(i objstore.Info) error {
		data, _, err := st.Get(t.Context(), i.Key, 0, -1)
		p.Objects[i.Key] = data
		return err
	}))
	input, err := json.Marshal(p)
	fstest.Must(t, err)
	// Neither the test's directory nor its binary is open to others.
	dir, err := os.MkdirTemp("", "restore") //nolint:usetesting // see above
	fstest.Must(t, err)
	t.Cleanup(func() { fstest.Must(t, os.RemoveAll(dir)) })
	self, err := os.Executable()
	fstest.Must(t, err)
	binary, err := os.ReadFile(self)
	fstest.Must(t, err, os.WriteFile(dir+"/test", binary, 0o755), os.Chmod(dir+"/test", 0o755), os.Chmod(dir, 0o777))
	cmd := exec.CommandContext(t.Context(), dir+"/test")
	cmd.Env = append(os.Environ(), unprivilegedEnv+"="+dir)
	cmd.Dir = "/"
	cmd.Stdin = strings.NewReader(string(input))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "owner true xattr true node true" {
		t.Fatalf("%s%v", out, err)
	}
	var info unix.Stat_t
	fstest.Must(t, unix.Stat(dir+"/again"+src+"/setuid", &info))
	if info.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 || info.Uid != 65534 {
		t.Errorf("mode %o for owner %d: a setuid file of the wrong owner", info.Mode, info.Uid)
	}
	want, err := os.ReadFile(src + "/big")
	fstest.Must(t, err)
	if got, err := os.ReadFile(dir + "/again" + src + "/big"); err != nil || string(got) != string(want) {
		t.Errorf("content of %d bytes, %v", len(got), err)
	}
}
