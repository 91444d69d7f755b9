package app

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"drover/internal/repo/fstest"
)

// Somebody takes our lock away by force while the agent runs, forgets snapshots, the
// newest among them or not, and prunes. The next backup is whole all the same, and so
// is what is left of the history; the agent says what happened.
func TestForcedPruneBesideAnAgent(t *testing.T) {
	for name, newest := range map[string]bool{"the newest snapshot": true, "older ones": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorkshop(t)
			files := map[string]string{}
			write := func(name, content string) {
				files[name] = content
				w.write(name, content)
			}
			for i := range 40 {
				write(fmt.Sprint("old", i), string(fstest.Noise(2000+i)))
			}
			a := w.run("upkeep: {every: 1s}\nbackup: {freeze_limit: 1m}\n", "sleep", "600")
			var ids []string
			for i := range 3 {
				write("big", string(fstest.Noise(300<<10+i)))
				write("f", fmt.Sprint(i))
				b, err := a.Backup(t.Context(), false)
				if err != nil || b.Error != "" {
					t.Fatalf("%+v, %v", b, err)
				}
				ids = append(ids, b.Snapshot)
			}
			repository := w.bucket + "/data"
			restic(t, repository, "sesame", "unlock", "--remove-all")
			doomed := ids[:2]
			if newest {
				doomed = ids[1:]
			}
			restic(t, repository, "sesame", append([]string{"forget", "--prune", "--max-unused", "0"}, doomed...)...)
			write("f", "after")
			b, err := a.Backup(t.Context(), false)
			if err != nil || b.Error != "" {
				t.Fatalf("%+v, %v", b, err)
			}
			if said := restic(t, repository, "sesame", "check", "--read-data", "--no-lock"); !strings.Contains(said, "no errors were found") {
				t.Error(said)
			}
			// The upkeep, which may have met a repository without the newest snapshot, is at peace.
			a.until("the upkeep has nothing to complain of", func() bool {
				s, err := a.Status(t.Context())
				return err == nil && s.Health == "ok" && s.Upkeep != nil && s.Upkeep.Last.After(b.Time) && s.Upkeep.Error == ""
			})
			a.end()
			fstest.Must(t, os.RemoveAll(w.state), os.Mkdir(w.state, 0o755))
			again := w.run("", "sleep", "600")
			for file, want := range files {
				if got, err := os.ReadFile(w.state + "/" + file); err != nil || string(got) != want {
					t.Errorf("%s: %.20q, %v", file, got, err)
				}
			}
			report, err := w.ops().Verify(t.Context(), VerifyOptions{ReadData: true})
			if err != nil || len(report.Problems) > 0 {
				t.Errorf("%+v, %v", report, err)
			}
			if log := a.log.String(); !strings.Contains(log, "our repository lock is gone") {
				t.Error("the agent does not say what happened")
			}
			again.end()
		})
	}
}
