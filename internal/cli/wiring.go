package cli

import (
	"context"
	"io"
	"log/slog"
	"time"

	"drover/client"
	"drover/internal/app"
)

// operations is what commands do to a store without an agent: *app.Ops.
type operations interface {
	Init(ctx context.Context) (created bool, err error)
	Snapshot(ctx context.Context, opt app.SnapshotOptions) (client.Backup, error)
	Restore(ctx context.Context, opt app.RestoreOptions) (app.RestoreResult, error)
	RestoreDatabase(ctx context.Context, opt app.RestoreDatabaseOptions) (app.RestoreDatabaseResult, error)
	Snapshots(ctx context.Context, all bool) ([]client.Snapshot, error)
	SnapshotAt(ctx context.Context, at time.Time) (client.Snapshot, error)
	Diff(ctx context.Context, from, to string, fn func(app.Change) error) (app.DiffResult, error)
	Rollback(ctx context.Context, opt app.RollbackOptions) (app.RollbackResult, error)
	Export(ctx context.Context, opt app.ExportOptions) (app.ExportResult, error)
	Clone(ctx context.Context, opt app.CloneOptions) (app.CloneResult, error)
	Copy(ctx context.Context, opt app.CopyOptions) (app.CopyResult, error)
	Keys(ctx context.Context) ([]app.Key, error)
	AddKey(ctx context.Context, password app.Secret) (id string, err error)
	ReplaceKey(ctx context.Context, password app.Secret) (id string, err error)
	RemoveKey(ctx context.Context, name string) (id string, err error)
	Ls(ctx context.Context, snapshot, path string, fn func(app.Entry) error) error
	Verify(ctx context.Context, opt app.VerifyOptions) (app.VerifyReport, error)
	RestoreTest(ctx context.Context, opt app.RestoreTestOptions) (client.RestoreTest, error)
	Forget(ctx context.Context, opt app.ForgetOptions) (app.ForgetReport, error)
	Prune(ctx context.Context, opt app.PruneOptions) (app.PruneReport, error)
	Probe(ctx context.Context) (app.ProbeReport, error)
	Render(ctx context.Context, opt app.RenderOptions) ([]app.Rendered, error)
	ResumeRoll(ctx context.Context, name string) (why string, err error)
	ResticEnv(ctx context.Context) ([]app.EnvVar, error)
	Status(ctx context.Context) (client.Status, error)
	Volumes(ctx context.Context) ([]string, error)
	LongestBackup(ctx context.Context) (time.Duration, error)
	GitSync(ctx context.Context) ([]client.GitTarget, error)
	GitFollow(ctx context.Context) error
	Close() error
}

// opener makes operations; it opens nothing yet.
type opener func(cfg *app.Config, log *slog.Logger) operations

// runner is the agent's life; it returns the status to exit with. load is called in
// the worker alone.
type runner func(ctx context.Context, load func() (*app.Config, error), out, err io.Writer) (int, error)

func openOps(cfg *app.Config, log *slog.Logger) operations { return app.NewOps(cfg, log) }

func runAgent(ctx context.Context, load func() (*app.Config, error), out, err io.Writer) (int, error) {
	return app.Supervised(ctx, func(ctx context.Context, shimGone <-chan struct{}) (int, error) {
		cfg, bad := load()
		if bad != nil {
			return exitUsage, bad
		}
		return app.Run(ctx, cfg, app.RunOptions{Stdout: out, Stderr: err, Log: app.NewLogger(err, cfg, false), Load: load, ShimGone: shimGone})
	})
}
