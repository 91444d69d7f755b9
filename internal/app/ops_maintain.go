package app

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"drover/client"
	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/volume"
)

// VerifyOptions of Verify.
type VerifyOptions struct {
	ReadData bool   // read every pack and check every blob
	Subset   Subset // of the packs that ReadData reads
	Progress func(Progress)
}

// VerifyReport is what Verify found.
type VerifyReport struct {
	Snapshots int      `json:"snapshots"`
	Packs     int      `json:"packs"`
	Blobs     int      `json:"blobs"`
	PacksRead int      `json:"packs_read"`
	Bytes     int64    `json:"bytes_read"`
	Problems  []string `json:"problems"`
}

// Verify checks the repository and the head: every snapshot's trees and blobs are
// in packs that are there, and with ReadData that every byte of them is right.
func (o *Ops) Verify(ctx context.Context, opt VerifyOptions) (VerifyReport, error) {
	v, err := o.open(ctx)
	if err != nil {
		return VerifyReport{}, err
	}
	var report VerifyReport
	err = o.held(ctx, v, func(ctx context.Context) error {
		report, err = o.verify(ctx, v, opt)
		return err
	})
	return report, err
}

func (o *Ops) verify(ctx context.Context, v *volume.Volume, opt VerifyOptions) (VerifyReport, error) {
	copt := repo.CheckOptions{ReadData: opt.ReadData}
	if opt.Progress != nil {
		copt.Progress = func(now repo.CheckProgress) {
			opt.Progress(Progress{
				Phase: "verify", Files: int64(now.Packs), TotalFiles: int64(now.TotalPacks),
				Bytes: now.Bytes, TotalBytes: now.TotalBytes,
			})
		}
	}
	noted, err := opt.Subset.reading(o.cfg, v.Repo.ID(), &copt)
	if err != nil {
		return VerifyReport{}, err
	}
	r, err := v.Repo.Check(ctx, copt)
	if err != nil {
		return VerifyReport{}, err
	}
	report := VerifyReport{
		Snapshots: r.Snapshots, Packs: r.Packs, Blobs: r.Blobs,
		PacksRead: r.PacksRead, Bytes: int64(r.BytesRead),
		Problems: problemLines(r.Problems, neverCommitted(ctx, v, r.Problems)),
	}
	if err := v.CheckInit(ctx); err != nil {
		report.Problems = append(report.Problems, err.Error())
	}
	seen, err := v.ReadHead(ctx)
	if err != nil {
		report.Problems = append(report.Problems, fmt.Sprintf("head: %v", err))
	} else if seen.Head.Snapshot != "" {
		if _, _, err := v.Latest(ctx); err != nil {
			report.Problems = append(report.Problems, fmt.Sprintf("head: %v", err))
		}
	}
	if len(report.Problems) > 0 {
		return report, nil
	}
	return report, noted()
}

// neverCommitted are the snapshots of commits that died. Nil where there is no problem, or
// it cannot be known.
func neverCommitted(ctx context.Context, v *volume.Volume, problems []repo.Problem) map[format.ID]bool {
	if len(problems) == 0 {
		return nil
	}
	seen, err := v.ReadHead(ctx)
	if err != nil {
		return nil
	}
	all, err := v.History(ctx, seen.Head)
	if err != nil {
		return nil
	}
	unborn := map[format.ID]bool{}
	for _, e := range all {
		unborn[e.ID] = !e.Committed && !e.Diverged && e.Epoch > 0 && e.Epoch < seen.Head.Epoch
	}
	return unborn
}

func problemLines(problems []repo.Problem, unborn map[format.ID]bool) []string {
	lines := []string{}
	for _, p := range problems {
		line := problemLine(p)
		if len(p.Snapshots) > 0 && !slices.ContainsFunc(p.Snapshots, func(id format.ID) bool { return !unborn[id] }) {
			line += " (never committed, by an instance that died: `drover prune`, or the agent's upkeep, removes it)"
		}
		lines = append(lines, line)
	}
	return lines
}

func problemLine(p repo.Problem) string {
	line := fmt.Sprintf("%s: %v", p.Object, p.Err)
	if len(p.Snapshots) > 0 {
		line += fmt.Sprintf(" (in %d snapshots, %s the first)", len(p.Snapshots), p.Snapshots[0].Short())
	}
	if len(p.Paths) > 0 {
		line += fmt.Sprintf(", touches %q", p.Paths)
	}
	return line
}

// ForgetOptions of Forget: of each rule that many are kept; all 0 and no
// Snapshots is an error of the caller.
type ForgetOptions struct {
	Last, Hourly, Daily, Weekly, Monthly, Yearly int
	Within                                       time.Duration
	Snapshots                                    []string // these, whatever the rules
	DryRun                                       bool
	Prune                                        bool
	Progress                                     func(Progress) // of the prune
}

// ForgetReport is what Forget kept and removed, or would.
type ForgetReport struct {
	Keep   []client.Snapshot `json:"keep"`
	Remove []client.Snapshot `json:"remove"`
	Prune  *PruneReport      `json:"prune,omitempty"`
}

// Forget removes snapshots that the rules do not keep. The head's and base backups of databases stay always;
// diverged ones go only when they are named.
func (o *Ops) Forget(ctx context.Context, opt ForgetOptions) (ForgetReport, error) {
	v, err := o.open(ctx)
	if err != nil {
		return ForgetReport{}, err
	}
	var report ForgetReport
	work := func(ctx context.Context, s *volume.Session) error {
		report, err = o.forget(ctx, v, s, opt)
		return err
	}
	if opt.DryRun {
		err := work(ctx, nil)
		return report, err
	}
	err = v.Claim(ctx, o.sessionOptions(o.treeOptions()), work)
	return report, err
}

func (o *Ops) forget(ctx context.Context, v *volume.Volume, s *volume.Session, opt ForgetOptions) (ForgetReport, error) {
	seen, err := v.ReadHead(ctx)
	if err != nil {
		return ForgetReport{}, err
	}
	entries, err := v.History(ctx, seen.Head)
	if err != nil {
		return ForgetReport{}, err
	}
	doomed, err := choose(entries, opt)
	if err != nil {
		return ForgetReport{}, err
	}
	report := ForgetReport{Keep: []client.Snapshot{}, Remove: []client.Snapshot{}}
	for _, e := range entries {
		if !doomed[e.ID] {
			report.Keep = append(report.Keep, snapshotOf(e))
			continue
		}
		report.Remove = append(report.Remove, snapshotOf(e))
	}
	if opt.DryRun || s == nil {
		return report, nil
	}
	for id := range doomed {
		if err := v.Repo.RemoveSnapshot(ctx, id); err != nil {
			return report, fmt.Errorf("remove snapshot %s: %w", id.Short(), err)
		}
	}
	if opt.Prune {
		p, err := o.prune(ctx, v, s, PruneOptions{Progress: opt.Progress})
		report.Prune = &p
		return report, err
	}
	return report, nil
}

// choose names the snapshots that go.
func choose(entries []volume.Entry, opt ForgetOptions) (map[format.ID]bool, error) {
	doomed := map[format.ID]bool{}
	for _, name := range opt.Snapshots {
		named := func(e volume.Entry) bool { return len(name) >= 4 && strings.HasPrefix(e.ID.String(), name) }
		i := slices.IndexFunc(entries, named)
		switch {
		case i < 0:
			return nil, fmt.Errorf("find snapshot %s: %w", name, repo.ErrSnapshotNotFound)
		case slices.ContainsFunc(entries[i+1:], named):
			return nil, fmt.Errorf("forget snapshot %s: more than one snapshot begins so", name)
		case entries[i].Head:
			return nil, fmt.Errorf("forget snapshot %s: it is the head's, the newest state of the volume", name)
		case volume.Referred(entries[i].Snapshot):
			return nil, fmt.Errorf("forget snapshot %s: it is a base backup of a database, and goes when no moment of database.backup.keep needs it", name)
		}
		doomed[entries[i].ID] = true
	}
	policy := repo.Policy{
		Last: opt.Last, Hourly: opt.Hourly, Daily: opt.Daily, Weekly: opt.Weekly,
		Monthly: opt.Monthly, Yearly: opt.Yearly, Within: opt.Within,
	}
	if policy.Empty() {
		return doomed, nil
	}
	var line []repo.SnapshotRef
	for _, e := range entries {
		if e.Committed && !volume.Referred(e.Snapshot) {
			line = append(line, e.SnapshotRef)
		}
	}
	_, remove := policy.Choose(line, time.Now())
	for _, ref := range remove {
		doomed[ref.ID] = true
	}
	for _, e := range entries {
		if e.Head {
			delete(doomed, e.ID)
		}
	}
	return doomed, nil
}

// PruneOptions of Prune.
type PruneOptions struct {
	DryRun   bool
	Progress func(Progress)
}

// PruneReport is what Prune removed, or would.
type PruneReport struct {
	PacksDeleted  int   `json:"packs_deleted"`
	PacksRepacked int   `json:"packs_repacked"`
	BytesFreed    int64 `json:"bytes_freed"`
}

// Prune removes what no snapshot needs. It claims the volume, so no agent runs,
// and locks the repository exclusively, so no restic does.
func (o *Ops) Prune(ctx context.Context, opt PruneOptions) (PruneReport, error) {
	v, err := o.open(ctx)
	if err != nil {
		return PruneReport{}, err
	}
	var report PruneReport
	err = v.Claim(ctx, o.sessionOptions(o.treeOptions()), func(ctx context.Context, s *volume.Session) error {
		report, err = o.prune(ctx, v, s, opt)
		return err
	})
	return report, err
}

func (o *Ops) prune(ctx context.Context, v *volume.Volume, s *volume.Session, opt PruneOptions) (PruneReport, error) {
	popt := repo.PruneOptions{DryRun: opt.DryRun}
	if opt.Progress != nil {
		popt.Progress = func(step repo.PruneStep, done, total int) {
			opt.Progress(Progress{Phase: "prune: " + string(step), Files: int64(done), TotalFiles: int64(total)})
		}
	}
	r, err := s.Prune(ctx, popt)
	return PruneReport{PacksDeleted: len(r.Deleted), PacksRepacked: len(r.Repacked), BytesFreed: int64(r.Unused)}, err
}
