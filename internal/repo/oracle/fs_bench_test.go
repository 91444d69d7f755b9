package oracle

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"drover/internal/objstore"
	"drover/internal/objstore/storeurl"
	"drover/internal/repo"
	"drover/internal/repo/archive"
	"drover/internal/repo/format"
	"drover/internal/repo/fstest"
	"drover/internal/repo/restore"
	"drover/internal/testkit/gotool"
	"drover/internal/testkit/s3server"

	"golang.org/x/sys/unix"
)

// benchMB is how much of the mixed tree is large files, in MB; the rest is the
// sources of the Go toolchain.
func benchMB(b *testing.B) int {
	text := os.Getenv("DROVER_BENCH_MB")
	if text == "" {
		return 256
	}
	n, err := strconv.Atoi(text)
	fstest.Must(b, err)
	return n
}

func mixedTree(b *testing.B) string {
	b.Helper()
	dir := filepath.Join(b.TempDir(), "vol")
	for _, part := range []string{"src", "test", "pkg"} {
		fstest.Must(b, os.CopyFS(filepath.Join(dir, part), os.DirFS(filepath.Join(fstest.GoRoot(b), part))))
	}
	for left := benchMB(b); left > 0; left -= 128 {
		n := min(left, 128) << 20
		data := fstest.Noise(n / 2)
		text := make([]byte, n-len(data))
		for i := range text {
			text[i] = "the quick brown fox jumps over the lazy dog\n"[(i*i>>9+i)%44]
		}
		fstest.Write(b, filepath.Join(dir, "large", strconv.Itoa(left)), string(data)+string(text))
	}
	return dir
}

// cpu is the processor time of this process and of those it waited for.
func cpu(b *testing.B, who int) time.Duration {
	var u unix.Rusage
	fstest.Must(b, unix.Getrusage(who, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkAgainstRestic backs a mixed tree up to one S3 server on loopback, and
// restores it, with us and with stock restic. It reports seconds on the clock and
// of processor time, and the ratios.
func BenchmarkAgainstRestic(b *testing.B) {
	src := mixedTree(b)
	server := s3server.Start(b, s3server.Options{})
	server.Setenv()
	exe := gotool.Path(b, "restic")
	measure := func(name string, who int, fn func()) (wall, busy time.Duration) {
		unix.Sync()
		start, before := time.Now(), cpu(b, who)
		fn()
		wall, busy = time.Since(start), cpu(b, who)-before
		b.Logf("%-16s %6.2f s, processor %6.2f s", name, wall.Seconds(), busy.Seconds())
		return wall, busy
	}
	restic := func(args ...string) func() {
		return func() {
			cmd := exec.CommandContext(b.Context(), exe, append([]string{"--no-cache", "--quiet"}, args...)...)
			cmd.Env = append(server.Env(), "RESTIC_PASSWORD="+password, "RESTIC_REPOSITORY="+server.ResticRepository("theirs"))
			if out, err := cmd.CombinedOutput(); err != nil {
				b.Fatalf("%s%v", out, err)
			}
		}
	}
	ratio := func(name string, ours, theirs time.Duration) { b.ReportMetric(theirs.Seconds()/ours.Seconds(), name) }
	for b.Loop() {
		restic("init")()
		theirWall, theirBusy := measure("restic backup", unix.RUSAGE_CHILDREN, restic("backup", src))
		r, sn := (*repo.Repository)(nil), (*format.Snapshot)(nil)
		ourWall, ourBusy := measure("our backup", unix.RUSAGE_SELF, func() {
			r = s3Repo(b, server.URL("ours"), true)
			sn, _ = archiveDir(b, r, archive.Options{Paths: []string{src}})
		})
		ratio("backup-x", ourWall, theirWall)
		ratio("backup-cpu-x", ourBusy, theirBusy)
		theirWall, theirBusy = measure("restic restore", unix.RUSAGE_CHILDREN, restic("restore", "latest", "--target", b.TempDir()))
		ourWall, ourBusy = measure("our restore", unix.RUSAGE_SELF, func() {
			_, err := restore.Run(b.Context(), s3Repo(b, server.URL("ours"), false), sn, restore.Options{Target: b.TempDir()})
			fstest.Must(b, err)
		})
		ratio("restore-x", ourWall, theirWall)
		ratio("restore-cpu-x", ourBusy, theirBusy)
	}
}

func s3Repo(b *testing.B, url string, make bool) *repo.Repository {
	b.Helper()
	s, err := storeurl.Open(b.Context(), url, storeurl.Options{})
	fstest.Must(b, err)
	b.Cleanup(func() { fstest.Must(b, s.Close()) })
	var st objstore.Store = s
	if make {
		bundle, err := repo.NewBundle(password)
		fstest.Must(b, err)
		fstest.Must(b, repo.Materialise(b.Context(), st, bundle))
	}
	return open(b, st, repo.Options{})
}
