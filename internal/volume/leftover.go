package volume

import (
	"fmt"
	"os"
	"path/filepath"

	"drover/internal/volume/protocol"
)

// Where an instance chooses one of several volumes, their records lie side by side
// below one directory, and their files take turns in the same paths. The markers tell
// whose turn it is: no two records have the same ones, unless both call the files worthless.

// Leftover is what a disk holds of one of several volumes.
type Leftover struct {
	Volume string // "": the files are of none of them
	// Unsettled: jobs of it may have written what stands nowhere else, and no other
	// volume may have the paths before that is kept.
	Unsettled bool
}

// FindLeftover says which of the volumes the files in paths are of.
func FindLeftover(base string, volumes, paths []string) (Leftover, error) {
	var found Leftover
	for _, volume := range volumes {
		rec, err := (&DataDir{path: filepath.Join(base, volume)}).load(volume)
		if err != nil {
			return Leftover{}, err
		}
		if rec == nil || !markersMatch(paths, rec.Markers) {
			continue
		}
		switch {
		case rec.Role == protocol.RoleHolder && !rec.Restoring:
			return Leftover{Volume: volume, Unsettled: true}, nil
		case rec.Restoring, rec.Role == protocol.RoleWarm:
			found = Leftover{Volume: volume}
		}
	}
	return found, nil
}

// Inherit has d's volume know that the files in its paths, which are of another
// volume, are worth nothing to it: they are in that one's history, or kept as
// diverged, and are cleared away by the first restore. What the record of d's volume
// says of files is of files that are not there any more.
func (d *DataDir) Inherit(volume string, from Leftover) error {
	if from.Volume == "" || from.Volume == volume {
		return nil
	}
	if from.Unsettled {
		return fmt.Errorf("start on the files of volume %q: what differs is not kept yet", from.Volume)
	}
	other, err := (&DataDir{path: filepath.Join(filepath.Dir(d.path), from.Volume)}).load(from.Volume)
	if err != nil {
		return err
	}
	if other == nil {
		return fmt.Errorf("read record of volume %q: %w", from.Volume, os.ErrNotExist)
	}
	mine, err := d.load(volume)
	if err != nil {
		return err
	}
	next := recordFile{Record: protocol.Record{Volume: volume, Restoring: true, Boot: bootID()}, Markers: other.Markers}
	if mine != nil {
		next.SeenEpoch, next.SeenSeq = mine.SeenEpoch, mine.SeenSeq
	}
	return d.store(next)
}
