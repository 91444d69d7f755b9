//go:build e2e

package dockertest_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"drover/internal/testkit/dockertest"
)

func sleeper(t *testing.T, r *dockertest.Run, name string, networks ...*dockertest.Network) *dockertest.Container {
	t.Helper()
	return r.Start(dockertest.Spec{
		Name: name, Image: dockertest.BaseImage(t), Networks: networks, Args: []string{"sleep", "600"},
	})
}

func TestContainerLife(t *testing.T) {
	r := dockertest.New(t)
	c := sleeper(t, r, "one")
	c.NoVolumes(t)

	var exit *dockertest.ExitError
	if _, err := c.Exec(t.Context(), "sh", "-c", "echo no >&2; exit 7"); !errors.As(err, &exit) || exit.Code != 7 || exit.Stderr != "no\n" {
		t.Errorf("exec of a failing command gives %v, want its status and its words", err)
	}
	c.MustExec("sh", "-c", "echo kept >/kept")
	c.Pause()
	if !c.State().Paused {
		t.Error("paused, yet Docker says it is not")
	}
	c.Unpause()
	c.Kill()
	if code := c.AwaitExit(10 * time.Second); code != 137 {
		t.Errorf("killed, exit status %d, want 137", code)
	}
	c.StartAgain()
	if got := c.MustExec("cat", "/kept"); got != "kept\n" {
		t.Errorf("started again in place: file says %q", got)
	}
	if ps := c.Processes(); len(ps) != 1 || ps[0] != "sleep 600" {
		t.Errorf("processes %q", ps)
	}
}

func TestDisconnectCutsOneNetworkOnly(t *testing.T) {
	r := dockertest.New(t)
	near, far := r.Network("near"), r.Network("far")
	c := sleeper(t, r, "one", near, far)
	sleeper(t, r, "two", near)
	sleeper(t, r, "three", far)
	resolves := func(name string) bool {
		_, err := c.Exec(t.Context(), "getent", "hosts", name)
		return err == nil
	}
	if !resolves("two") || !resolves("three") {
		t.Fatal("connected to both networks, but cannot name a neighbour on each")
	}
	c.Disconnect(far)
	if !resolves("two") || resolves("three") {
		t.Error("disconnect cut the wrong network")
	}
	c.Connect(far)
	dockertest.Await(t, 10*time.Second, "the way back", func(context.Context) error {
		if !resolves("three") {
			return errors.New("no neighbour")
		}
		return nil
	})
}

// tattle records failures instead of failing, to see that a check can fail.
type tattle struct {
	testing.TB
	said []string
}

func (t *tattle) Helper() {}
func (t *tattle) Errorf(format string, _ ...any) {
	t.said = append(t.said, format)
}

func TestNoVolumesSeesEachKind(t *testing.T) {
	for _, option := range []string{"--volume=/data", "--volume=/etc:/host:ro", "--mount=type=volume,dst=/data"} {
		r := dockertest.New(t)
		c := r.Start(dockertest.Spec{
			Name: "one", Image: dockertest.BaseImage(t), Args: []string{"true"}, Options: []string{option},
		})
		seen := &tattle{TB: t}
		if c.NoVolumes(seen); len(seen.said) == 0 {
			t.Errorf("%s went unseen", option)
		}
	}
}

func TestRunRemovesWhatItMade(t *testing.T) {
	var id string
	t.Run("inner", func(t *testing.T) {
		r := dockertest.New(t)
		id = sleeper(t, r, "one", r.Network("net")).ID
	})
	r := dockertest.New(t)
	other := sleeper(t, r, "other")
	if out, err := other.Exec(t.Context(), "true"); err != nil {
		t.Errorf("a run of its own was touched: %v %s", err, out)
	}
	if dockertest.Exists(t, id) {
		t.Errorf("container %s outlived its test", strings.TrimSpace(id))
	}
}
