package app

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"drover/internal/repo/fstest"
)

// rewriter rewrites a hundred files of 64 KiB whenever it is asked to, and sleeps
// beside a shell and a thread.
const rewriter = `
import os, threading, time
state, acks = os.environ["STATE"], os.environ["ACKS"]
threading.Thread(target=lambda: time.sleep(1e6), daemon=True).start()
def rewrite():
    for i in range(100):
        with open("%s/%d" % (state, i), "wb") as f: f.write(os.urandom(64 << 10))
rewrite()
open(acks, "w").write("up")
while True:
    while not os.path.exists(acks + ".go"): time.sleep(0.001)
    rewrite()
    os.unlink(acks + ".go")
`

// BenchmarkFreezePause reports how long the job stands while 100 changed files of
// 64 KiB are captured.
func BenchmarkFreezePause(b *testing.B) {
	bucket, state := b.TempDir(), filepath.Join(b.TempDir(), "state")
	fstest.Must(b, os.Mkdir(state, 0o755))
	env := map[string]string{"DROVER_STORE": "file://" + bucket, "DROVER_PASSWORD": "sesame", "DROVER_ID": "bench"}
	r := startAgent(b, env, state, "", "sh", "-c", "python3 -c '"+rewriter+"' & wait")
	r.acked()
	var pauses []time.Duration
	next := func() {
		fstest.Must(b, os.WriteFile(r.acks+".go", nil, 0o600))
		r.until("it has rewritten", func() bool { _, err := os.Stat(r.acks + ".go"); return err != nil })
		backup, err := r.Backup(b.Context(), false)
		fstest.Must(b, err)
		if !backup.Consistent || backup.Files != 100 {
			b.Fatalf("%+v", backup)
		}
		pauses = append(pauses, time.Duration(backup.Pause*float64(time.Second)))
	}
	next()
	pauses = nil
	for b.Loop() {
		next()
	}
	slices.Sort(pauses)
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	b.ReportMetric(ms(pauses[len(pauses)/2]), "ms-p50")
	b.ReportMetric(ms(pauses[len(pauses)*99/100]), "ms-p99")
	b.ReportMetric(ms(pauses[len(pauses)-1]), "ms-most")
}
