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
	cancel context.CancelFunc
	ended  chan error
}

// Claim claims v for the time of f, and releases it. Tree and Log of opt are
// used. A head that nobody renews is taken over after its TTL.
// Errors: ErrHeld if somebody holds it and lives; f's.
func (v *Volume) Claim(ctx context.Context, opt Options, f func(ctx context.Context, s *Session) error) error {
	holds := make(chan struct{})
	opt.Protocol.Detached, opt.Protocol.FinalCommit = true, false
	opt.Protocol.Fence = protocol.FenceHistory
	opt.Jobs, opt.Changes, opt.DataDir = nil, nil, nil
	told := false
	opt.Notify = func(s protocol.Status) {
		if s.Phase == protocol.PhaseHolder && !told {
			told = true
			close(holds)
		}
	}
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &Session{Runtime: NewRuntime(v, opt), cancel: cancel, ended: make(chan error, 1)}
	go func() { s.ended <- s.Run(run) }()
	select {
	case err := <-s.ended:
		return claimError(err, s)
	case <-holds:
	}
	err := f(run, s)
	s.Stop(opt.Protocol.TTL)
	return errors.Join(err, claimError(<-s.ended, s))
}

func claimError(err error, s *Session) error {
	if errors.Is(err, protocol.ErrHeld) {
		status, _ := s.Status()
		return fmt.Errorf("%w by instance %q (epoch %d): ask its agent (drover backup), or stop it first",
			ErrHeld, status.Head.Holder.ID, status.Head.Epoch)
	}
	return err
}
