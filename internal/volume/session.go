package volume

import (
	"context"
	"errors"
	"fmt"

	"drover/internal/volume/protocol"
)

// Session is a command's short claim of a volume that no agent holds.
type Session struct {
	*Runtime
	ended chan error
}

// Claim claims v for the time of f, and releases it. Tree and Log of opt are
// used. A head that nobody renews is taken over after its TTL. f's context ends
// with ctx and with the claim; the volume is released either way.
// Errors: ErrHeld if somebody holds it and lives, or took it meanwhile; f's.
func (v *Volume) Claim(ctx context.Context, opt Options, f func(ctx context.Context, s *Session) error) error {
	work, lose := context.WithCancelCause(ctx)
	defer lose(nil)
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	holds := make(chan struct{})
	opt.Protocol.Detached, opt.Protocol.FinalCommit = true, false
	opt.Protocol.Fence = protocol.FenceHistory
	opt.Jobs, opt.Changes, opt.DataDir = nil, nil, nil
	opt.Notify = notifySession(holds, lose)
	s := &Session{Runtime: NewRuntime(v, opt), ended: make(chan error, 1)}
	go func() { s.ended <- s.Run(run) }()
	select {
	case err := <-s.ended:
		return claimError(err, s)
	case <-ctx.Done():
		s.Stop(opt.Protocol.TTL)
		return errors.Join(context.Cause(ctx), claimError(<-s.ended, s))
	case <-holds:
	}
	err := f(work, s)
	s.Stop(opt.Protocol.TTL)
	return errors.Join(err, claimError(<-s.ended, s))
}

// notifySession tells the first time that the session holds, and that it does no more.
func notifySession(holds chan<- struct{}, lose context.CancelCauseFunc) func(protocol.Status) {
	told := false
	return func(s protocol.Status) {
		switch {
		case s.Phase == protocol.PhaseHolder && !told:
			told = true
			close(holds)
		case told && s.Phase != protocol.PhaseHolder && s.Phase != protocol.PhaseStopping:
			lose(fmt.Errorf("%w: the claim was lost: %s", ErrHeld, s.Reason))
		}
	}
}

func claimError(err error, s *Session) error {
	switch status, _ := s.Status(); {
	case errors.Is(err, protocol.ErrHeld):
		return fmt.Errorf("%w by instance %q (epoch %d): ask its agent (drover backup), or stop it first",
			ErrHeld, status.Head.Holder.ID, status.Head.Epoch)
	case errors.Is(err, protocol.ErrDeposed):
		return fmt.Errorf("%w: %w", ErrHeld, err)
	}
	return err
}
