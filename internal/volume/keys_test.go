package volume

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"drover/internal/objstore"
	"drover/internal/objstore/faulty"
	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/repo/fstest"
)

const newPassword = "third horse"

func openWith(t *testing.T, st objstore.Store, p string) (*Volume, error) {
	t.Helper()
	v, _, err := Open(t.Context(), st, OpenOptions{Name: "data", Password: p})
	return v, err
}

// opens reports whether the password opens the volume; any other error fails the test.
func opens(t *testing.T, st objstore.Store, p string) bool {
	t.Helper()
	_, err := openWith(t, st, p)
	if err != nil && !errors.Is(err, repo.ErrWrongPassword) {
		t.Fatal(err)
	}
	return err == nil
}

// wantNewKeyOnly fails the test unless the old password is of no use any more, neither
// for the volume nor for what drover/init and drover/clone hold.
func wantNewKeyOnly(t *testing.T, st objstore.Store, old format.ID) {
	t.Helper()
	if opens(t, st, password) || !opens(t, st, newPassword) {
		t.Errorf("old opens: %v; new opens: %v", opens(t, st, password), opens(t, st, newPassword))
	}
	if got := keys(t, st, "keys/"); len(got) != 1 {
		t.Errorf("keys: %v", got)
	}
	b, err := readBirth(t.Context(), st, "data")
	fstest.Must(t, err)
	if b.Bundle.KeyID == old {
		t.Error("drover/init holds the removed key")
	}
	// A head that was lost, and nothing committed: what drover/init makes is of the new key.
	fstest.Must(t, st.Delete(t.Context(), headKey))
	for _, key := range keys(t, st, "keys/") {
		fstest.Must(t, st.Delete(t.Context(), key))
	}
	if opens(t, st, password) || !opens(t, st, newPassword) {
		t.Error("the removed key came back from drover/init")
	}
	if got := keys(t, st, "drover/"); len(got) != 2 {
		t.Errorf("control objects: %v", got)
	}
}

// A password is replaced while an agent runs: that goes on, a new life of it needs the new one.
func TestReplaceKey(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	a := newServer(t, st, "a", fastDir(t)+"/state").start().waitStarted()
	a.write("f", "1")
	v := openVolume(t, st)
	old := v.Repo.CurrentKey()
	fstest.Must(t, st.Put(t.Context(), cloneKey, []byte("left by a clone")))
	id, err := v.ReplaceKey(t.Context(), newPassword)
	if err != nil || id == old {
		t.Fatal(id, err)
	}
	a.backup()
	a.write("f", "2")
	a.backup()
	a.crash()
	now, err := openWith(t, st, newPassword)
	fstest.Must(t, err)
	if got := inSnapshot(t, now, line(t, now)[0], a.state+"/f"); got == "" {
		t.Error("nothing is in the snapshot")
	}
	list, err := now.Repo.ListKeys(t.Context())
	if err != nil || len(list) != 1 || !list[0].Current || list[0].ID != id {
		t.Errorf("%+v, %v", list, err)
	}
	for key := range contents(t, st) { // no snapshots: a volume whose initialisation could be finished anew
		if strings.HasPrefix(key, "snapshots/") {
			fstest.Must(t, st.Delete(t.Context(), key))
		}
	}
	wantNewKeyOnly(t, st, old)
}

// Neither the key in use nor, by two at once, the last one can be removed.
func TestAKeyIsLeft(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	first := openVolume(t, st)
	mine := first.Repo.CurrentKey()
	if err := first.RemoveKey(t.Context(), mine); !errors.Is(err, ErrKeyInUse) {
		t.Errorf("the key in use: %v", err)
	}
	theirs, err := first.AddKey(t.Context(), newPassword)
	fstest.Must(t, err)
	again, err := first.AddKey(t.Context(), newPassword)
	if err != nil || again != theirs {
		t.Errorf("added again: %v, %v", again, err)
	}
	second, err := openWith(t, st, newPassword)
	fstest.Must(t, err)
	// The first one sleeps before it deletes; the second one would remove the first's.
	var asked error
	slow := faulty.New(st, func(c faulty.Call) faulty.Fault {
		if c.Op == faulty.Delete && strings.HasPrefix(c.Key, "keys/") && asked == nil {
			asked = second.RemoveKey(t.Context(), mine)
		}
		return faulty.Fault{}
	})
	v, err := openWith(t, slow, password)
	fstest.Must(t, err)
	fstest.Must(t, v.RemoveKey(t.Context(), theirs))
	if !errors.Is(asked, ErrKeyInUse) || !opens(t, st, password) || opens(t, st, newPassword) {
		t.Errorf("%v", asked)
	}
	if _, err := second.ReplaceKey(t.Context(), "yet another"); !errors.Is(err, ErrKeyInUse) {
		t.Errorf("a removed key made a new one: %v", err)
	}
	if len(keys(t, st, "keys/")) != 1 {
		t.Errorf("keys %v", keys(t, st, "keys/"))
	}
}

// Whoever slept in the middle of making the volume makes no removed key again.
func TestRemovedKeyStaysRemoved(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	var old format.ID
	done := false
	sleepy := faulty.New(st, func(c faulty.Call) faulty.Fault {
		if c.Op == faulty.PutIf && strings.HasPrefix(c.Key, "keys/") && !done {
			done = true
			v := openVolume(t, st)
			old = v.Repo.CurrentKey()
			if _, err := v.ReplaceKey(t.Context(), newPassword); err != nil {
				t.Error(err)
			}
		}
		return faulty.Fault{}
	})
	if _, err := openWith(t, sleepy, password); !done || !errors.Is(err, repo.ErrWrongPassword) {
		t.Errorf("%v, %v", done, err)
	}
	wantNewKeyOnly(t, st, old)
}

// A change of the password dies at each of its calls in turn: a password opens, and the
// same again, with whichever opens, completes it.
func TestReplaceKeyThatDies(t *testing.T) {
	t.Parallel()
	clean := faulty.New(newStore(t), nil)
	_, err := openVolume(t, clean).ReplaceKey(t.Context(), newPassword)
	fstest.Must(t, err)
	for n := 1; n <= len(clean.Calls()); n++ {
		for after := range 2 {
			t.Run(fmt.Sprintf("%d-%d", n, after), func(t *testing.T) {
				t.Parallel()
				st := newStore(t)
				old := openVolume(t, st).Repo.CurrentKey()
				dieAt(t, st, n, after == 1, func(ctx context.Context, v *Volume) { _, _ = v.ReplaceKey(ctx, newPassword) })
				v, err := openWith(t, st, password)
				if errors.Is(err, repo.ErrWrongPassword) {
					v, err = openWith(t, st, newPassword)
				}
				fstest.Must(t, err)
				_, err = v.ReplaceKey(t.Context(), newPassword)
				fstest.Must(t, err)
				wantNewKeyOnly(t, st, old)
			})
		}
	}
}
