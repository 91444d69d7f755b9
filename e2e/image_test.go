//go:build e2e

package e2e

import (
	"context"
	"testing"
	"time"

	"drover/internal/testkit/dockertest"
)

// TestImageIsTheBinary: the image that the Dockerfile makes from source holds
// the static binary and runs where there is nothing else.
func TestImageIsTheBinary(t *testing.T) {
	run := dockertest.New(t)
	c := run.Start(dockertest.Spec{Name: "drover", Image: droverImage(t), Args: []string{"version"}})
	if code := c.AwaitExit(soon); code != 0 {
		t.Errorf("drover version: exit %d: %s", code, c.Logs())
	}
	dockertest.Await(t, 5*time.Second, "the version", func(context.Context) error { return contains(c.Logs(), "e2e") })
	c.NoVolumes(t)
	const most = 40 << 20
	if size := dockertest.ImageSize(t, droverImage(t)); size > most {
		t.Errorf("the image has %d bytes, more than %d", size, most)
	}
}
