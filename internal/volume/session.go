package volume

import (
	"context"
	"errors"
	"fmt"

	"drover/internal/objstore"
	"drover/internal/volume/protocol"
)

// Session is a command's short claim of a volume that no agent holds.
type Session struct {
	*Runtime
	source source
	ended  chan error
}

// source makes a snapshot object upon the head of something else than files.
type source func(ctx context.Context, r *Runtime, a protocol.Capture) (protocol.Captured, CaptureStats, error)

// Claim claims v for the time of f, and releases it. Tree and Log of opt are
// used. A head that nobody renews is taken over after its TTL. f's context ends
// with ctx and with the claim; the volume is released either way.
// Errors: ErrHeld if somebody holds it and lives, or took it meanwhile; f's.
func (v *Volume) Claim(ctx context.Context, opt Options, f func(ctx context.Context, s *Session) error) error {
	return v.claim(ctx, opt, nil, f)
}

// claim is Claim for a session whose backups are of from; nil: of opt.Tree's paths.
func (v *Volume) claim(ctx context.Context, opt Options, from source, f func(ctx context.Context, s *Session) error) error {
	work, lose := context.WithCancelCause(ctx)
	defer lose(nil)
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	holds := make(chan struct{})
	opt.Protocol.Detached, opt.Protocol.FinalCommit = true, false
	opt.Protocol.Fence = protocol.FenceHistory
	opt.Jobs, opt.Changes, opt.DataDir = nil, nil, nil
	opt.Notify = notifySession(holds, lose)
	s := &Session{Runtime: NewRuntime(v, opt), source: from, ended: make(chan error, 1)}
	go func() { s.ended <- s.live(run) }()
	select {
	case err := <-s.ended:
		return claimError(err, s)
	case <-ctx.Done():
		s.Stop(opt.Protocol.TTL)
		return errors.Join(context.Cause(ctx), claimError(<-s.ended, s))
	case <-holds:
	}
	// A prune would meet that lock, and nobody who claims later knows whose it is.
	s.awaitCleared(work)
	err := f(work, s)
	s.Stop(opt.Protocol.TTL)
	return errors.Join(err, claimError(<-s.ended, s))
}

// live is Run of a session, which finds nothing on a disk.
func (s *Session) live(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer s.finish(cancel)
	in := protocol.Input(protocol.Boot{})
	for {
		for _, a := range s.machine.Step(Now(), in) {
			switch a := a.(type) {
			case protocol.Exit:
				return a.Err
			case protocol.Capture:
				s.capture(ctx, a)
			default:
				s.do(ctx, a)
			}
		}
		var err error
		if in, err = s.next(ctx); err != nil {
			return err
		}
	}
}

// capture makes one attempt; the machine repeats it while the store is away.
func (s *Session) capture(ctx context.Context, a protocol.Capture) {
	if s.source == nil {
		s.do(ctx, a)
		return
	}
	s.scoped(ctx, func(ctx context.Context) protocol.Input {
		in, stats, err := s.source(ctx, s.Runtime, a)
		s.mu.Lock()
		s.stats.LastBackup = stats
		s.mu.Unlock()
		if err == nil {
			return in
		}
		transient := errors.Is(err, objstore.ErrUnavailable)
		if transient {
			s.opt.Log.Warn("commit waits for the store", "err", err)
		}
		return protocol.Captured{Transient: transient, Err: err}
	})
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
