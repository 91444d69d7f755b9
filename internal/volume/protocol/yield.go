package protocol

// actYield gives back a volume that cannot be restored here (a full disk, a broken
// one): somebody with a better disk may be waiting. After a TTL of failures it is
// released, and for another TTL this instance leaves it to others.
func (m *Machine) actYield() bool {
	o := m.own
	if o == nil || !o.failing || o.restored || m.stop != nil || m.cfg.Detached || m.now < o.yieldDue(m.cfg.TTL) || m.broken(NoYield) {
		return false
	}
	if m.work.busy() || m.recording != nil {
		return false
	}
	return m.release(ErrNotHolder)
}

// releasing says whether the volume is being given back.
func (m *Machine) releasing() bool { return m.write != nil && m.write.kind == releaseWrite }

func (o *tenure) yieldDue(ttl Time) Time { return o.failed + ttl }

// mostShy bounds the pause of one that gave the volume back again and again, in TTLs.
const mostShy = 8

// yielded: the volume is anybody's, and for now not ours; each time for longer, or
// several with full disks would leave no moment to one that needs it.
func (m *Machine) yielded() {
	m.shy = m.now + m.cfg.TTL*Time(min(1<<m.yields, mostShy))
	m.yields = min(m.yields+1, mostShy)
	m.yieldErr = m.work.err
	m.work.err = nil
	m.work.retry.succeed()
}
