package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"drover/client"
	"drover/internal/volume/protocol"
	"drover/internal/volume/slots"
)

// errNobodyTook: a hand-over that found no taker.
var errNobodyTook = errors.New("no standby took the volume: this instance goes on")

// HandOver is control.Agent's.
func (a *agent) HandOver(ctx context.Context, grace time.Duration) (client.Takeover, error) {
	t := a.current()
	if t == nil {
		return client.Takeover{}, errors.New("there is nothing to hand over: " + a.notOpen())
	}
	rt := t.rt
	began := time.Now()
	if err := rt.HandOver(ctx, grace); err != nil {
		return client.Takeover{Kind: kindOf(err)}, err
	}
	taken := func(s protocol.Status) client.Takeover {
		return client.Takeover{Holder: s.Head.Holder.ID, Epoch: s.Head.Epoch, Seconds: time.Since(began).Seconds()}
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		s, _ := rt.Status()
		switch {
		case s.Phase == protocol.PhaseHolder, s.Phase == protocol.PhaseRestoring:
			return client.Takeover{}, errNobodyTook
		case s.Head.State == protocol.Held && s.Head.Holder.ID != "" && s.Phase == protocol.PhaseStandby:
			return taken(s), nil
		}
		select {
		case <-ctx.Done():
			return client.Takeover{}, fmt.Errorf("released, and not taken yet: %w", context.Cause(ctx))
		case <-rt.Done():
			if s, _ := rt.Status(); t.slot != slots.None && s.Head.State == protocol.Held {
				return taken(s), nil // and this instance has left the slot
			}
			return client.Takeover{}, errors.New("agent has ended")
		case <-tick.C:
		}
	}
}
