package protocol

// Mutant names one rule that is left out, so that tests can show that they
// notice. The zero value breaks nothing; nothing but tests sets another.
type Mutant string

// The mutants, each with the rule that it breaks.
const (
	UnknownIsYes      Mutant = "unknown-is-yes"     // a put without a 2xx is read back before it counts
	UnknownIsNo       Mutant = "unknown-is-no"      // the same: it is not taken for refused
	NewBase           Mutant = "new-base"           // a conflict within our claim deposes; never write upon the other's base
	CompareClaim      Mutant = "compare-claim"      // a read-back is ours by its write id, not by epoch and claim
	ResumeClaim       Mutant = "resume-claim"       // a new life claims anew, with epoch+1
	KeepUnchecked     Mutant = "keep-unchecked"     // files are kept only if the head names our last or intended snapshot
	KeepUnsynced      Mutant = "keep-unsynced"      // and only in the same boot, or synced
	KeepUnmarked      Mutant = "keep-unmarked"      // and only with matching markers
	NoIntent          Mutant = "no-intent"          // a commit's snapshot is recorded before its put
	NoClaimIntent     Mutant = "no-claim-intent"    // a claim is recorded before its put
	NoGap             Mutant = "no-gap"             // a gap between reads starts the count again
	CountFromSending  Mutant = "count-from-sending" // an observation counts from the receipt of its first read
	DeadlineOnAnswer  Mutant = "deadline-on-answer" // strict: the deadline counts from the sending of the last write
	StrictReclaim     Mutant = "strict-reclaim"     // strict: no re-claim at once over a head that is held
	UnchangedUnproven Mutant = "unchanged-unproven" // an unchanged tree is acknowledged only after a proof that we hold
	JoinLate          Mutant = "join-late"          // a request joins only a capture that has not started
	NoLockCheck       Mutant = "no-lock-check"      // a commit is acknowledged only if our lock is still there
	ReuseCondemned    Mutant = "reuse-condemned"    // a commit counts on no condemned pack
	StaleCondemn      Mutant = "stale-condemn"      // packs are condemned only against the very head they were computed on
	NoRestoring       Mutant = "no-restoring"       // a restore is recorded before it begins
	JobsBeforeRecord  Mutant = "jobs-before-record" // role = holder is recorded before the first job starts
	NoDiverged        Mutant = "no-diverged"        // what differs is saved before it is overwritten
	RecordBeforeSave  Mutant = "record-before-save" // and saved before the record says that it is
	LowerHead         Mutant = "lower-head"         // a head that went back is refused
	NoKill            Mutant = "no-kill"            // a deposed instance kills its jobs
	CopyUsed          Mutant = "copy-used"          // a copy that jobs ran upon is none
	NoYield           Mutant = "no-yield"           // a volume that cannot be restored here is given back
	LeaveUnresolved   Mutant = "leave-unresolved"   // a machine leaves only when no claim of its own can land any more
	LeaveUnsettled    Mutant = "leave-unsettled"    // and nothing that jobs wrote is left here unsaved
	ReleaseUncaptured Mutant = "release-uncaptured" // the last commit comes after the jobs have ended
)
