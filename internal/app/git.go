package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"time"

	"drover/client"
	"drover/internal/config"
	"drover/internal/coord"
	"drover/internal/event"
	"drover/internal/gitkv"
	"drover/internal/gitkv/remote"
)

// newSyncer makes what keeps keys as they are in Git; nil: there are no repositories.
func newSyncer(cfg *config.Config, co *coordinator, bus *event.Bus, log *slog.Logger) (*gitkv.Syncer, error) {
	if len(cfg.Git) == 0 {
		return nil, nil
	}
	o := gitkv.Options{
		Coord: struct {
			coord.KV
			coord.Leases
		}{co.kv, co.leases},
		Holder: cfg.ID, Log: log, Events: bus,
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Git)) {
		o.Repos = append(o.Repos, repoOf(name, cfg.Git[name]))
	}
	s, err := gitkv.New(o)
	if err != nil {
		return nil, fmt.Errorf("git: %w", err)
	}
	return s, nil
}

func repoOf(name string, c config.GitRepo) gitkv.Repo {
	r := gitkv.Repo{
		Name: name,
		Remote: remote.Options{
			URL: c.URL, Username: c.User, PasswordFile: c.PasswordFile, TokenFile: c.TokenFile, CAFile: c.CA,
			KeyFile: c.KeyFile, PassphraseFile: c.KeyPassword, KnownHostsFile: c.KnownHosts,
		},
		Branches: c.Branches, Tags: c.Tags, Mode: gitkv.Mode(c.Mode), Mountpoint: c.Mountpoint, SourceRoot: c.SourceRoot,
		OmitName: c.OmitName, OmitBranch: c.OmitBranch, Expand: c.Expand, Arrays: gitkv.Arrays(c.Arrays), OmitExtension: c.OmitExt,
		CommonProperties: c.Common, KeepSpace: c.KeepSpace, Exclude: c.Exclude, Keep: c.Keep, RemoveDeleted: c.Remove, Poll: c.Poll.Std(),
	}
	if len(r.Branches)+len(r.Tags) == 0 {
		r.Branches = []string{"main"}
	}
	for _, kind := range slices.Sorted(maps.Keys(c.Hooks)) {
		r.Hooks = append(r.Hooks, gitkv.Hook{Type: gitkv.HookType(kind), SecretFile: c.Hooks[kind].SecretFile, Path: c.Hooks[kind].Path})
	}
	return r
}

// hookTimeout bounds what a caller of a web hook may take to say what it has to.
const hookTimeout = 10 * time.Second

// listenForHooks opens the port of web hooks; nil: none is configured.
func listenForHooks(ctx context.Context, cfg *config.Config) (net.Listener, error) {
	if cfg.GitListen == "" {
		return nil, nil
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.GitListen)
	if err != nil {
		return nil, fmt.Errorf("listen for web hooks: %w", err)
	}
	return l, nil
}

// serveHooks answers web hooks until ctx ends.
func serveHooks(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) {
	server := &http.Server{Handler: h, ReadTimeout: hookTimeout, WriteTimeout: hookTimeout, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		log.Error("serve web hooks", "err", err)
	}
}

// runGit keeps the keys as they are in Git until ctx ends.
func runGit(ctx context.Context, s *gitkv.Syncer, hooks net.Listener, log *slog.Logger) {
	if s == nil {
		return
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if hooks != nil {
			serveHooks(ctx, hooks, s.Hook(), log)
		}
	}()
	if err := s.Run(ctx); err != nil && ctx.Err() == nil {
		log.Error("keys are not kept as they are in Git any more", "err", err)
	}
	<-served
}

// gitState tells of all repositories; nil: there are none.
func gitState(s *gitkv.Syncer) *client.Git {
	if s == nil {
		return nil
	}
	st := s.Status()
	out := &client.Git{Writer: st.Writer, Error: st.Error}
	for _, r := range st.Repositories {
		out.Repositories = append(out.Repositories, client.GitRepository{Name: r.Name, Looked: r.Looked, Error: r.Error, Targets: gitTargets(r.Targets)})
	}
	return out
}

func gitTargets(list []gitkv.Target) []client.GitTarget {
	var out []client.GitTarget
	for _, t := range list {
		out = append(out, client.GitTarget{
			Repository: t.Repo, Ref: t.Ref, Prefix: t.Prefix, Mode: string(t.Mode), Commit: t.Commit, Tree: t.Tree, Changed: t.Changed,
			Written: t.Written, Deleted: t.Deleted, Drift: t.Drift, Missing: t.Missing, Notes: t.Notes, Error: t.Error,
		})
	}
	return out
}

// GitSync looks at all repositories once.
func (o *Ops) GitSync(ctx context.Context) ([]client.GitTarget, error) {
	s, co, err := o.syncer(ctx)
	if err != nil {
		return nil, err
	}
	defer co.close()
	report, err := s.Once(ctx)
	return gitTargets(report.Targets), err
}

// GitFollow keeps the keys as they are in Git until ctx ends, with web hooks.
func (o *Ops) GitFollow(ctx context.Context) error {
	s, co, err := o.syncer(ctx)
	if err != nil {
		return err
	}
	defer co.close()
	hooks, err := listenForHooks(ctx, o.cfg)
	if err != nil {
		return err
	}
	runGit(ctx, s, hooks, o.log)
	return nil
}

func (o *Ops) syncer(ctx context.Context) (*gitkv.Syncer, *coordinator, error) {
	if len(o.cfg.Git) == 0 {
		return nil, nil, &config.Error{What: "no repository is configured", Hint: "add git: {NAME: {url: URL}} to the configuration file"}
	}
	co, err := openCoordinator(ctx, o.cfg, o.log)
	if err != nil {
		return nil, nil, err
	}
	s, err := newSyncer(o.cfg, co, nil, o.log)
	if err != nil {
		co.close()
		return nil, nil, err
	}
	return s, co, nil
}
