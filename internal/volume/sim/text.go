package sim

import (
	"fmt"

	"drover/internal/volume/protocol"
)

func inputText(in protocol.Input) string {
	switch in := in.(type) {
	case protocol.HeadRead:
		if in.Seen != nil {
			return fmt.Sprintf("read %s: %s", in.Seen.Tag, headText(in.Seen.Head))
		}
		return fmt.Sprintf("read failed: %v", in.Err)
	case protocol.HeadPut:
		return fmt.Sprintf("put: ok %v %s %v", in.OK, in.Tag, in.Err)
	case protocol.Boot:
		return "boot"
	}
	return fmt.Sprintf("%T%+v", in, in)
}

func actionText(act protocol.Action) string {
	switch act := act.(type) {
	case protocol.PutHead:
		return fmt.Sprintf("put on %s (repeat %v): %s", act.Base, act.Repeat, headText(act.Head))
	case protocol.WriteRecord:
		return fmt.Sprintf("record %s (markers %v)", recordText(act.Record), act.Markers)
	case protocol.Capture:
		return fmt.Sprintf("capture upon %q fresh %v force %v", act.Head.Snapshot, act.Fresh, act.Force)
	case protocol.Restore:
		return fmt.Sprintf("restore %q", act.Head.Snapshot)
	case protocol.SaveDiverged:
		return "save diverged: " + act.Reason
	case protocol.Became:
		return fmt.Sprintf("became %s: %s", act.Status.Phase, act.Status.Reason)
	case protocol.Reply:
		return fmt.Sprintf("reply %v: %s %v", act.Requests, act.Head.Snapshot, act.Err)
	}
	return fmt.Sprintf("%T%+v", act, act)
}

func headText(h protocol.Head) string {
	return fmt.Sprintf("%s by %s epoch %d claim %s seq %d %s write %s condemned %v", h.State, h.Holder.ID, h.Epoch, h.Claim, h.Seq, h.Snapshot, h.Write, h.Condemned)
}

func recordText(r protocol.Record) string {
	return fmt.Sprintf("role %q claim %s→%s last %q(%v) intended %q(%v) restoring %v", r.Role, r.Claim, r.IntendedClaim,
		r.Last, r.SyncedLast, r.Intended, r.SyncedIntended, r.Restoring)
}

func (d *disk) String() string {
	rec := "no record"
	if d.rec != nil {
		rec = recordText(*d.rec)
	}
	return fmt.Sprintf("files %v (durable %v, half %v, marker %v) %s", d.cache, d.durable, d.half, d.marker != 0 && d.marker == d.recMarker, rec)
}
