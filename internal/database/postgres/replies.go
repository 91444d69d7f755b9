package postgres

import "time"

// replies are when replicas were last heard of. What they say has their own clock's time in it, so what counts is when another one was seen.
type replies map[string]reply

type reply struct {
	text string // its time, by the replica's clock
	seen time.Time
}

// heard notes what a replica said last, and returns for how long it has said nothing else.
func (r replies) heard(id, text string, now time.Time) time.Duration {
	last, ok := r[id]
	if !ok || last.text != text {
		last = reply{text, now}
		r[id] = last
	}
	return now.Sub(last.seen)
}
