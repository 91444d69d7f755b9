package protocol

import "fmt"

// takeHandOver begins as a stop does (a commit, the jobs' end, the last commit, the
// release) and ends as a standby.
func (m *Machine) takeHandOver(in HandOverWanted) {
	request := []uint64{in.Request}
	switch {
	case m.own == nil || !m.own.ready || m.cfg.Detached:
		m.reply(request, m.headSeen(), ErrNotHolder)
	case m.stop != nil:
		m.reply(request, m.headSeen(), ErrStopping)
	default:
		m.beginStop(&stopping{
			handOver: in.Request, want: true,
			limited: true, half: m.now + in.Grace/2, deadline: m.now + in.Grace,
		})
	}
}

func (m *Machine) headSeen() Head {
	if m.seen == nil {
		return Head{}
	}
	return m.seen.Head
}

// endHandOver goes on with what the instance is now: the holder, whose jobs start
// again, or a standby.
func (m *Machine) endHandOver(err error) bool {
	m.reply([]uint64{m.stop.handOver}, m.headSeen(), err)
	m.stop = nil
	return true
}

// lateHandOver gives up a hand-over whose time is over, unless the release may have
// reached the store.
func (m *Machine) lateHandOver() bool {
	if m.own != nil && m.releasing() {
		return false
	}
	return m.endHandOver(fmt.Errorf("%w: the volume was not handed over in time, and the jobs start again", ErrUnfinished))
}

// handedOver: for a TTL the volume is left to others.
func (m *Machine) handedOver() {
	m.shy = m.now + m.cfg.TTL
	m.endHandOver(nil)
}
