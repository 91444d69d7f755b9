package pgbackup

import (
	"context"
	"errors"
	"testing"
	"time"

	"drover/internal/objstore/mem"
	"drover/internal/volume"
)

// A database is restored from a copy of its volume, which has another key, when the volume itself is lost; each
// Copy brings what is new, and nothing that the copy has given up.
func TestCopy(t *testing.T) {
	p, _ := newFaulty(t)
	s, w := p.busy()
	must2(p.backups("one").Backup(t.Context(), s.source()))(t)
	to, _, err := volume.Open(t.Context(), mem.New(), volume.OpenOptions{Name: "data", Password: "another", Create: true, Like: p.volume.Repo})
	must(t, err)
	mirror := volume.NewMirror(p.volume, to, volume.MirrorOptions{Instance: "mirror", TTL: time.Second})
	q := *p
	q.volume = to
	q.archive = q.open("")
	sync := func(backups int) Copied {
		t.Helper()
		_, err := mirror.Sync(t.Context(), nil)
		must(t, err)
		done := must2(Copy(t.Context(), p.volume, to, nil))(t)
		if list := must2(q.backups("x").Statuses(t.Context()))(t); len(list) != backups || !list[backups-1].Whole || list[backups-1].Cover.Gap {
			t.Fatalf("the copy has %d backups, want %d whole ones: %+v", len(list), backups, list)
		}
		return done
	}
	if done := must2(Copy(t.Context(), p.volume, to, nil))(t); done.Backups != 0 || done.Files == 0 {
		t.Errorf("before its snapshot was copied: %+v", done)
	}
	sync(1)
	s.exec("INSERT INTO marks VALUES ('A')")
	second := must2(p.backups("one").Backup(t.Context(), s.source()))(t)
	w.stop()
	s.exec("INSERT INTO marks VALUES ('B')")
	s.flush()
	if done := sync(2); done.Backups != 1 || done.Files == 0 {
		t.Errorf("the second time: %+v", done)
	}
	s.await(func(context.Context) bool { return sync(2) == (Copied{}) }) // when all is archived there is nothing new
	b := q.backups("mirror")
	if d := must2(b.Expire(t.Context(), time.Now().Add(2*time.Hour), Window{Least: 1, Prune: true}))(t); len(d.Drop) != 1 {
		t.Errorf("expired in the copy: %+v", d)
	}
	if done := sync(1); done.Backups != 0 {
		t.Errorf("what the copy gave up was brought again: %+v", done)
	}
	must2(p.backups("one").Backup(t.Context(), s.source()))(t)
	sync(2)
	s.kill()
	r := q.restored("r", Target{})
	if got := r.exec("SELECT name FROM marks ORDER BY name"); got != "A B" {
		t.Errorf("restored from the copy: %q", got)
	}
	r.sound()
	if _, err := q.backups("x").Choose(t.Context(), Target{Backup: second.Name}); !errors.Is(err, ErrNoBackup) {
		t.Errorf("a backup counts under the name of its original: %v", err)
	}
}
