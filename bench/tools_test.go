//go:build bench

package bench

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tool is one of the programs that are measured: what a first backup, a later
// one and a full restore are with it. What is not timed is in prepare and arrive.
type tool struct {
	name    string
	prepare func(prefix string) // makes an empty repository
	backup  func(prefix, path string) took
	arrive  func(prefix string) // a machine that knows nothing but the password is ready to restore
	restore func(prefix, path, target string) took
	direct  func() time.Duration // a later backup that no command starts; nil: there is none
}

func nothing(string) {}

func (b *bed) droverTool() tool {
	return tool{
		name: "drover",
		prepare: func(prefix string) {
			b.run("d", b.drover, "init", "--store", b.storeURL("drover-"+prefix))
		},
		backup: func(prefix, path string) took {
			return b.run("d", b.drover, "snapshot", "--store", b.storeURL("drover-"+prefix), path)
		},
		arrive: nothing,
		restore: func(prefix, _, target string) took {
			return b.run("d", b.drover, "restore", "--store", b.storeURL("drover-"+prefix), "--target", target)
		},
	}
}

func (b *bed) resticTool() tool {
	run := func(cache, prefix string, args ...string) took {
		repo := "s3:" + b.endpoint + "/" + b.s3.Bucket + "/restic-" + prefix
		args = append([]string{"-r", repo, "--cache-dir", filepath.Join(b.dir, cache)}, args...)
		return b.run("r", b.restic, args...)
	}
	return tool{
		name:    "restic",
		prepare: func(prefix string) { run("restic-cache", prefix, "init") },
		backup: func(prefix, path string) took {
			return run("restic-cache", prefix, "backup", "-q", path)
		},
		arrive: func(prefix string) { remove(b.t, filepath.Join(b.dir, "restic-new")) },
		restore: func(prefix, _, target string) took {
			return run("restic-new", prefix, "restore", "latest", "-q", "--target", target)
		},
	}
}

// kopiaTool compresses, as the others do; kopia's default does not.
func (b *bed) kopiaTool() tool {
	run := func(home, prefix string, args ...string) took {
		args = append(args, "--config-file", filepath.Join(b.dir, home, prefix+".config"),
			"--log-dir", filepath.Join(b.dir, home, "log"), "--file-log-level=error", "--no-progress")
		return b.run("k", b.kopia, args...)
	}
	repository := func(home, prefix, verb string) {
		run(home, prefix, "repository", verb, "s3", "--bucket", b.s3.Bucket, "--prefix", "kopia-"+prefix+"/",
			"--endpoint", strings.TrimPrefix(b.endpoint, "http://"), "--disable-tls", "--region", b.s3.Region,
			"--access-key", b.s3.AccessKey, "--secret-access-key", b.s3.SecretKey,
			"--cache-directory", filepath.Join(b.dir, home, prefix+".cache"), "--no-check-for-updates")
	}
	return tool{
		name: "kopia",
		prepare: func(prefix string) {
			repository("kopia", prefix, "create")
			run("kopia", prefix, "policy", "set", "--global", "--compression=zstd-fastest")
		},
		backup: func(prefix, path string) took {
			return run("kopia", prefix, "snapshot", "create", path)
		},
		arrive: func(prefix string) {
			remove(b.t, filepath.Join(b.dir, "kopia-new"))
			repository("kopia-new", prefix, "connect")
		},
		restore: func(prefix, path, target string) took {
			return run("kopia-new", prefix, "restore", "--snapshot-time=latest", path, target)
		},
	}
}

// compared is the same thing measured of several tools, in their order.
type compared []measured

type measured struct {
	name    string
	figures figures
	cpu     figures
}

// inTurn measures all tools rounds times, each round another one first.
func (b *bed) inTurn(tools []tool, rounds int, one func(round int, tl tool) took) compared {
	b.t.Helper()
	all := make(compared, len(tools))
	for round := range rounds {
		for k := range tools {
			i := (k + round) % len(tools)
			all[i].name = tools[i].name
			flush(b.t)
			all[i].add(one(round, tools[i]))
		}
	}
	return all
}

func (m *measured) add(t took) {
	m.figures = append(m.figures, t.wall)
	m.cpu = append(m.cpu, t.cpu)
}

// report prints one line for each tool, so that a script can find it. A ratio is
// of another tool's median to ours.
func (all compared) report(t *testing.T, what, goal string) {
	t.Helper()
	t.Logf("RESULT %s (goal: %s)", what, goal)
	ours := all[0].figures.median()
	for _, m := range all {
		ratio := float64(m.figures.median()) / float64(ours)
		t.Logf("RESULT   %-10s %5.2f×  %v; processor %v", m.name, ratio, m.figures, round(m.cpu.median()))
	}
}

// took is how long something took, and what it used of the processors; zero: unknown.
type took struct{ wall, cpu time.Duration }
