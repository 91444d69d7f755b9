package check

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cpu is the processor time of this process and of its children that were
// waited for.
func cpu() time.Duration {
	var sum time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if unix.Getrusage(who, &u) == nil {
			sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return sum
}

// BenchmarkProbe tells the processor time of one probe, that of its server in
// this process and of its command included.
func BenchmarkProbe(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	plain, _ := serve(b, false)
	secure, _ := serve(b, true)
	ca := certificateFile(b, secure)
	for name, probe := range map[string]Prober{
		"tcp":   &TCP{Address: l.Addr().String()},
		"http":  &HTTP{URL: plain.URL + "/ok"},
		"https": &HTTP{URL: secure.URL + "/ok", CA: ca},
		"exec":  &Exec{Command: []string{"true"}},
		"grpc":  &GRPC{Address: serveGRPC(b, "tcp", "127.0.0.1:0", withHealth)},
	} {
		b.Run(name, func(b *testing.B) {
			before := cpu()
			for b.Loop() {
				if err := probe.Probe(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}

// BenchmarkRunner tells what the Runner itself adds to a probe of 50 jobs that
// are checked every 20 ms.
func BenchmarkRunner(b *testing.B) {
	probed := make(chan struct{})
	var checks []Check
	for i := range 50 {
		checks = append(checks, Check{Name: "c", Job: fmt.Sprint(i), Every: 20 * time.Millisecond, Prober: probeFunc(func(ctx context.Context) error {
			select {
			case probed <- struct{}{}:
			case <-ctx.Done():
			}
			return nil
		})})
	}
	r := New(checks, ignore, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	for _, c := range checks {
		r.Started(c.Job)
	}
	before := cpu()
	for b.Loop() {
		<-probed
	}
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-µs/op")
	cancel()
	<-done
}
