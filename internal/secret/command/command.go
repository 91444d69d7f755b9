// Package command is the source of secrets that a program prints: pass, sops, op, a script.
//
// The program is run with the path as its last argument and prints one secret: an object
// in JSON, which becomes the Data, or anything, which is under "value". It is run again
// every so often. Nothing of what it prints is in an error, not even what it says is wrong:
// only how it ended. Its own secrets, and where it gets them from, are left to it.
package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"time"

	"drover/internal/secret"
	"drover/internal/secret/polling"
)

// Options of a source.
type Options struct {
	Command []string      // with its first arguments
	Env     []string      // the whole environment
	Every   time.Duration // how often it is run again; 0: 5 minutes
	Limit   time.Duration // how long it may take; 0: 30 s
	JSON    bool          // it prints an object
}

const (
	largest = 16 << 20 // bytes of output
	// holderDelay is how long to wait for the end of the output when the program has
	// ended and a child of it still holds it.
	holderDelay = time.Second
)

// New returns a source. It runs nothing.
func New(o Options) (secret.Source, error) {
	if len(o.Command) == 0 || o.Command[0] == "" {
		return nil, errors.New("secrets of a command: there is no command")
	}
	if o.Every <= 0 {
		o.Every = 5 * time.Minute
	}
	if o.Limit <= 0 {
		o.Limit = 30 * time.Second
	}
	return polling.New(o.read, o.Every), nil
}

func (o *Options) read(ctx context.Context, r secret.Request) (*secret.Secret, error) {
	if r.List || r.Params != nil {
		return nil, fmt.Errorf("run %s: a command is neither listed nor asked with parameters", o.Command[0])
	}
	ctx, cancel := context.WithTimeout(ctx, o.Limit)
	defer cancel()
	args := o.Command[1:len(o.Command):len(o.Command)]
	if r.Path != "" {
		args = append(args, r.Path)
	}
	out, err := o.run(exec.CommandContext(ctx, o.Command[0], args...))
	if err != nil {
		return nil, fmt.Errorf("run %s for %q: %w: %w", o.Command[0], r.Path, secret.ErrUnavailable, err)
	}
	data, err := parse(out, o.JSON)
	if err != nil {
		return nil, fmt.Errorf("run %s for %q: %w", o.Command[0], r.Path, err)
	}
	return &secret.Secret{Data: data}, nil
}

// run returns what is printed. The program is in a group of its own, which is killed when
// its time is over, and in the agent's session.
func (o *Options) run(cmd *exec.Cmd) ([]byte, error) {
	out := &bounded{}
	cmd.Env = append([]string{}, o.Env...)
	cmd.Stdout, cmd.Stderr = out, io.Discard
	cmd.WaitDelay = holderDelay
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
			return err // it has ended: the number may be another's by now
		}
		return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	if err := cmd.Run(); err != nil {
		return nil, err
	}
	if out.over {
		return nil, fmt.Errorf("it printed more than %d bytes", largest)
	}
	return out.kept, nil
}

// parse reads an output. Errors have nothing of it.
func parse(out []byte, object bool) (map[string]any, error) {
	if !object {
		text, _ := bytes.CutSuffix(out, []byte("\n"))
		return map[string]any{"value": string(text)}, nil
	}
	d := json.NewDecoder(bytes.NewReader(out))
	d.UseNumber()
	var data map[string]any
	if err := d.Decode(&data); err != nil || data == nil {
		return nil, errors.New("it did not print an object in JSON")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("it printed more than an object in JSON")
	}
	return data, nil
}

// bounded keeps up to largest bytes, and lets the rest go by.
type bounded struct {
	kept []byte
	over bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if len(b.kept)+len(p) > largest {
		b.over = true
		return len(p), nil
	}
	b.kept = append(b.kept, p...)
	return len(p), nil
}
