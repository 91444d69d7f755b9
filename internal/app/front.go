package app

import (
	"context"
	"io"
	"log/slog"

	"drover/internal/config"
	"drover/internal/initproc"
	"drover/internal/objstore/probe"
	"drover/internal/telemetry"
)

// What the command line needs of the parts behind the composition root, so that it
// knows no other one.
type (
	Config      = config.Config
	ConfigError = config.Error
	Sources     = config.Sources
	Setting     = config.Setting
	Group       = config.Group
	Duration    = config.Duration
	Secret      = config.Secret
	ProbeReport = probe.Report
)

// The groups of settings.
const (
	GroupAgent = config.GroupAgent
	GroupStore = config.GroupStore
	GroupClaim = config.GroupClaim
	GroupTree  = config.GroupTree
	GroupTest  = config.GroupTest
	GroupRun   = config.GroupRun
)

// LoadConfig reads and checks a configuration.
func LoadConfig(src Sources) (*Config, error) { return config.Load(src) }

// RenderedConfig is the configuration file as it is read, passwords hidden.
func RenderedConfig(src Sources) (string, error) { return config.Rendered(src) }

// ConfigProblems is what keeps an agent from running with a configuration.
func ConfigProblems(src Sources) []error { return config.Problems(src) }

// ConfigSchema is the JSON Schema of the configuration file.
func ConfigSchema() string { return config.Schema() }

// Settings lists the flags and variables of the configuration.
func Settings() []Setting { return config.Settings() }

// NewLogger makes the log that cfg asks for. Quiet: without a level in the
// configuration, only warnings and errors.
func NewLogger(w io.Writer, cfg *Config, quiet bool) *slog.Logger {
	level := cfg.Log.Level
	if quiet && !cfg.Given("log.level") {
		level = config.LogWarn
	}
	return telemetry.NewLogger(w, level.Slog(), cfg.Log.Format == config.LogJSON)
}

// Supervised runs work in the worker process and everything else in the shim above
// it: the first call, in the first process, becomes the shim and starts this program
// again; there the same call does the work. It returns the status to exit with.
func Supervised(ctx context.Context, work func(ctx context.Context, shimGone <-chan struct{}) (int, error)) (int, error) {
	if !initproc.IsWorker() {
		return initproc.Shim{}.Run(), nil
	}
	worker, err := initproc.Attach()
	if err != nil {
		return 1, err
	}
	status, err := work(ctx, worker.ShimGone())
	if closeErr := worker.Close(); err == nil && closeErr != nil {
		return status, closeErr
	}
	return status, err
}
