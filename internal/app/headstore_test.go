package app

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"drover/internal/coord/mem"
	"drover/internal/objstore"
	memstore "drover/internal/objstore/mem"
	"drover/internal/objstore/probe"
	"drover/internal/repo/fstest"
	"drover/internal/volume"
)

// careless is a store without conditional writes.
type careless struct{ objstore.Store }

func (careless) PutIf(context.Context, string, []byte, objstore.Condition) (objstore.ETag, error) {
	return "", objstore.ErrUnsupported
}

// What the safety rests on holds of control objects: conditions are honoured, and of 32
// racing writers one wins.
func TestHeadStoreHonoursConditions(t *testing.T) {
	kv := mem.New()
	t.Cleanup(func() { _ = kv.Close() })
	s := &headStore{Store: careless{memstore.New()}, kv: kv, prefix: "drover/shop/volumes"}
	report, err := probe.Check(t.Context(), s, probe.Start)
	if err != nil {
		t.Errorf("%v: %+v", err, report.Steps)
	}
	tag, err := s.PutIf(t.Context(), "data/drover/head", []byte("0"), objstore.IfAbsent())
	fstest.Must(t, err)
	var won atomic.Int32
	var group sync.WaitGroup
	for i := range 32 {
		group.Go(func() {
			_, err := s.PutIf(t.Context(), "data/drover/head", fmt.Append(nil, i), objstore.IfMatch(tag))
			if err == nil {
				won.Add(1)
			} else if !errors.Is(err, objstore.ErrConflict) {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if won.Load() != 1 {
		t.Errorf("%d writers won", won.Load())
	}
	data, info, err := s.Get(t.Context(), "data/drover/head", 0, 1)
	if err != nil || len(data) != 1 || info.ETag == tag {
		t.Errorf("%q, %+v, %v", data, info, err)
	}
	if _, _, err := s.Get(t.Context(), "data/drover/head", 9, -1); !errors.Is(err, objstore.ErrRange) {
		t.Errorf("%v", err)
	}
}

// What is no control object stays in the store, and is created only once.
func TestHeadStoreLeavesTheRestToTheStore(t *testing.T) {
	kv, inner := mem.New(), memstore.New()
	t.Cleanup(func() { _ = kv.Close() })
	s := &headStore{Store: careless{inner}, kv: kv, prefix: "p"}
	ctx := t.Context()
	_, err := s.PutIf(ctx, "data/config", []byte("c"), objstore.IfAbsent())
	fstest.Must(t, err)
	if _, err := s.PutIf(ctx, "data/config", []byte("d"), objstore.IfAbsent()); !errors.Is(err, objstore.ErrConflict) {
		t.Errorf("%v", err)
	}
	if _, err := s.PutIf(ctx, "data/config", []byte("d"), objstore.IfMatch("x")); !errors.Is(err, objstore.ErrUnsupported) {
		t.Errorf("%v", err)
	}
	_, err = s.PutIf(ctx, "data/drover/head", []byte("h"), objstore.IfAbsent())
	fstest.Must(t, err)
	var keys []string
	fstest.Must(t, s.List(ctx, "data/", func(i objstore.Info) error { keys = append(keys, i.Key); return nil }))
	if len(keys) != 2 {
		t.Errorf("%v", keys)
	}
	if pair, err := kv.Get(ctx, "p/data/drover/head"); err != nil || string(pair.Value) != "h" {
		t.Errorf("%v, %v", pair, err)
	}
	if _, err := inner.Head(ctx, "data/drover/head"); !errors.Is(err, objstore.ErrNotFound) {
		t.Errorf("the head is in the store, too: %v", err)
	}
}

// An agent on a store without conditions takes a volume over from another, by the key.
func TestVolumeWithItsHeadInTheCoordinator(t *testing.T) {
	server := mem.NewServer()
	inner := careless{memstore.New()}
	open := func(t *testing.T) objstore.Store {
		kv := server.Open()
		t.Cleanup(func() { _ = kv.Close() })
		return &headStore{Store: inner, kv: kv, prefix: "p"}
	}
	opt := volume.OpenOptions{Name: "data", Password: "p", Create: true}
	_, created, err := volume.Open(t.Context(), objstore.WithPrefix(open(t), "data"), opt)
	if err != nil || !created {
		t.Fatalf("created %v, %v", created, err)
	}
	v, created, err := volume.Open(t.Context(), objstore.WithPrefix(open(t), "data"), opt)
	if err != nil || created {
		t.Fatalf("created %v, %v", created, err)
	}
	if _, err := v.ReadHead(t.Context()); err != nil {
		t.Fatal(err)
	}
	server.SetAvailable(false)
	if _, err := v.ReadHead(t.Context()); !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("%v", err)
	}
}
