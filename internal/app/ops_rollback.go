package app

import (
	"context"
	"time"

	"drover/internal/volume"
)

// RollbackOptions of Rollback.
type RollbackOptions struct {
	Snapshot     string // id or prefix of one
	ReplacePaths bool   // though it is of other paths than the newest one
}

// RollbackResult is what a rollback did.
type RollbackResult struct {
	Snapshot  string  `json:"snapshot"` // the new one, the head's
	Of        string  `json:"of"`       // whose state it has
	Seq       uint64  `json:"seq"`
	Files     int64   `json:"files"`
	Bytes     int64   `json:"bytes"`
	Unchanged bool    `json:"unchanged,omitempty"` // the newest state was that one already
	Seconds   float64 `json:"seconds"`
}

// Rollback commits the state of an older snapshot as the newest one.
// Errors: ErrHeld, ErrPaths, ErrIncomplete.
func (o *Ops) Rollback(ctx context.Context, opt RollbackOptions) (RollbackResult, error) {
	start := time.Now()
	v, err := o.open(ctx)
	if err != nil {
		return RollbackResult{}, err
	}
	id, _, err := o.find(ctx, v, opt.Snapshot)
	if err != nil {
		return RollbackResult{}, err
	}
	tree := o.treeOptions()
	tree.ReplacePaths = opt.ReplacePaths
	out, err := v.Rollback(ctx, o.sessionOptions(tree), id)
	if err != nil {
		return RollbackResult{}, err
	}
	return rollbackOf(out, id.String(), time.Since(start)), nil
}

func rollbackOf(out volume.Outcome, of string, took time.Duration) RollbackResult {
	return RollbackResult{
		Snapshot: out.Head.Snapshot, Of: of, Seq: out.Head.Seq, Files: out.Capture.Files, Bytes: out.Capture.Bytes,
		Unchanged: out.Capture.Unchanged, Seconds: took.Seconds(),
	}
}
