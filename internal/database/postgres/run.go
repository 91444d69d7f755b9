package postgres

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// binaries is where PostgreSQL's programs for the files are. Debian keeps those of each version apart.
func (d *Driver) binaries() (string, error) {
	if d.o.Bin != "" {
		return d.o.Bin, nil
	}
	version := "*"
	if text, err := os.ReadFile(filepath.Join(d.o.Data, "PG_VERSION")); err == nil {
		version = strings.TrimSpace(string(text))
	}
	found, err := filepath.Glob("/usr/lib/postgresql/" + version + "/bin/postgres")
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("find PostgreSQL's programs: none for version %s under /usr/lib/postgresql", version)
	}
	newest := slices.MaxFunc(found, func(a, b string) int { return majorOf(a) - majorOf(b) })
	return filepath.Dir(newest), nil
}

func majorOf(program string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(program))))
	return n
}

// run runs one of PostgreSQL's programs as the server's user and returns what it prints. It
// is killed, with its children, when ctx ends. Errors carry the last that it said.
func (d *Driver) run(ctx context.Context, stdin string, env []string, name string, args ...string) (string, error) {
	bin, err := d.binaries()
	if err != nil {
		return "", err
	}
	argv := d.argv(filepath.Join(bin, name), args...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = "/"
	cmd.Env = append([]string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + d.o.Run, "LC_ALL=C", "TZ=UTC", "PGCONNECT_TIMEOUT=10"}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: d.o.User, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	said := tail{most: 4 << 10}
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return "", fmt.Errorf("run %s: %w: %s", name, err, strings.TrimSpace(string(said.text)))
	}
	return out.String(), nil
}

// argv is a command line that has a program be as nice as it is to be.
func (d *Driver) argv(program string, args ...string) []string {
	argv := append([]string{program}, args...)
	if nice, err := exec.LookPath("nice"); err == nil && d.o.Nice > 0 {
		return append([]string{nice, "-n", strconv.Itoa(d.o.Nice)}, argv...)
	}
	return argv
}

// tail keeps the end of what is written to it.
type tail struct {
	text []byte
	most int
}

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	if extra := len(t.text) - t.most; extra > 0 {
		t.text = append(t.text[:0], t.text[extra:]...)
	}
	return len(p), nil
}
