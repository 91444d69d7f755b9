package app

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Real applications write while a backup follows a backup. Of each, restored, the
// application's own check must pass, and what the application had acknowledged
// before the backup was asked for must be there.

// commits is how many backups are made of each application.
func commits() int {
	if os.Getenv("DROVER_SOAK") != "" {
		return 1000
	}
	return 100
}

func (r *running) program(name string, args ...string) string {
	r.t.Helper()
	out, err := exec.CommandContext(r.t.Context(), name, args...).CombinedOutput()
	if err != nil {
		r.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// sqliteWriter commits one row after another, and acknowledges it then; some are
// larger than a page, so that a commit is many writes.
const sqliteWriter = `
import os, sqlite3
db = sqlite3.connect(os.environ["STATE"] + "/app.db", isolation_level=None)
db.execute("PRAGMA journal_mode=%s")
db.execute("PRAGMA synchronous=NORMAL")
db.execute("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, pad BLOB)")
db.execute("CREATE INDEX IF NOT EXISTS i ON t (pad)")
acks = os.open(os.environ["ACKS"], os.O_CREAT | os.O_WRONLY)
n = 0
while True:
    n += 1
    db.execute("BEGIN")
    db.execute("INSERT INTO t VALUES (?, randomblob(?))", (n, 1 + n * 977 %% 20000))
    db.execute("DELETE FROM t WHERE n = ?", (n - 200,))
    db.execute("COMMIT")
    os.pwrite(acks, b"%%020d" %% n, 0)
`

// sqliteCheck opens the restored database, which recovers it, and says "ok".
const sqliteCheck = `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1] + "/app.db")
want = int(sys.argv[2])
said = db.execute("PRAGMA integrity_check").fetchone()[0]
low, high, count = db.execute("SELECT min(n), max(n), count(*) FROM t").fetchone()
good = said == "ok" and high >= want and count == high - low + 1
print("ok" if good else (said, low, high, count, want))
`

func TestSQLiteUnderLoad(t *testing.T) {
	for _, mode := range []string{"WAL", "DELETE"} {
		t.Run(mode, func(t *testing.T) {
			r := newWorkshop(t).run("", "python3", "-c", fmt.Sprintf(sqliteWriter, mode))
			all := r.backups(commits())
			r.mustMove(all)
			r.restoreAll(all, func(dir string, s saved) {
				if said := strings.TrimSpace(r.program("python3", "-c", sqliteCheck, dir, s.acked)); said != "ok" {
					t.Errorf("seq %d: %s", s.Seq, said)
				}
			})
		})
	}
}

// mustMove makes sure that the application worked between the backups, and that
// all of them are of one moment.
func (r *running) mustMove(all []saved) {
	r.t.Helper()
	different := map[string]bool{}
	for _, s := range all {
		different[s.acked] = true
		if !s.Consistent {
			r.t.Errorf("seq %d is not of one moment: %s", s.Seq, s.Fallback)
		}
	}
	if len(different) < len(all)/2 {
		r.t.Errorf("the application acknowledged only %d times in %d backups", len(different), len(all))
	}
}

// redisWriter runs a server with an append-only file, and a client that sets one
// key after another and acknowledges what the server did.
const redisWriter = `
import os, socket, subprocess, time
sock = os.environ["ACKS"] + ".sock"
subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", sock, "--dir", os.environ["STATE"], "--save", "",
    "--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-min-size", "1mb"], stdout=subprocess.DEVNULL)
c = socket.socket(socket.AF_UNIX)
while True:
    try:
        c.connect(sock)
        break
    except OSError:
        time.sleep(0.01)
f = c.makefile("rb")
acks = os.open(os.environ["ACKS"], os.O_CREAT | os.O_WRONLY)
n = 0
while True:
    n += 1
    v = b"%d" % n
    pad = b"x" * (n * 977 % 5000)
    c.sendall(b"*5\r\n$4\r\nMSET\r\n$1\r\nn\r\n$%d\r\n%s\r\n$3\r\npad\r\n$%d\r\n%s\r\n" % (len(v), v, len(pad), pad))
    if f.readline() == b"+OK\r\n":
        os.pwrite(acks, b"%020d" % n, 0)
    time.sleep(0.001) # megabytes a second are enough: backups should not be what takes the time
`

func TestRedisUnderLoad(t *testing.T) {
	r := newWorkshop(t).run("", "python3", "-c", redisWriter)
	all := r.backups(commits())
	r.mustMove(all)
	r.restoreAll(all, func(dir string, s saved) {
		manifest := filepath.Join(dir, "appendonlydir", "appendonly.aof.manifest")
		if said := r.program("redis-check-aof", manifest); !strings.Contains(said, "All AOF files and manifest are valid") {
			t.Errorf("seq %d: %s", s.Seq, said)
		}
		if n := r.redisValue(dir); n < s.acked {
			t.Errorf("seq %d: %s is there, %s was acknowledged", s.Seq, n, s.acked)
		}
	})
}

// redisValue starts a server upon the restored files, as an application would
// start, and asks it for the number. It rewrites no file: the process that does
// would outlive it.
func (r *running) redisValue(dir string) string {
	r.t.Helper()
	sock := r.socket + ".redis"
	cmd := exec.Command("redis-server", "--port", "0", "--unixsocket", sock, "--dir", dir, "--save", "", "--appendonly", "yes",
		"--aof-load-truncated", "no", "--auto-aof-rewrite-percentage", "0")
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = os.Remove(sock)
	}()
	var n int
	deadline := time.Now().Add(patience)
	for {
		out, err := exec.Command("redis-cli", "-s", sock, "GET", "n").Output()
		if err == nil {
			if _, err := fmt.Sscan(string(out), &n); err == nil {
				return fmt.Sprintf("%020d", n)
			}
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("the restored server does not answer: %s, %v", out, err)
		}
	}
}

// gitPushers push to a bare repository in parallel, each to a branch of its own,
// and acknowledge what was pushed. The repository collects garbage often.
const gitPushers = `
set -e
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
bare=$STATE/r.git
git init -q --bare "$bare"
git -C "$bare" config gc.auto 20
work=$ACKS.work
push() {
	git init -q "$work/$1"
	cd "$work/$1"
	n=0
	while :; do
		n=$((n + 1))
		echo "$1 $n" > file$((n % 7))
		git add .
		git commit -q -m "$n"
		git push -q "$bare" "HEAD:refs/heads/$1" 2>/dev/null || continue
		echo "$1 $(git rev-parse HEAD)" >> "$ACKS"
	done
}
for i in 1 2 3; do push $i & done
wait
`

func TestGitUnderParallelPushes(t *testing.T) {
	// Packing its objects takes more than half of a repository's files away.
	r := newWorkshop(t).run("backup: {allow_shrink: true}", "sh", "-c", gitPushers)
	all := r.backups(commits())
	for _, s := range all {
		if !s.Consistent {
			t.Errorf("seq %d is not of one moment: %s", s.Seq, s.Fallback)
		}
	}
	r.restoreAll(all, func(dir string, s saved) {
		bare := filepath.Join(dir, "r.git")
		if said := r.program("git", "-C", bare, "fsck", "--strict", "--full"); strings.Contains(said, "missing") || strings.Contains(said, "error") {
			t.Errorf("seq %d: %s", s.Seq, said)
		}
		for branch, commit := range newestPushes(s.acked) {
			r.program("git", "-C", bare, "merge-base", "--is-ancestor", commit, "refs/heads/"+branch)
		}
	})
}

// newestPushes is what each branch had last; a line that is being written is none.
func newestPushes(acks string) map[string]string {
	newest := map[string]string{}
	for line := range strings.Lines(acks) {
		if branch, commit, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " "); ok && strings.HasSuffix(line, "\n") && len(commit) == 40 {
			newest[branch] = commit
		}
	}
	return newest
}
