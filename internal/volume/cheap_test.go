package volume

import (
	"encoding/json"
	"os"
	"sync"
	"testing"

	"golang.org/x/crypto/scrypt"

	"drover/internal/objstore"
	"drover/internal/objstore/mem"
	"drover/internal/repo"
	"drover/internal/repo/crypto"
	"drover/internal/repo/format"
)

// cheapBirth is the content of a drover/init whose key costs next to nothing to
// open: what a password costs is crypto's matter, and here it would be paid
// thousands of times.
var cheapBirth = sync.OnceValues(func() ([]byte, error) {
	bundle, err := repo.NewBundle(password)
	if err != nil {
		return nil, err
	}
	file, err := crypto.ParseKeyFile(bundle.Key)
	if err != nil {
		return nil, err
	}
	dear, err := derived(file)
	if err != nil {
		return nil, err
	}
	plain, err := dear.Open(file.Data)
	if err != nil {
		return nil, err
	}
	file.N = 2
	cheap, err := derived(file)
	if err != nil {
		return nil, err
	}
	file.Data = cheap.Seal(nil, plain)
	if bundle.Key, err = json.Marshal(file); err != nil {
		return nil, err
	}
	bundle.KeyID = format.Hash(bundle.Key)
	return json.Marshal(birth{Version: birthVersion, Volume: "data", Bundle: bundle})
})

func derived(f *crypto.KeyFile) (*crypto.Key, error) {
	b, err := scrypt.Key([]byte(password), f.Salt, f.N, f.R, f.P, 64)
	if err != nil {
		return nil, err
	}
	var raw crypto.RawKey
	copy(raw.Encrypt[:], b[:32])
	copy(raw.MACK[:], b[32:48])
	copy(raw.MACR[:], b[48:])
	return crypto.NewKey(raw), nil
}

// newStore is a store in which somebody has just begun to initialise the volume.
func newStore(t testing.TB) *mem.Store {
	t.Helper()
	st := mem.New()
	beginVolume(t, st)
	return st
}

func beginVolume(t testing.TB, st objstore.Store) {
	t.Helper()
	data, err := cheapBirth()
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Put(t.Context(), initKey, data); err != nil {
		t.Fatal(err)
	}
}

func openVolume(t testing.TB, st objstore.Store) *Volume {
	t.Helper()
	v, _, err := Open(t.Context(), st, OpenOptions{Name: "data", Password: password})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// fastDir is a directory in memory, where there is one: what is tested waits for
// many syncs, and on a disk for those of everybody else too.
func fastDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "drover-volume-") //nolint:usetesting // TempDir is not there
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
