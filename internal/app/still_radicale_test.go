package app

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// radicaleClients run a calendar server, and three clients that put one event
// after another, each into a calendar of its own, take an older one away, and
// acknowledge what the server did.
const radicaleClients = `
import http.client, os, socket, subprocess, threading, time
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
subprocess.Popen(["radicale", "-C", "/dev/null", "--server-hosts", "127.0.0.1:%d" % port, "--auth-type", "none", "--rights-type", "authenticated",
    "--storage-filesystem-folder", os.environ["STATE"]])
head = {"Authorization": "Basic YTphCg==", "Content-Type": "text/calendar"}
event = """BEGIN:VCALENDAR\r
VERSION:2.0\r
PRODID:-//drover//test//EN\r
BEGIN:VEVENT\r
UID:%(uid)s\r
DTSTAMP:20260101T000000Z\r
DTSTART:20260101T000000Z\r
SUMMARY:%(pad)s\r
END:VEVENT\r
END:VCALENDAR\r
"""
def ask(c, method, path, body=None):
    c.request(method, path, body, head)
    r = c.getresponse()
    r.read()
    return r.status
def client(name):
    while True:
        try:
            c = http.client.HTTPConnection("127.0.0.1", port)
            if ask(c, "MKCALENDAR", "/a/%s/" % name) == 201: break
        except OSError:
            time.sleep(0.01)
    n = 0
    while True:
        n += 1
        c = http.client.HTTPConnection("127.0.0.1", port)
        if ask(c, "PUT", "/a/%s/%d.ics" % (name, n), event % dict(uid="%s-%d" % (name, n), pad="x" * (n * 97 % 2000))) != 201: os._exit(1)
        if n > 20 and ask(c, "DELETE", "/a/%s/%d.ics" % (name, n - 20)) != 200: os._exit(2)
        with lock: os.write(acks, b"%s %d\n" % (name.encode(), n))
lock = threading.Lock()
acks = os.open(os.environ["ACKS"], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
for name in "one", "two", "three": threading.Thread(target=client, args=[name]).start()
`

func TestRadicaleUnderLoad(t *testing.T) {
	r := newWorkshop(t).run("", "python3", "-c", radicaleClients)
	all := r.backups(commits())
	r.mustMove(all)
	r.restoreAll(all, func(dir string, s saved) {
		r.program("radicale", "-C", "/dev/null", "--storage-filesystem-folder", dir, "--verify-storage")
		newest := map[string]int{}
		for line := range strings.Lines(s.acked) {
			if name, n, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " "); ok && strings.HasSuffix(line, "\n") {
				newest[name], _ = strconv.Atoi(n)
			}
		}
		for name, n := range newest {
			// The client has gone on meanwhile, and takes away what is 20 older.
			events, err := filepath.Glob(filepath.Join(dir, "collection-root", "a", name, "*.ics"))
			if err != nil || len(events) == 0 {
				t.Errorf("seq %d: calendar %s: %d events, %v", s.Seq, name, len(events), err)
			}
			high := 0
			for _, e := range events {
				k, _ := strconv.Atoi(strings.TrimSuffix(filepath.Base(e), ".ics"))
				high = max(high, k)
				if text, err := os.ReadFile(e); err != nil || !strings.Contains(string(text), "END:VCALENDAR") {
					t.Errorf("seq %d: %s is half an event: %v", s.Seq, e, err)
				}
			}
			if high < n || len(events) < min(high, 20) {
				t.Errorf("seq %d: calendar %s: %d events up to %d; %d was acknowledged", s.Seq, name, len(events), high, n)
			}
		}
	})
}
