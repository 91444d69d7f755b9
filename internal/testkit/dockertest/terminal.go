package dockertest

import (
	"io"
	"os/exec"
)

// Terminal is somebody who sits at a container that has one (--tty, --interactive).
type Terminal struct {
	c    *Container
	keys io.Writer
}

// Terminal attaches to the container, until the test ends. What is shown there is
// in the container's log too.
func (c *Container) Terminal() *Terminal {
	c.run.t.Helper()
	// docker attach asks for a terminal at its own input; script gives it one.
	cmd := exec.CommandContext(c.run.t.Context(), "script", "-qec", "docker attach "+c.ID, "/dev/null")
	keys, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		c.run.t.Fatalf("attach to %s: %v", c.Name, err)
	}
	c.run.t.Cleanup(func() {
		_ = keys.Close()
		_ = cmd.Wait() // its status is that of the container
	})
	return &Terminal{c, keys}
}

// Type types; "\r" is Enter and "\x03" Ctrl-C.
func (t *Terminal) Type(keys string) {
	t.c.run.t.Helper()
	if _, err := io.WriteString(t.keys, keys); err != nil {
		t.c.run.t.Fatalf("type at %s: %v", t.c.Name, err)
	}
}
