package supervise

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

// streams are the files of one run of a job, and what stands at their other ends.
type streams struct {
	j      *job
	files  []*os.File // the job's, by descriptor
	env    []string   // that tell it of them
	theirs []*os.File // to be closed here once the job has them
	pumps  []*pump
	told   *os.File      // the other end of the descriptor for readiness
	socket *net.UnixConn // NOTIFY_SOCKET
	lines  *matcher      // looks for the line that tells readiness
}

// open makes the three standard files of the job.
func (j *job) open(stall time.Duration) (*streams, error) {
	o := &streams{j: j}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return o, err
	}
	o.theirs = append(o.theirs, null)
	o.files = []*os.File{j.Stdin, null, null}
	if j.Stdin == nil {
		o.files[0] = null
	}
	if j.Ready.Log != nil {
		o.lines = &matcher{pattern: j.Ready.Log}
	}
	for i, w := range []io.Writer{j.Stdout, j.Stderr} {
		switch to := w.(type) {
		case nil:
			if o.lines == nil && j.Journal == nil {
				continue
			}
			w = io.Discard
		case *os.File:
			o.files[i+1] = to
			continue
		}
		from, into, err := os.Pipe()
		if err != nil {
			return o, err
		}
		o.theirs = append(o.theirs, into)
		o.files[i+1] = into
		p := newPump(from, w, j.form(i), stall)
		p.taps = j.taps(o.lines, i)
		o.pumps = append(o.pumps, p)
	}
	return o, nil
}

// taps are who sees the output besides its writer.
func (j *job) taps(lines *matcher, stream int) []func([]byte) {
	var taps []func([]byte)
	if j.Journal != nil {
		taps = append(taps, j.Journal.writer(stream))
	}
	if lines != nil {
		taps = append(taps, lines.tap())
	}
	return taps
}

// openReadiness makes the way by which the job tells that it is ready. The socket's
// name is secret to the job: it has the run's random mark in it.
func (o *streams) openReadiness(run string) error {
	r := o.j.Ready
	if r.FD > 0 {
		from, into, err := os.Pipe()
		if err != nil {
			return err
		}
		o.theirs, o.told = append(o.theirs, into), from
		o.place(r.FD, into)
	}
	if r.Notify {
		name := fmt.Sprintf("@drover-%s-%d", run, o.j.index)
		socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			return fmt.Errorf("make NOTIFY_SOCKET: %w", err)
		}
		o.socket, o.env = socket, []string{"NOTIFY_SOCKET=" + name}
	}
	return nil
}

// closeTheirs closes what is of no use here once the job has started.
func (o *streams) closeTheirs() {
	for _, f := range o.theirs {
		_ = f.Close() // the job has its own, or did not start
	}
}

// closeOurs closes the rest, of a job that did not start.
func (o *streams) closeOurs() {
	for _, p := range o.pumps {
		_ = p.from.Close()
	}
	o.stopWaiting()
}

// stopWaiting ends who waits for readiness; the run is over.
func (o *streams) stopWaiting() {
	if o == nil {
		return
	}
	if o.told != nil {
		_ = o.told.Close()
	}
	if o.socket != nil {
		_ = o.socket.Close()
	}
}

// start starts the pumps and who waits for readiness. Those that wait end with the
// job's processes, or when the run ends (stopWaiting).
func (o *streams) start(group *sync.WaitGroup, ready func()) {
	if o.lines != nil {
		o.lines.found = ready
	}
	for _, p := range o.pumps {
		p.start()
	}
	if o.told != nil {
		group.Go(func() { awaitLine(o.told, ready) })
	}
	if o.socket != nil {
		group.Go(func() { awaitNotice(o.socket, ready) })
	}
}

// awaitLine waits for the end of a line (s6's protocol), and keeps reading then: a job
// that writes more must not be killed by SIGPIPE.
func awaitLine(from *os.File, ready func()) {
	defer func() { _ = from.Close() }()
	lines := bufio.NewReaderSize(from, 512)
	for first := true; ; {
		_, err := lines.ReadSlice('\n')
		switch {
		case err == bufio.ErrBufferFull:
		case err != nil:
			return
		case first:
			ready()
			first = false
		}
	}
}

// awaitNotice waits for READY=1 (sd_notify(3)); other notices are taken and dropped.
func awaitNotice(socket *net.UnixConn, ready func()) {
	defer func() { _ = socket.Close() }()
	const largest = 4 << 10
	notice := make([]byte, largest)
	for {
		n, err := socket.Read(notice)
		if err != nil {
			return
		}
		if slices.Contains(splitLines(notice[:n]), "READY=1") {
			ready()
		}
	}
}
