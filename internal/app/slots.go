package app

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"drover/internal/objstore"
	"drover/internal/objstore/probe"
	"drover/internal/repo"
	"drover/internal/volume"
	"drover/internal/volume/protocol"
	"drover/internal/volume/slots"
)

// spare is an agent that has no slot, or tries one. It holds at most one: the volumes
// of the others it only reads.
type spare struct {
	*agent
	st      objstore.Store
	chooser *slots.Chooser

	mu   sync.Mutex
	open map[int]*volume.Volume // whose heads are read
}

// runSlots has one tenure after another, each of one slot, until one of them ends the
// instance: by a main job that ends, a stop, or a fault.
func (a *agent) runSlots(ctx context.Context, st objstore.Store) error {
	s := &spare{agent: a, st: st, open: map[int]*volume.Volume{}}
	if err := s.probe(ctx); err != nil || a.stopping.Err() != nil {
		return err
	}
	own, err := s.settleRetired(ctx)
	if err != nil || a.stopping.Err() != nil {
		return err
	}
	s.chooser = slots.New(slots.Config{Slots: a.cfg.Slots, TTL: a.cfg.Lease.TTL.Std(), Spread: s.spread()})
	in := slots.Input(slots.Boot{Own: own})
	for {
		try, err := s.choose(ctx, in)
		if try == nil || err != nil {
			return err
		}
		err = s.try(ctx, *try, false)
		unfit := errors.Is(err, protocol.ErrUnfit)
		if !unfit && !errors.Is(err, protocol.ErrHeld) || a.stopping.Err() != nil || ctx.Err() != nil {
			return err
		}
		a.log.Info("left the slot", "slot", try.Slot, "reason", err)
		in = slots.Ended{Slot: try.Slot, Unfit: unfit}
	}
}

func (s *spare) probe(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()
	err := untilAvailable(ctx, s.log, "open store", func() error {
		_, err := probe.Check(ctx, s.st, probe.Start)
		return err
	})
	if s.stopping.Err() != nil {
		return nil
	}
	return err
}

// spread is another number in each instance, and the same in each of its lives.
func (s *spare) spread() uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s.cfg.ID)) // never fails
	return h.Sum64()
}

// leftover says which slot the files on this disk are of.
func (s *spare) leftover() (left volume.Leftover, slot int, err error) {
	entries, err := os.ReadDir(s.cfg.DataDir)
	if err != nil {
		return left, slots.None, fmt.Errorf("look for records: %w", err)
	}
	var names []string
	for _, e := range entries {
		if number, ok := strings.CutPrefix(e.Name(), s.cfg.Volume+"-"); ok {
			if _, err := strconv.ParseUint(number, 10, 16); err == nil {
				names = append(names, e.Name())
			}
		}
	}
	left, err = volume.FindLeftover(s.cfg.DataDir, names, s.cfg.Paths())
	if err != nil || left.Volume == "" {
		return left, slots.None, err
	}
	slot, err = strconv.Atoi(strings.TrimPrefix(left.Volume, s.cfg.Volume+"-"))
	return left, slot, err
}

// settleRetired keeps, as diverged, what a slot left here that there is no more, and
// returns the slot that must be tried first: the one whose files lie here.
func (s *spare) settleRetired(ctx context.Context) (own int, err error) {
	left, slot, err := s.leftover()
	if err != nil || !left.Unsettled {
		return slots.None, err
	}
	if slot < s.cfg.Slots {
		return slot, nil
	}
	s.log.Warn("the files here are of a slot that there is no more: what is not in its history is kept as a diverged snapshot of it",
		"slot", slot, "slots", s.cfg.Slots)
	err = s.try(ctx, slots.Try{Slot: slot}, true)
	if errors.Is(err, protocol.ErrHeld) {
		err = nil
	}
	return slots.None, err
}

// try runs the protocol on a slot until it is left.
func (s *spare) try(ctx context.Context, try slots.Try, retired bool) error {
	defer s.forget(try.Slot)
	cfg := s.cfg.Slot(try.Slot)
	left, _, err := s.leftover()
	if err != nil {
		return err
	}
	data, err := volume.OpenDataDir(cfg.DataDir, cfg.Volume)
	if err != nil {
		return err
	}
	defer func() { _ = data.Close() }()
	if err := data.Inherit(cfg.Volume, left); err != nil {
		return err
	}
	v := s.opened(try.Slot)
	if v == nil {
		if v, err = s.openVolume(ctx, s.st, cfg); v == nil || err != nil {
			return err
		}
	}
	t, err := s.newTenure(v, data, tenureOptions{cfg: cfg, slot: &try.Slot, watch: try.Watch, retired: retired})
	if err != nil {
		return err
	}
	return s.live(ctx, t)
}

// choose waits until there is a slot to try; nil: the agent is to stop.
func (s *spare) choose(ctx context.Context, in slots.Input) (*slots.Try, error) {
	ctx, cancel := context.WithCancel(ctx)
	answers := make(chan slots.HeadRead)
	var reads sync.WaitGroup
	defer reads.Wait()
	defer cancel()
	for {
		for _, a := range s.chooser.Step(volume.Now(), in) {
			switch a := a.(type) {
			case slots.Try:
				return &a, nil
			case slots.ReadHead:
				reads.Go(func() {
					select {
					case answers <- s.readHead(ctx, a.Slot):
					case <-ctx.Done():
					}
				})
			}
		}
		s.tell()
		var timer <-chan time.Time
		if at, ok := s.chooser.Deadline(); ok {
			timer = time.After(max(0, at-volume.Now()))
		}
		select {
		case <-ctx.Done():
			return nil, nil // as a crash: nothing is held
		case <-s.stopping.Done():
			return nil, nil
		case in = <-answers:
		case <-timer:
			in = slots.Tick{}
		}
	}
}

// tell says what this instance waits for.
func (s *spare) tell() {
	st := s.chooser.Status()
	waits := fmt.Sprintf("waits for a slot: %d of %d are held", st.Held, s.cfg.Slots)
	if st.Silent > 0 {
		waits += fmt.Sprintf(", and %d do not answer", st.Silent)
	}
	s.agent.mu.Lock()
	news := s.waits != waits || s.tenure != nil
	s.tenure, s.waits = nil, waits
	if news {
		s.told = ""
	}
	s.agent.mu.Unlock()
	if news && st.Held+st.Silent == s.cfg.Slots {
		s.log.Info("now spare", "reason", waits)
	}
}

// readHead looks at one slot. The volume is made only when it is tried.
func (s *spare) readHead(ctx context.Context, slot int) slots.HeadRead {
	sent := volume.Now()
	failed := slots.HeadRead{Slot: slot, Sent: sent}
	v := s.opened(slot)
	if v == nil {
		var err error
		v, _, err = openVolume(ctx, s.st, s.cfg.Slot(slot), false, s.log)
		if errors.Is(err, repo.ErrNoRepository) {
			failed.Absent = true
			return failed
		}
		if err != nil {
			s.unreadable(ctx, slot, err)
			return failed
		}
		s.mu.Lock()
		s.open[slot] = v
		s.mu.Unlock()
		sent = volume.Now()
	}
	ctx, cancel := context.WithTimeout(ctx, headTimeout(s.cfg.Lease.TTL.Std()))
	defer cancel()
	seen, err := v.ReadHead(ctx)
	if err != nil {
		s.unreadable(ctx, slot, err)
		return failed
	}
	return slots.HeadRead{Slot: slot, Sent: sent, Seen: &seen}
}

func (s *spare) unreadable(ctx context.Context, slot int, err error) {
	if ctx.Err() == nil {
		s.log.Warn("look at a slot", "slot", slot, "err", err)
	}
}

func (s *spare) opened(slot int) *volume.Volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open[slot]
}

// forget gives back what a tenure loaded of a volume.
func (s *spare) forget(slot int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, slot)
}
