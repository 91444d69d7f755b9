package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"drover/internal/config"
	"drover/internal/coord"
	"drover/internal/repo/fstest"
	"drover/internal/roll"
)

const rendered = `
id: one
store: {url: "file://%[1]s/bucket"}
state: [/srv/none]
templates:
  conf: {content: "level=[[ key \"shop/level\" ]]\n", destination: %[1]s/conf, on_change: {reload: "touch %[1]s/reloaded"}}
  pass: {content: "[[ with secret \"env:CANARY\" ]][[ .Data.value ]][[ end ]]", destination: %[1]s/pass, roll: {limit: 1, name: web}}
`

// commands are the operations of a configuration, and its coordinator.
func commands(t *testing.T, text string) (*Ops, *coordinator) {
	t.Helper()
	file := t.TempDir() + "/drover.yaml"
	fstest.Write(t, file, text)
	cfg, err := config.Load(config.Sources{File: file, Env: func(string) (string, bool) { return "", false }})
	fstest.Must(t, err)
	log := slog.New(slog.DiscardHandler)
	co, err := openCoordinator(t.Context(), cfg, log)
	fstest.Must(t, err)
	t.Cleanup(co.close)
	return NewOps(cfg, log), co
}

// TestRenderOnce: what is there is rendered, what is missing is named, a dry run writes
// nothing, and nothing follows.
func TestRenderOnce(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CANARY", "tweet")
	fstest.Must(t, os.Mkdir(dir+"/bucket", 0o755))
	o, co := commands(t, fmt.Sprintf(rendered, dir))
	short, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	list, err := o.Render(short, RenderOptions{DryRun: true})
	if err == nil || !strings.Contains(err.Error(), "render conf: missing: key(shop/level)") || len(list) != 1 || !list[0].Secret || !list[0].New {
		t.Errorf("%+v, %v", list, err)
	}
	_, err = co.kv.Put(t.Context(), "shop/level", []byte("3"))
	fstest.Must(t, err)
	list, err = o.Render(t.Context(), RenderOptions{Names: []string{"conf", "conf"}, DryRun: true})
	if err != nil || len(list) != 1 || !list[0].Changed || list[0].Secret || list[0].Text != "level=3\n" {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := os.Stat(dir + "/conf"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a dry run has written: %v", err)
	}
	for _, changed := range []bool{true, false} {
		if list, err = o.Render(t.Context(), RenderOptions{Names: []string{"conf"}}); err != nil || len(list) != 1 || list[0].Changed != changed {
			t.Errorf("%+v, %v", list, err)
		}
	}
	if got, err := os.ReadFile(dir + "/conf"); err != nil || string(got) != "level=3\n" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := os.Stat(dir + "/reloaded"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the command was run: %v", err)
	}
	if _, err := o.Render(t.Context(), RenderOptions{Names: []string{"pass"}}); err == nil || strings.Contains(err.Error(), "tweet") {
		t.Errorf("a secret on a disk: %v", err)
	}
	var bad *config.Error
	if _, err := o.Render(t.Context(), RenderOptions{Names: []string{"none"}}); !errors.As(err, &bad) || !strings.Contains(err.Error(), "conf, pass") {
		t.Errorf("%v", err)
	}
	o, _ = commands(t, strings.Replace(fmt.Sprintf(rendered, dir), "[[ key", "[[ nope", 1))
	if _, err := o.Render(t.Context(), RenderOptions{}); !errors.As(err, &bad) || !strings.Contains(err.Error(), "nope") {
		t.Errorf("%v", err)
	}
}

func TestResumeRoll(t *testing.T) {
	dir := t.TempDir()
	fstest.Must(t, os.Mkdir(dir+"/bucket", 0o755))
	o, co := commands(t, fmt.Sprintf(rendered, dir))
	sick := roll.New(turns{co.kv, co.leases}, roll.Options{
		Prefix: "drover/data", Name: "web", Instance: "i2", Limit: 1, TTL: 5 * time.Second, Log: slog.New(slog.DiscardHandler),
		Healthy: func(context.Context) error { return errors.New("its checks fail") },
	})
	if err := sick.Do(t.Context(), "v1", func(context.Context) error { return nil }); err == nil {
		t.Fatal("the roll goes on")
	}
	for _, want := range []string{"i2: not healthy after the change: its checks fail", ""} {
		if why, err := o.ResumeRoll(t.Context(), "web"); err != nil || why != want {
			t.Errorf("%q, %v; want %q", why, err, want)
		}
	}
	if _, err := co.kv.Get(t.Context(), "drover/data/rolls/web/stop"); !errors.Is(err, coord.ErrNotFound) {
		t.Errorf("%v", err)
	}
	var bad *config.Error
	if _, err := o.ResumeRoll(t.Context(), "pass"); !errors.As(err, &bad) || !strings.Contains(err.Error(), "there is web") {
		t.Errorf("%v", err)
	}
}
