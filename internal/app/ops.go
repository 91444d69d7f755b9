package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"drover/client"
	"drover/internal/config"
	"drover/internal/objstore"
	"drover/internal/objstore/probe"
	"drover/internal/objstore/storeurl"
	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/volume"
	"drover/internal/volume/protocol"
)

// Progress is how far a long operation is; a total of 0 is not known.
type Progress struct {
	Phase             string
	Files, TotalFiles int64
	Bytes, TotalBytes int64
}

// Ops are the commands that work on a store without an agent. Nothing is opened
// before the first call.
type Ops struct {
	cfg *config.Config
	log *slog.Logger
	st  objstore.Store
	v   *volume.Volume
}

// NewOps prepares the operations of cfg.
func NewOps(cfg *config.Config, log *slog.Logger) *Ops { return &Ops{cfg: cfg, log: log} }

// Close gives back what was opened.
func (o *Ops) Close() error {
	if c, ok := o.st.(objstore.Closer); ok {
		return c.Close()
	}
	return nil
}

// commandAttempts is how often a command tries a call before it gives up.
const commandAttempts = 6

func (o *Ops) store(ctx context.Context) (objstore.Store, error) {
	if o.st == nil {
		st, err := openStore(ctx, o.cfg, nil, commandAttempts, o.log)
		if err != nil {
			return nil, err
		}
		o.st = st
	}
	return o.st, nil
}

func (o *Ops) open(ctx context.Context) (*volume.Volume, error) {
	if o.v != nil {
		return o.v, nil
	}
	st, err := o.store(ctx)
	if err != nil {
		return nil, err
	}
	o.v, _, err = openVolume(ctx, st, o.cfg, false, o.log)
	return o.v, err
}

// Init creates the volume; created is false if it is there already and opens
// with this password.
func (o *Ops) Init(ctx context.Context) (created bool, err error) {
	st, err := o.store(ctx)
	if err != nil {
		return false, err
	}
	if _, err := probe.Check(ctx, st, probe.Start); err != nil {
		return false, err
	}
	_, created, err = openVolume(ctx, st, o.cfg, true, o.log)
	return created, err
}

// SnapshotOptions of Snapshot.
type SnapshotOptions struct {
	Paths, Exclude, Tags      []string
	ReplacePaths, AllowShrink bool
	SkipUnreadable            bool
	Progress                  func(Progress)
}

// Snapshot claims the volume, commits the paths, and releases it.
// Errors: ErrHeld, ErrIncomplete, ErrPaths, ErrShrunk.
func (o *Ops) Snapshot(ctx context.Context, opt SnapshotOptions) (client.Backup, error) {
	v, err := o.open(ctx)
	if err != nil {
		return client.Backup{}, err
	}
	tree := o.treeOptions()
	if tree.Paths, err = absolute(opt.Paths); err != nil {
		return client.Backup{}, err
	}
	tree.Exclude = append(tree.Exclude, opt.Exclude...)
	tree.Tags = opt.Tags
	tree.ReplacePaths = opt.ReplacePaths
	tree.AllowShrink = tree.AllowShrink || opt.AllowShrink
	tree.SkipUnreadable = tree.SkipUnreadable || opt.SkipUnreadable
	tree.Progress = counted("backup", opt.Progress, nil)
	var result client.Backup
	err = v.Claim(ctx, o.sessionOptions(tree), func(ctx context.Context, s *volume.Session) error {
		if status, _ := s.Status(); !opt.ReplacePaths && differ(status.Head, tree.Paths) {
			return fmt.Errorf("%w: the newest snapshot holds %s, not %s: name the same paths, or say --replace-paths",
				ErrPaths, strings.Join(status.Head.Paths, ", "), strings.Join(tree.Paths, ", "))
		}
		start := time.Now()
		out, err := s.Backup(ctx)
		result = backupOf(out, time.Since(start), err)
		return err
	})
	return result, err
}

// differ reports whether a snapshot of paths would be of other paths than the head's.
func differ(h protocol.Head, paths []string) bool {
	return h.Snapshot != "" && !slices.Equal(slices.Sorted(slices.Values(h.Paths)), paths)
}

// absolute cleans paths, sorts them, and refuses what is not there.
func absolute(paths []string) ([]string, error) {
	var all []string
	for _, p := range paths {
		a, err := filepath.Abs(p)
		if err != nil {
			return nil, fmt.Errorf("find %s: %w", p, err)
		}
		if _, err := os.Lstat(a); err != nil {
			return nil, fmt.Errorf("find %s: %w", p, err)
		}
		if !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	slices.Sort(all)
	return all, nil
}

func (o *Ops) treeOptions() volume.TreeOptions { return treeOptions(o.cfg) }

func (o *Ops) sessionOptions(tree volume.TreeOptions) volume.Options {
	return volume.Options{
		Protocol: protocol.Config{
			Volume: o.cfg.Volume, TTL: o.cfg.Lease.TTL.Std(),
			Self: protocol.Holder{ID: o.cfg.ID, Address: hostname()},
		},
		Tree: tree, Log: o.log,
	}
}

// held does work that takes its time while a lock of ours keeps a prune by anybody
// out. A store that lets us only read is read without.
func (o *Ops) held(ctx context.Context, v *volume.Volume, work func(context.Context) error) error {
	lock, err := v.Repo.Lock(ctx, repo.LockOptions{})
	if errors.Is(err, objstore.ErrUnauthorised) {
		o.log.Warn("no lock: these credentials may only read; a prune meanwhile would disturb", "err", err)
		return work(ctx)
	}
	if err != nil {
		return err
	}
	stop := lock.KeepFresh(ctx)
	err = work(ctx)
	stop()
	if unlockErr := lock.Unlock(ctx); unlockErr != nil {
		o.log.Warn("remove lock", "err", unlockErr)
	}
	return err
}

// find resolves "latest" (the head's), an id or a prefix of one.
func (o *Ops) find(ctx context.Context, v *volume.Volume, name string) (format.ID, *format.Snapshot, error) {
	if name != "" && name != "latest" {
		return v.Repo.FindSnapshot(ctx, name)
	}
	return v.Latest(ctx)
}

// Snapshots lists the committed snapshots, oldest first; with all the others too.
func (o *Ops) Snapshots(ctx context.Context, all bool) ([]client.Snapshot, error) {
	v, err := o.open(ctx)
	if err != nil {
		return nil, err
	}
	seen, err := v.ReadHead(ctx)
	if err != nil {
		return nil, err
	}
	entries, err := v.History(ctx, seen.Head)
	if err != nil {
		return nil, err
	}
	list := []client.Snapshot{}
	for _, e := range entries {
		if all || e.Committed {
			list = append(list, snapshotOf(e))
		}
	}
	return list, nil
}

func snapshotOf(e volume.Entry) client.Snapshot {
	s := client.Snapshot{
		ID: e.ID.String(), Time: e.Time, Hostname: e.Hostname, Paths: e.Paths, Tags: e.Tags,
		Epoch: e.Epoch, Seq: e.Seq, Committed: e.Committed, Head: e.Head, Diverged: e.Diverged,
	}
	if e.Snapshot.Tree != nil {
		s.Tree = e.Snapshot.Tree.String()
	}
	s.Files, s.Bytes = e.Totals()
	return s
}

// headStatus fills in what the head says.
func headStatus(s *client.Status, h protocol.Head) {
	s.Holder, s.State = h.Holder.ID, string(h.State)
	s.Epoch, s.Seq, s.Snapshot, s.Tree, s.Paths = h.Epoch, h.Seq, h.Snapshot, h.Tree, h.Paths
	s.TTL = time.Duration(h.TTL).Seconds()
	if !h.Time.IsZero() && h.Seq > 0 {
		t := h.Time
		s.Commit = &t
	}
}

// Probe checks that the store does what Drover needs; see probe.Report.
func (o *Ops) Probe(ctx context.Context) (probe.Report, error) {
	st, err := o.store(ctx)
	if err != nil {
		return probe.Report{}, err
	}
	level := probe.Full
	if o.cfg.Lease.Head == config.HeadCoordinator {
		level = probe.Start // the rest, of megabytes, is no matter of a coordinator
	}
	return probe.Check(ctx, st, level)
}

// EnvVar is a variable of an environment.
type EnvVar struct{ Name, Value string }

// ResticEnv says how stock restic opens the volume. No secret is in it: the
// password is named by where it comes from.
func (o *Ops) ResticEnv(ctx context.Context) ([]EnvVar, error) {
	repository, env, err := storeurl.Restic(o.cfg.Store.URL, o.cfg.Volume)
	if err != nil {
		return nil, err
	}
	list := []EnvVar{{"RESTIC_REPOSITORY", repository}}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, EnvVar{name, env[name]})
	}
	switch s := o.cfg.Store; {
	case s.PasswordFile != "":
		list = append(list, EnvVar{"RESTIC_PASSWORD_FILE", s.PasswordFile})
	case len(s.PasswordCommand) > 0:
		list = append(list, EnvVar{"RESTIC_PASSWORD_COMMAND", strings.Join(s.PasswordCommand, " ")})
	default:
		list = append(list, EnvVar{"RESTIC_PASSWORD_COMMAND", "printenv DROVER_PASSWORD"})
	}
	return list, nil
}

// counted sums up what is done file by file, out of all of a snapshot (nil: how much
// there is to do is not known). It is nil if nobody wants to know.
func counted(phase string, tell func(Progress), of *format.Snapshot) func(string, uint64) {
	if tell == nil {
		return nil
	}
	totalFiles, totalBytes := of.Totals()
	var files, bytes atomic.Int64
	return func(_ string, n uint64) {
		tell(Progress{
			Phase: phase, Files: files.Add(1), TotalFiles: totalFiles,
			Bytes: bytes.Add(int64(n)), TotalBytes: totalBytes,
		})
	}
}
