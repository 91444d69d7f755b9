package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"drover/internal/objstore"
)

// Latency is how long an operation on a small object took.
type Latency struct {
	Op    string        `json:"op"`
	Times int           `json:"times"`
	P50   time.Duration `json:"p50_ns"`
	P99   time.Duration `json:"p99_ns"`
}

const (
	racers  = 32
	rounds  = 3
	samples = 20
)

func (p *probe) fullSteps() []step {
	return []step{
		{"what is put is got", p.roundTrip},
		{"ranges are honoured", p.ranges},
		{"a put replaces at once", p.overwrite},
		{"the list is complete", p.list},
		{"a delete removes, and can be repeated", p.remove},
		{"conditional puts replace", p.swap},
		{fmt.Sprintf("of %d writers that create, one wins", racers), p.raceToCreate},
		{fmt.Sprintf("of %d writers that replace, one wins", racers), p.raceToSwap},
		{"times", p.times},
	}
}

func wrong(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errWrong, fmt.Sprintf(format, args...))
}

// pattern is n bytes that differ from place to place.
func pattern(n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i * i >> 3)
	}
	return data
}

func (p *probe) expect(ctx context.Context, key string, want []byte) error {
	got, info, err := p.store.Get(ctx, key, 0, -1)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) || info.Size != int64(len(want)) {
		return wrong("put %d bytes, got %d that differ", len(want), len(got))
	}
	return nil
}

// gone wants the object not to be there.
func (p *probe) gone(ctx context.Context, key string) error {
	_, err := p.store.Head(ctx, key)
	if err == nil {
		return wrong("an object is there that should not be")
	}
	if errors.Is(err, objstore.ErrNotFound) {
		return nil
	}
	return err
}

func (p *probe) roundTrip(ctx context.Context) error {
	for _, size := range []int{0, 1, 1 << 20} {
		key, data := p.key(fmt.Sprintf("size/%d", size)), pattern(size)
		if err := p.store.Put(ctx, key, data); err != nil {
			return err
		}
		if err := p.expect(ctx, key, data); err != nil {
			return err
		}
	}
	return p.gone(ctx, p.dir+"never-put")
}

func (p *probe) ranges(ctx context.Context) error {
	key, data := p.key("ranges"), pattern(100_000)
	if err := p.store.Put(ctx, key, data); err != nil {
		return err
	}
	for _, r := range [][2]int{{0, 10}, {1000, 5000}, {99_990, 100_000}} {
		got, _, err := p.store.Get(ctx, key, int64(r[0]), int64(r[1]-r[0]))
		if err != nil {
			return err
		}
		if !bytes.Equal(got, data[r[0]:r[1]]) {
			return wrong("asked for the bytes %d to %d, got %d others", r[0], r[1], len(got))
		}
	}
	return nil
}

func (p *probe) overwrite(ctx context.Context) error {
	key := p.key("overwrite")
	for i := range 5 {
		data := fmt.Appendf(nil, "version %d", i)
		if err := p.store.Put(ctx, key, data); err != nil {
			return err
		}
		if err := p.expect(ctx, key, data); err != nil {
			return fmt.Errorf("right after put %d: %w", i, err)
		}
	}
	return nil
}

func (p *probe) list(ctx context.Context) error {
	var want, got []string
	for i := range 5 {
		want = append(want, p.key(fmt.Sprintf("list/%d", i)))
		if err := p.store.Put(ctx, want[i], nil); err != nil {
			return err
		}
	}
	if err := p.store.Delete(ctx, want[4]); err != nil {
		return err
	}
	want = want[:4]
	err := p.store.List(ctx, p.dir+"list/", func(i objstore.Info) error {
		got = append(got, i.Key)
		return nil
	})
	if err != nil {
		return err
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		return wrong("put 5 objects, deleted one, and %d are listed", len(got))
	}
	return nil
}

func (p *probe) remove(ctx context.Context) error {
	key := p.key("remove")
	if err := p.store.Put(ctx, key, []byte("x")); err != nil {
		return err
	}
	for range 2 {
		if err := p.store.Delete(ctx, key); err != nil {
			return err
		}
	}
	return p.gone(ctx, key)
}

func (p *probe) swap(ctx context.Context) error {
	key := p.key("swap")
	one, err := p.create(ctx, key, []byte("one"))
	if err != nil {
		return err
	}
	two, err := p.store.PutIf(ctx, key, []byte("two"), objstore.IfMatch(one))
	if errors.Is(err, objstore.ErrConflict) {
		return wrong("it refused the ETag that it had given: %v", err)
	}
	if err != nil {
		return err
	}
	info, err := p.store.Head(ctx, key)
	if err != nil {
		return err
	}
	if info.ETag != two || two == one {
		return wrong("the ETags are %q before, %q returned, %q on asking", one, two, info.ETag)
	}
	if err := p.refused(ctx, key, objstore.IfMatch(one), "replaced a newer version than the one named"); err != nil {
		return err
	}
	if err := p.expect(ctx, key, []byte("two")); err != nil {
		return err
	}
	if err := p.store.Delete(ctx, key); err != nil {
		return err
	}
	if err := p.refused(ctx, key, objstore.IfMatch(two), "replaced an object that had been deleted"); err != nil {
		return err
	}
	return p.gone(ctx, key)
}

func (p *probe) raceToCreate(ctx context.Context) error {
	for round := range rounds {
		if _, err := p.race(ctx, p.key(fmt.Sprintf("create/%d", round)), objstore.IfAbsent()); err != nil {
			return err
		}
	}
	return nil
}

func (p *probe) raceToSwap(ctx context.Context) error {
	key := p.key("race")
	tag, err := p.create(ctx, key, []byte("start"))
	for range rounds {
		if err != nil {
			return err
		}
		tag, err = p.race(ctx, key, objstore.IfMatch(tag))
	}
	return err
}

// race has all racers write under one condition. What is stored must be the
// winner's. No bytes are written twice, because the ETag may be a hash of them.
func (p *probe) race(ctx context.Context, key string, cond objstore.Condition) (objstore.ETag, error) {
	var (
		group sync.WaitGroup
		start = make(chan struct{})
		tags  [racers]objstore.ETag
		errs  [racers]error
	)
	bytesOf := func(i int) []byte { return fmt.Appendf(nil, "racer %d after %s", i, cond.ETag) }
	for i := range racers {
		group.Go(func() {
			<-start
			tags[i], errs[i] = p.store.PutIf(ctx, key, bytesOf(i), cond)
		})
	}
	close(start)
	group.Wait()
	winner := -1
	for i, err := range errs {
		switch {
		case err == nil && winner >= 0:
			return "", ignored(fmt.Sprintf("writers %d and %d both won a race", winner, i))
		case err == nil:
			winner = i
		case !errors.Is(err, objstore.ErrConflict):
			return "", err
		}
	}
	if winner < 0 {
		return "", wrong("all of %d writers were refused", racers)
	}
	return tags[winner], p.expect(ctx, key, bytesOf(winner))
}

// times takes the times of single calls on an object of 1 KiB.
func (p *probe) times(ctx context.Context) error {
	key, head, data := p.key("times"), p.key("times-head"), pattern(1<<10)
	tag, err := p.create(ctx, head, data)
	if err != nil {
		return err
	}
	n := 0
	for _, op := range []struct {
		name string
		call func() error
	}{
		{"put", func() error { return p.store.Put(ctx, key, data) }},
		{"get", func() error { _, _, err := p.store.Get(ctx, key, 0, -1); return err }},
		{"head", func() error { _, err := p.store.Head(ctx, key); return err }},
		{"list", func() error { return p.store.List(ctx, key, func(objstore.Info) error { return nil }) }},
		{"conditional put", func() (err error) {
			n++
			tag, err = p.store.PutIf(ctx, head, fmt.Append(nil, n), objstore.IfMatch(tag))
			return err
		}},
		{"delete", func() error { return p.store.Delete(ctx, key) }},
	} {
		taken := make([]time.Duration, samples)
		for i := range taken {
			began := time.Now()
			if err := op.call(); err != nil {
				return fmt.Errorf("%s: %w", op.name, err)
			}
			taken[i] = time.Since(began)
		}
		slices.Sort(taken)
		p.report.Latency = append(p.report.Latency, Latency{op.name, samples, taken[samples/2], taken[samples-1]})
	}
	return nil
}
