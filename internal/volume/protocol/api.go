// Package protocol is the pure core of a volume's one line of history: who may
// hold the head, what may be written to it, what an unclear answer means, and
// what an instance does with its jobs and files in each case.
//
// Machine.Step takes one input and the time and returns actions; it has no
// clock, no I/O and no goroutine. The runtime (package volume) carries out the
// actions and reports back; the simulator does the same in a world that fails.
// Safety rests on the head's compare-and-swap alone; time only decides when to
// try. The rules and the models behind them are in DESIGN.md.
package protocol

import "time"

// Time is a reading of one machine's clock that counts through suspend
// (CLOCK_BOOTTIME), since an arbitrary moment. Readings of two machines, or of
// two boots, are never compared.
type Time = time.Duration

// Fence says how long two instances may both run while the head can have only one holder.
type Fence string

// The two modes: see GUARANTEES.
const (
	// FenceHistory lets jobs run until the store says that another one holds.
	FenceHistory Fence = "history"
	// FenceStrict kills the jobs before anybody else could have claimed.
	FenceStrict Fence = "strict"
)

// HeadState is the head's own word on whether anybody holds it.
type HeadState string

// The states of a head.
const (
	Free     HeadState = "free"     // never claimed
	Held     HeadState = "held"     // by Holder, until the TTL says otherwise
	Released HeadState = "released" // given back in order
)

// Holder names the instance that made the claim.
type Holder struct {
	ID      string `json:"id"`                // the instance's name, for people
	Address string `json:"address,omitempty"` // host, for people
	Lock    string `json:"lock,omitempty"`    // id of its lock in the repository, for the successor to remove
}

// Head is the control object of a volume. It is replaced only by
// compare-and-swap, never deleted, and sealed with the repository's key.
type Head struct {
	Version   int       `json:"version"` // of this format: HeadVersion
	Volume    string    `json:"volume"`
	Epoch     uint64    `json:"epoch"` // grows by one with each claim
	Claim     string    `json:"claim"` // 128 random bits, hexadecimal: this claim and no other
	Write     string    `json:"write"` // 128 random bits, hexadecimal: this write and no other
	Holder    Holder    `json:"holder"`
	State     HeadState `json:"state"`
	TTL       Duration  `json:"ttl"`                 // what observers wait
	Seq       uint64    `json:"seq"`                 // grows by one with each commit
	Snapshot  string    `json:"snapshot,omitempty"`  // newest committed snapshot object; empty at seq 0
	Tree      string    `json:"tree,omitempty"`      // its tree
	Paths     []string  `json:"paths,omitempty"`     // the roots in it
	Time      time.Time `json:"time"`                // of the commit, by the holder's wall clock; for people only
	Condemned []string  `json:"condemned,omitempty"` // packs that nobody may use again
}

// RecordVersion is the format of the record that this code writes.
const RecordVersion = 1

// HeadVersion is the newest head format this code reads and the one it writes.
const HeadVersion = 1

// Tag is the store's ETag of a head. Opaque; compared for equality only.
type Tag string

// Seen is one successful reading of the head.
type Seen struct {
	Head Head
	Tag  Tag
}

// Record is what an instance keeps beside its data, outside the volume's
// paths, so that its next life knows what the files on this disk are.
type Record struct {
	Version       int    `json:"version"`
	Volume        string `json:"volume"`
	Role          Role   `json:"role"`
	Epoch         uint64 `json:"epoch"`          // of Claim
	Claim         string `json:"claim"`          // the last claim known to be ours
	IntendedClaim string `json:"intended_claim"` // a claim whose PUT may have landed
	// EarlierClaims are such claims of former lives, whose PUT may land yet.
	EarlierClaims []string `json:"earlier_claims,omitempty"`
	Last          string   `json:"last"`     // the snapshot that the files were, or grew from
	Intended      string   `json:"intended"` // a snapshot whose commit may have landed
	// SyncedLast and SyncedIntended: the file system was synced after the
	// capture of that snapshot and before its commit.
	SyncedLast     bool   `json:"synced_last"`
	SyncedIntended bool   `json:"synced_intended"`
	Restoring      bool   `json:"restoring"`  // the files are half of something
	Boot           string `json:"boot"`       // kernel boot id, filled in by the runtime
	SeenEpoch      uint64 `json:"seen_epoch"` // the highest (epoch, seq) ever seen
	SeenSeq        uint64 `json:"seen_seq"`
}

// Role is what the files beside a record belong to.
type Role string

// The roles in a record.
const (
	RoleNone   Role = ""       // nothing is known of the files, or they were deposed
	RoleHolder Role = "holder" // jobs may have run on them under Claim
	RoleWarm   Role = "warm"   // a standby's copy: restored, never run upon
)

// Config is what the machine is told once.
type Config struct {
	Volume            string
	Self              Holder // without Lock
	TTL               time.Duration
	Margin            time.Duration // strict: how long before the TTL's end the jobs are killed; 0: TTL/5
	Fence             Fence
	AdoptFiles        bool // first_start: adopt
	DiscardImageFiles bool // image_files: discard
	// Detached: a command's short claim (snapshot, prune). No record is kept, no
	// files are reconciled and no jobs run: once the claim has landed, the phase
	// is PhaseHolder. A head that is seen to change while it is observed ends it
	// with ErrHeld instead of standing by.
	Detached    bool
	FinalCommit bool // commit once more when stopping
	Warm        bool // a standby keeps a copy of the newest snapshot in its paths
	// Leave: there are other volumes to choose from. Where this one cannot be had, and
	// nothing stands here that it alone could keep, the machine ends (ErrHeld, ErrUnfit)
	// instead of standing by.
	Leave bool
	// Retired, with Leave: the volume is not to be held any more. What differs is kept as
	// diverged, and that is all.
	Retired bool
	// NewID returns 128 fresh random bits in hexadecimal: of the kernel's, at
	// that moment, so that a rolled-back machine does not make the same again.
	NewID func() string
	// Mutant breaks one rule. For tests alone, which show that they notice: see mutant.go.
	Mutant Mutant
}

// Local is what the runtime found on the disk at start.
type Local struct {
	Record       *Record // nil: none, or of another volume
	MarkersMatch bool    // each path's device, inode and marker are the record's
	SameBoot     bool    // the record's boot id is this one
	FilesPresent bool    // there is anything below the paths
}

// Input is something that happened. The concrete types are below.
type Input interface{ input() }

type (
	// Boot starts the machine; it comes once, first. Watch is what this process has
	// counted of the head until now, if it has.
	Boot struct {
		Local Local
		Watch Watch
	}
	// Tick says only that time has passed: see Machine.Deadline.
	Tick struct{}
	// HeadRead answers a ReadHead. Sent is when the request was sent.
	HeadRead struct {
		Sent    Time
		Seen    *Seen // nil: the read failed (unknown), unless Missing
		Missing bool  // the store answered, and there is no head: a fault, never a first start
		Err     error
	}
	// HeadPut answers a PutHead. A 2xx has the new Tag; all else is unknown.
	HeadPut struct {
		Sent Time
		OK   bool
		Tag  Tag
		Err  error
	}
	// RecordWritten answers a WriteRecord: it is on the disk.
	RecordWritten struct{ Err error }
	// Locked answers a TakeLock.
	Locked struct {
		Lock string
		Err  error
	}
	// DivergedSaved answers a SaveDiverged. Snapshot is empty if nothing differed.
	DivergedSaved struct {
		Snapshot string
		Err      error
	}
	// Restored answers a Restore.
	Restored struct {
		Synced    bool // the file system was synced after it
		Untouched bool // with Err: nothing was changed on the disk
		Err       error
	}
	// BackupWanted asks for a commit of what is on the disk now. A Request
	// joins only a capture that has not started.
	BackupWanted struct{ Request uint64 }
	// Captured answers a Capture: data, index and snapshot object are stored.
	Captured struct {
		Snapshot, Tree string
		Paths          []string
		Time           time.Time
		Packs          []string // that it counts on
		Synced         bool     // the file system was synced after the capture
		Unchanged      bool     // equal to the head's tree: no snapshot object was made
		// Transient: Err will pass (the store is away), so try again; the requests
		// wait. Otherwise Err ends them.
		Transient bool
		Err       error
	}
	// LockChecked answers a CheckLock: whether our lock is still there.
	LockChecked struct {
		Present bool
		Err     error
	}
	// JobsExited answers StopJobs and KillJobs, once each, when all jobs are dead.
	// Main: unasked, the main job ended by itself. (One that is neither asked for
	// nor marked counts as Main.)
	JobsExited struct{ Main bool }
	// StopWanted asks for the end: stop jobs, last commit, release. After
	// Grace it ends without what is then still missing.
	StopWanted struct {
		Grace   time.Duration
		Running time.Duration // of it, for the commit while the jobs still run; 0: half
	}
	// HandOverWanted asks the holder to make room for a standby: stop jobs, last commit,
	// release, and leave the volume to others for a TTL. What is not done after Grace
	// is given up, and the jobs start again.
	HandOverWanted struct {
		Request uint64
		Grace   time.Duration
	}
	// CondemnWanted and ForgiveWanted edit the list of condemned packs. Condemn
	// names the head that the set was computed against: another epoch or seq by
	// now ends it with ErrStale. Forgive takes packs that are gone from index/ and data/.
	CondemnWanted struct {
		Request    uint64
		Packs      []string
		Epoch, Seq uint64
	}
	ForgiveWanted struct {
		Request uint64
		Packs   []string
	}
)

func (Boot) input()           {}
func (Tick) input()           {}
func (HeadRead) input()       {}
func (HeadPut) input()        {}
func (RecordWritten) input()  {}
func (Locked) input()         {}
func (DivergedSaved) input()  {}
func (Restored) input()       {}
func (BackupWanted) input()   {}
func (Captured) input()       {}
func (LockChecked) input()    {}
func (JobsExited) input()     {}
func (StopWanted) input()     {}
func (HandOverWanted) input() {}
func (CondemnWanted) input()  {}
func (ForgiveWanted) input()  {}

// Action is something for the runtime to do. KillJobs is done at once and
// before anything else; the others in their order. Of each kind that is
// answered by an input at most one is outstanding.
type Action interface{ action() }

type (
	// ReadHead: get the head; answer HeadRead.
	ReadHead struct{}
	// PutHead: store Head (its Write is filled in, fresh for each new write,
	// the same for a repetition) on condition that the tag is Base; answer HeadPut.
	// Repeat: the very bytes of the former PutHead again.
	PutHead struct {
		Head   Head
		Base   Tag
		Repeat bool
	}
	// WriteRecord: fsync the record; answer RecordWritten. Markers: write and
	// record fresh markers too. Unclaimed: for a standby, which must not put them in
	// the place of another instance's: that is an error.
	WriteRecord struct {
		Record    Record
		Markers   bool
		Unclaimed bool
	}
	// TakeLock: put a shared lock into the repository; answer Locked. Once the
	// claim has landed, and not before, that of the dead Predecessor is removed
	// ("" if none). DropLock gives ours back (no answer).
	TakeLock struct{ Predecessor string }
	DropLock struct{}
	// CheckLock: is our lock still in the repository? Answer LockChecked.
	CheckLock struct{}
	// SaveDiverged: keep what differs on this disk from Head's snapshot as a
	// snapshot tagged diverged; answer DivergedSaved.
	SaveDiverged struct {
		Head   Head
		Reason string
	}
	// Restore: make the paths exactly the snapshot of Head; answer Restored. Base, if
	// any, is the snapshot that they are now. Follow: for a standby, without a lock;
	// files that somebody put there meanwhile, and markers that are not the record's,
	// are an error.
	Restore struct {
		Head   Head
		Base   string
		Follow bool
	}
	// StartJobs, StopJobs (in order, gracefully), KillJobs (at once, all):
	// JobsExited answers the last two, and comes unasked if the main job ends.
	StartJobs struct{}
	StopJobs  struct{}
	KillJobs  struct{ Reason string }
	// Capture: make a snapshot of what is on the disk now, upon Head; answer
	// Captured. Fresh: trust no cache and no index loaded before. Force: never
	// answer Unchanged, since what the head names may have been pruned.
	Capture struct {
		Head  Head
		Fresh bool
		Force bool
	}
	// Cancel: the Capture or Restore under way is not wanted any more. Its answer
	// still comes, soon, and whatever it is.
	Cancel struct{}
	// Reply ends a request: Err nil means committed in Head.
	Reply struct {
		Requests []uint64
		Head     Head
		Err      error
	}
	// Became tells the state, for status, events and logs.
	Became struct{ Status Status }
	// Exit: the machine is done; nothing follows. Err nil: released, or nothing held.
	Exit struct{ Err error }
)

func (ReadHead) action()     {}
func (PutHead) action()      {}
func (WriteRecord) action()  {}
func (TakeLock) action()     {}
func (DropLock) action()     {}
func (CheckLock) action()    {}
func (SaveDiverged) action() {}
func (Restore) action()      {}
func (StartJobs) action()    {}
func (StopJobs) action()     {}
func (KillJobs) action()     {}
func (Capture) action()      {}
func (Cancel) action()       {}
func (Reply) action()        {}
func (Became) action()       {}
func (Exit) action()         {}

// Phase is where an instance is in its life.
type Phase string

// The phases, in the order of a life.
const (
	PhaseStarting  Phase = "starting"  // before the first look at the head
	PhaseStandby   Phase = "standby"   // another holds
	PhaseClaiming  Phase = "claiming"  // our claim is under way
	PhaseRestoring Phase = "restoring" // we hold; the files are being made right
	PhaseHolder    Phase = "holder"    // we hold; jobs run
	PhaseFenced    Phase = "fenced"    // strict: jobs killed, the head may still be ours
	PhaseDeposed   Phase = "deposed"   // another holds; our jobs are being killed, our rest kept as diverged
	PhaseStopping  Phase = "stopping"  // jobs stop, last commit, release
	PhaseStopped   Phase = "stopped"
	PhaseFault     Phase = "fault" // the head is missing or went back: nothing is written
)

// Status is what people and metrics see of the machine.
type Status struct {
	Phase     Phase
	Head      Head // as last seen or written
	Reason    string
	Renewed   Time   // send time of the last successful write of the head
	Ambiguous bool   // a write of the head is unresolved
	Copied    uint64 // seq of the commit that a standby has a copy of; 0: none
}
