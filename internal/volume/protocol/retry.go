package protocol

// retry spaces the repetitions of something that failed: at first soon, at most
// a third of the TTL apart, so that none is missed by an observer's count. Reads
// count from their sending: one that hung until its timeout is repeated at once.
type retry struct {
	failures int
	at       Time // not before
}

func (r *retry) fail(now, ttl Time) {
	r.at = now + min(ttl/32<<min(r.failures, 5), ttl/3)
	r.failures++
}

func (r *retry) succeed() { *r = retry{} }

func (r *retry) ready(now Time) bool { return now >= r.at }
