package demo

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// git is the client's git, which reads no configuration of the machine or the user.
type git struct{ home string }

func gitEnv(home string) []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Demo", "GIT_AUTHOR_EMAIL=demo@localhost", "GIT_COMMITTER_NAME=Demo", "GIT_COMMITTER_EMAIL=demo@localhost",
	}
}

// output runs git and returns what it printed; its error has what git said.
func (g git) output(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = g.home
	cmd.Env = gitEnv(g.home)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, strings.Join(strings.Fields(said.String()), " "))
	}
	return string(out), nil
}

func (g git) run(ctx context.Context, args ...string) error {
	_, err := g.output(ctx, args...)
	return err
}

// commit makes the n-th commit in a clone and returns its id.
func (g git) commit(ctx context.Context, clone string, n int) (string, error) {
	name := fmt.Sprintf("change-%d.txt", n)
	text := fmt.Sprintf("Change %d, which must not be lost.\n", n)
	if err := os.WriteFile(filepath.Join(clone, name), []byte(text), 0o644); err != nil {
		return "", fmt.Errorf("write change: %w", err)
	}
	if err := g.run(ctx, "-C", clone, "add", name); err != nil {
		return "", err
	}
	if err := g.run(ctx, "-C", clone, "commit", "--quiet", "-m", fmt.Sprintf("Change %d", n)); err != nil {
		return "", err
	}
	id, err := g.output(ctx, "-C", clone, "rev-parse", "HEAD")
	return strings.TrimSpace(id), err
}
