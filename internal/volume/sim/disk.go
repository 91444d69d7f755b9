package sim

import "drover/internal/volume/protocol"

// disk is what an instance has beside and below the volume's paths.
type disk struct {
	cache   set    // what processes read
	durable set    // what is on the platter
	half    bool   // a restore began and did not end
	full    bool   // no restore ever ends
	brought bool   // the last that was done to the files was a restore
	image   set    // came with the disk, not from any application
	ranAt   uint64 // epoch in which jobs were last started on it; 0: never, or not to be relied upon

	rec       *protocol.Record // durable
	recBoot   int
	recMarker int
	marker    int // 0: none
}

// newDisk is empty, or has an image's files in it.
func (w *world) newDisk(files bool) *disk {
	d := &disk{full: w.class != Outage && !w.calm && w.chance(0.05)}
	if files {
		if n, ok := w.newWrite(); ok {
			d.cache.add(n)
			d.durable = d.cache
			d.image = d.cache
		}
	}
	return d
}

func (w *world) newWrite() (int, bool) {
	if w.writes >= setSize {
		return 0, false
	}
	w.writes++
	return w.writes - 1, true
}

func (d *disk) copy() *disk {
	c := *d
	c.ranAt = 0
	if d.rec != nil {
		rec := *d.rec
		c.rec = &rec
	}
	return &c
}

// losePower leaves what was on the platter, and any part of the rest.
func (d *disk) losePower(w *world) {
	d.cache = w.mix(d.durable, d.cache)
	d.durable = d.cache
	d.ranAt = 0
}

// mix takes what both have, and any part of what only one has.
func (w *world) mix(a, b set) set {
	both := a.minus(a.minus(b))
	for _, n := range a.union(b).minus(both).members() {
		if w.chance(0.5) {
			both.add(n)
		}
	}
	return both
}

func (d *disk) local(boot int) protocol.Local {
	l := protocol.Local{
		FilesPresent: d.cache != set{},
		SameBoot:     d.rec != nil && d.recBoot == boot,
		MarkersMatch: d.rec != nil && d.marker != 0 && d.marker == d.recMarker,
	}
	if d.rec != nil {
		rec := *d.rec
		l.Record = &rec
	}
	return l
}
