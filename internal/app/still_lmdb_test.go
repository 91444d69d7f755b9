package app

import (
	"fmt"
	"strings"
	"testing"
)

// debianPython has the modules of Debian's packages, which another python3 may lack.
const debianPython = "/usr/bin/python3"

// lmdbWriter keeps a counter and a window of records in a memory-mapped database.
// With a writable map no write is a system call.
const lmdbWriter = `
import lmdb, os
env = lmdb.open(os.environ["STATE"] + "/db", map_size=8 << 20, writemap=%s)
acks = os.open(os.environ["ACKS"], os.O_CREAT | os.O_WRONLY)
n = 0
while True:
    n += 1
    with env.begin(write=True) as txn:
        txn.put(b"%%020d" %% n, os.urandom(1 + n * 977 %% 5000))
        txn.delete(b"%%020d" %% (n - 200))
        txn.put(b"newest", b"%%020d" %% n)
    os.pwrite(acks, b"%%020d" %% n, 0)
`

// lmdbCheck opens the restored database, has LMDB walk all of its pages (a
// compacting copy does), and says "ok".
const lmdbCheck = `
import lmdb, os, sys, tempfile
env = lmdb.open(sys.argv[1] + "/db", map_size=8 << 20)
with tempfile.TemporaryDirectory() as copy:
    env.copy(copy, compact=True)
    again = lmdb.open(copy, map_size=8 << 20)
    with again.begin() as txn:
        newest = int(txn.get(b"newest"))
        keys = [int(k) for k in txn.cursor().iternext(values=False) if k != b"newest"]
good = newest >= int(sys.argv[2]) and keys == list(range(max(1, newest - 199), newest + 1))
print("ok" if good else (newest, keys[:1], keys[-1:], len(keys), sys.argv[2]))
`

func TestLMDBUnderLoad(t *testing.T) {
	for name, mapped := range map[string]string{"written": "False", "mapped": "True"} {
		t.Run(name, func(t *testing.T) {
			r := newWorkshop(t).run("", debianPython, "-c", fmt.Sprintf(lmdbWriter, mapped))
			all := r.backups(commits())
			r.mustMove(all)
			r.restoreAll(all, func(dir string, s saved) {
				if said := strings.TrimSpace(r.program(debianPython, "-c", lmdbCheck, dir, s.acked)); said != "ok" {
					t.Errorf("seq %d: %s", s.Seq, said)
				}
			})
		})
	}
}
