package object

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"drover/internal/coord"
)

// holders is a lease, as stored.
type holders struct {
	Name  string   `json:"name"` // the object's is an encoding of it
	Slots int      `json:"slots"`
	Held  []holder `json:"held"`
}

// holder is who holds a slot. Whoever sees its beat unchanged for a TTL, by his own clock,
// may take the slot away.
type holder struct {
	Claim  string `json:"claim"` // random: two of one name are two
	Holder string `json:"holder"`
	Beat   uint64 `json:"beat"`
	TTL    int64  `json:"ttl_ms"`
}

func (h holders) find(claim string) int {
	return slices.IndexFunc(h.Held, func(o holder) bool { return o.Claim == claim })
}

// margin is the part of a TTL that a silent holder is given on top: no two clocks run
// equally fast, and no timer rings at its moment.
const margin = 20

var (
	errFull = errors.New("all slots are held")
	errLost = errors.New("the lease is another one's")
)

// lease is a held slot.
type lease struct {
	c     *Client
	cell  *cell[holders]
	name  string
	claim string
	ttl   time.Duration

	ctx   context.Context // of renewals
	stop  context.CancelFunc
	done  chan struct{}
	once  sync.Once
	timer *time.Timer // closes done when no renewal has succeeded in time, whatever hangs
}

// silence is what a contender has seen of holders: since when none of them has stirred.
type silence map[string]seen

type seen struct {
	beat  uint64
	since time.Time
}

// look notes what was read by now, and returns the beats of those who were silent for their TTL.
func (s silence) look(h holders, now time.Time) map[string]uint64 {
	silent := map[string]uint64{}
	for _, o := range h.Held {
		last, ok := s[o.Claim]
		if !ok || last.beat != o.Beat {
			s[o.Claim] = seen{o.Beat, now}
		} else if ttl := time.Duration(o.TTL) * time.Millisecond; now.Sub(last.since) >= ttl+ttl/margin {
			silent[o.Claim] = o.Beat
		}
	}
	return silent
}

// Acquire implements coord.Leases.
func (c *Client) Acquire(ctx context.Context, name string, opt coord.LeaseOptions) (coord.Lease, error) {
	if err := coord.CheckKey(name); err != nil {
		return nil, fmt.Errorf("acquire: %w", err)
	}
	if opt.TTL <= 0 {
		return nil, fmt.Errorf("acquire %s: TTL %v is not positive", name, opt.TTL)
	}
	opt.Slots = max(1, opt.Slots)
	a := &attempt{c: c, name: name, opt: opt, claim: newID(), cell: newCell[holders](c, c.opt.Prefix+"/leases/"+element(name)), silence: silence{}}
	wait := max(min(opt.TTL/6, c.opt.Interval), 10*time.Millisecond)
	again := coord.Backoff{Least: wait, Most: max(wait, c.opt.Interval)}
	for {
		sent := time.Now()
		err := ctx.Err()
		if err == nil {
			err = a.try(ctx)
		}
		switch {
		case err == nil && time.Since(sent) < opt.TTL:
			return a.lease(sent), nil
		case err == nil: // the answers took so long that it may be lost again
			continue
		case ctx.Err() != nil:
			a.abandon(ctx)
			return nil, fmt.Errorf("acquire %s: %w", name, ctx.Err())
		case errors.Is(err, errFull):
			again.Reset()
		case !errors.Is(err, coord.ErrUnavailable):
			return nil, fmt.Errorf("acquire %s: %w", name, err)
		}
		coord.Wait(ctx, again.Next())
	}
}

// attempt is the wait for a slot.
type attempt struct {
	c       *Client
	name    string
	opt     coord.LeaseOptions
	claim   string
	cell    *cell[holders]
	silence silence
	wrote   bool   // a claim of ours may be there, or may still come
	beat    uint64 // of the last write: one that landed late may have been seen to be silent, and must not come again
}

// try looks at the lease, and takes a slot if one is free.
func (a *attempt) try(ctx context.Context) error {
	now, err := a.cell.read(ctx)
	if err != nil {
		return err
	}
	silent := a.silence.look(now.Value, time.Now())
	// Another one's write since then is met by the compare-and-swap: then the change is made
	// anew, and takes from nobody who stirred.
	take := func(h holders, _ uint64) (holders, error) {
		held := slices.DeleteFunc(slices.Clone(h.Held), func(o holder) bool {
			beat, ok := silent[o.Claim]
			return ok && beat == o.Beat || o.Claim == a.claim // ours came late: it is written anew
		})
		switch {
		case len(held) > 0 && h.Slots != a.opt.Slots:
			return h, fmt.Errorf("it is held with %d slots, not %d: %w", h.Slots, a.opt.Slots, coord.ErrConflict)
		case len(held) >= a.opt.Slots:
			return h, errFull
		}
		a.beat++
		mine := holder{Claim: a.claim, Holder: a.opt.Holder, Beat: a.beat, TTL: max(1, a.opt.TTL.Milliseconds())}
		return holders{Name: a.name, Slots: a.opt.Slots, Held: append(held, mine)}, nil
	}
	if _, err := take(now.Value, 0); err != nil {
		return err
	}
	a.wrote = true
	_, err = a.cell.update(ctx, newID(), take)
	return err
}

// abandon takes a claim away that may have landed while nobody waits for it any more.
func (a *attempt) abandon(ctx context.Context) {
	if a.wrote {
		ctx, cancel := a.c.call(context.WithoutCancel(ctx))
		defer cancel()
		_ = drop(ctx, a.cell, a.claim, true) // if it cannot be, it falls free after the TTL
	}
}

// lease begins to renew what was taken by a write that was begun at sent.
func (a *attempt) lease(sent time.Time) *lease {
	l := &lease{c: a.c, cell: a.cell, name: a.name, claim: a.claim, ttl: a.opt.TTL, done: make(chan struct{})}
	l.ctx, l.stop = context.WithCancel(a.c.ctx)
	l.timer = time.AfterFunc(time.Until(sent.Add(l.ttl)), l.lose)
	a.c.leases.Go(l.keep)
	return l
}

func (l *lease) lose() {
	l.once.Do(func() { close(l.done) })
	l.stop()
}

// keep renews the lease each third of its TTL, and tries sooner again if that failed.
func (l *lease) keep() {
	defer l.timer.Stop()
	defer l.lose()
	wait := l.ttl / 3
	for coord.Wait(l.ctx, wait) {
		sent := time.Now()
		ctx, cancel := context.WithTimeout(l.ctx, l.ttl/3)
		_, err := l.cell.update(ctx, newID(), func(h holders, _ uint64) (holders, error) {
			i := h.find(l.claim)
			if i < 0 {
				return h, errLost
			}
			h.Held = slices.Clone(h.Held)
			h.Held[i].Beat++
			return h, nil
		})
		cancel()
		if errors.Is(err, errLost) || l.ctx.Err() != nil {
			return
		}
		wait = l.ttl / 12
		if err == nil {
			if !l.timer.Reset(time.Until(sent.Add(l.ttl))) {
				return // it has rung meanwhile
			}
			wait = max(0, time.Until(sent.Add(l.ttl/3)))
		}
	}
}

// Done implements coord.Lease.
func (l *lease) Done() <-chan struct{} { return l.done }

// Release implements coord.Lease.
func (l *lease) Release(ctx context.Context) error {
	l.lose()
	if err := drop(ctx, l.cell, l.claim, false); err != nil {
		return fmt.Errorf("release %s: %w", l.name, err)
	}
	return nil
}

// drop takes a claim out of a lease. It is no error if it is not there; if it may still
// come, something is written all the same, so that it cannot. To do it again does no harm, so it
// tries a few times.
func drop(ctx context.Context, c *cell[holders], claim string, mayCome bool) (err error) {
	again := coord.Backoff{Least: 100 * time.Millisecond, Most: time.Second}
	for range 3 {
		_, err = c.update(ctx, newID(), func(h holders, _ uint64) (holders, error) {
			i := h.find(claim)
			if i < 0 && mayCome {
				return h, nil
			}
			if i < 0 {
				return h, errSame
			}
			h.Held = slices.Delete(slices.Clone(h.Held), i, i+1)
			return h, nil
		})
		if err == nil || errors.Is(err, errSame) {
			return nil
		}
		if !errors.Is(err, coord.ErrUnavailable) || !coord.Wait(ctx, again.Next()) {
			break
		}
	}
	return err
}

// Holders implements coord.Leases.
func (c *Client) Holders(ctx context.Context, name string) ([]string, error) {
	if err := coord.CheckKey(name); err != nil {
		return nil, fmt.Errorf("list holders: %w", err)
	}
	s, err := newCell[holders](c, c.opt.Prefix+"/leases/"+element(name)).read(ctx)
	if err != nil {
		return nil, fmt.Errorf("list holders of %s: %w", name, err)
	}
	var names []string
	for _, h := range s.Value.Held {
		names = append(names, h.Holder)
	}
	slices.SortFunc(names, cmp.Compare[string])
	return names, nil
}
