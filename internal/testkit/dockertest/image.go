package dockertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/testkit/gotool"
)

const (
	// release is the Debian that the project's images are made from.
	release = "trixie"

	// buildTimeout bounds one image build, or the making of the base image.
	buildTimeout = 15 * time.Minute

	// imageLabel marks images that tests have built, so that those which a later
	// build replaces can be told from the user's.
	imageLabel = "drover.test.image"
)

// Build says which image to build.
type Build struct {
	// Tag is the image's name.
	Tag string
	// Context is the folder that the build sees.
	Context string
	// Dockerfile is the text of the Dockerfile; empty for the one in Context.
	Dockerfile string
	// Args are the build arguments.
	Args map[string]string
}

// Build builds an image and returns its name. Builds of one machine wait for
// one another; the engine's layer cache makes a repeated one quick.
func (b Build) Build(t testing.TB) string {
	t.Helper()
	defer lock(t, "build")()
	args := []string{"build", "--label", imageLabel + "=1", "--tag", b.Tag}
	for k, v := range b.Args {
		args = append(args, "--build-arg", k+"="+v)
	}
	if b.Dockerfile != "" {
		args = append(args, "--file", "-")
	}
	ctx, cancel := context.WithTimeout(t.Context(), buildTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", append(args, b.Context)...)
	// The classic builder is in every engine; the other one is a plug-in.
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=0")
	cmd.Stdin = strings.NewReader(b.Dockerfile)
	out, err := run(ctx, cmd)
	if err != nil {
		t.Fatalf("build image %s: %v\n%s", b.Tag, err, out)
	}
	// What this build has replaced, of tests only, or the disk fills up.
	must(t, "image", "prune", "--force", "--filter", "label="+imageLabel)
	return b.Tag
}

// BaseImage makes sure that debian:trixie-slim is there and returns its name.
func BaseImage(t testing.TB) string {
	t.Helper()
	return Debian(t, release)
}

// Debian makes sure that an image of a Debian release, debian:SUITE-slim, is there and
// returns its name. If the engine does not have it, it is made from Debian packages,
// through the machine's own package mirror (a minute or more, once: the result is
// kept in the user's cache directory).
func Debian(t testing.TB, suite string) string {
	t.Helper()
	name := "debian:" + suite + "-slim"
	defer lock(t, "base")()
	if have(t, name) {
		return name
	}
	tarball := filepath.Join(cacheDir(t), fmt.Sprintf("debian-%s-minbase-%s.tar.gz", suite, runtime.GOARCH))
	if _, err := os.Stat(tarball); errors.Is(err, os.ErrNotExist) {
		bootstrap(t, suite, tarball)
	} else if err != nil {
		t.Fatal(err)
	}
	must(t, "import", "--change", `CMD ["bash"]`, tarball, name)
	return name
}

// bootstrap writes the root file system of a minimal Debian to a tar archive.
func bootstrap(t testing.TB, suite, tarball string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), buildTimeout)
	defer cancel()
	// Not the test's own folder: device files and programs may be forbidden there.
	dir, err := os.MkdirTemp("/var/tmp", "drover-base-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove what the base image was made from: %v", err)
		}
	}()
	root := filepath.Join(dir, "root")
	args := []string{"--variant=minbase", suite, root}
	if m := mirror(ctx); m != "" {
		args = append(args, m)
	}
	t.Logf("making the base image with debootstrap %s (a minute or more, once)", strings.Join(args, " "))
	part := tarball + ".part"
	for _, cmd := range []*exec.Cmd{
		exec.CommandContext(ctx, "debootstrap", args...),
		// A mirror that stands still has lists that are no longer valid.
		exec.CommandContext(ctx, "sh", "-c", `echo 'Acquire::Check-Valid-Until "false";' >"$1"`, "sh", filepath.Join(root, "etc/apt/apt.conf.d/90mirror")),
		exec.CommandContext(ctx, "tar", "-C", root, "--numeric-owner",
			"--exclude=./var/lib/apt/lists/*", "--exclude=./var/cache/apt/archives/*.deb", "-czf", part, "."),
	} {
		if out, err := run(ctx, cmd); err != nil {
			t.Fatalf("make base image: %v\n%s", err, out)
		}
	}
	if err := os.Rename(part, tarball); err != nil {
		t.Fatal(err)
	}
}

// mirror returns the package mirror that this machine uses for Debian, or ""
// if it does not say, for debootstrap's own choice.
func mirror(ctx context.Context) string {
	out, err := run(ctx, exec.CommandContext(ctx, "apt-get", "indextargets",
		"--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian"))
	if err != nil {
		return ""
	}
	for _, uri := range strings.Fields(out) {
		if strings.HasPrefix(uri, "http") {
			return uri
		}
	}
	return ""
}

// have tells whether the engine has an image.
func have(t testing.TB, image string) bool {
	t.Helper()
	return strings.TrimSpace(must(t, "images", "-q", image)) != ""
}

// must runs a docker command that the test cannot go on without.
func must(t testing.TB, args ...string) string {
	t.Helper()
	out, err := docker(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// cacheDir is where tarballs and locks are kept between runs.
func cacheDir(t testing.TB) string {
	t.Helper()
	base, err := gotool.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(base, "images")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// lock keeps other test processes of this machine from doing the same work at
// the same time. The returned function ends it, as the end of the process does.
func lock(t testing.TB, name string) func() {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(cacheDir(t), name+".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatalf("lock %s: %v", f.Name(), err)
	}
	return func() {
		if err := f.Close(); err != nil {
			t.Errorf("unlock %s: %v", f.Name(), err)
		}
	}
}

// ImageSize returns how many bytes an image holds.
func ImageSize(t testing.TB, image string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(strings.TrimSpace(must(t, "image", "inspect", "--format", "{{.Size}}", image)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
