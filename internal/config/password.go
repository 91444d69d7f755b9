package config

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// ReadPassword gets the password in the way that is configured. It is never empty.
func (c *Config) ReadPassword(ctx context.Context) (Secret, error) {
	switch s := c.Store; {
	case s.Password.Set():
		return s.Password, nil
	case s.PasswordFile != "":
		return c.passwordFromFile(s.PasswordFile)
	case len(s.PasswordCommand) > 0:
		return c.passwordFromCommand(ctx, s.PasswordCommand)
	default:
		return Secret{}, c.CheckStore()
	}
}

func (c *Config) passwordFromFile(name string) (Secret, error) {
	const at = "store.password_file"
	data, err := readBounded(name)
	if err != nil {
		return Secret{}, c.origin.at(at, "cannot read password file "+reason(err), "")
	}
	password := strings.TrimRight(string(data), "\r\n")
	if password == "" {
		return Secret{}, c.origin.at(at, fmt.Sprintf("password file %s is empty", name), "")
	}
	return NewSecret(password), nil
}

func (c *Config) passwordFromCommand(ctx context.Context, command Command) (Secret, error) {
	const at = "store.password_command"
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stderr = &stderr
	cmd.WaitDelay = time.Second // for what it started itself and left
	out, err := cmd.Output()
	if err != nil {
		if ctx.Err() != nil {
			return Secret{}, fmt.Errorf("run password command: %w", ctx.Err())
		}
		said, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n")
		return Secret{}, c.origin.at(at, fmt.Sprintf("password command ended with %s", err), said)
	}
	password := strings.TrimRight(string(out), "\r\n")
	if password == "" {
		return Secret{}, c.origin.at(at, "password command printed nothing", "")
	}
	return NewSecret(password), nil
}
