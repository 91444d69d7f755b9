package check

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// serveGRPC runs a server until the test ends; register may be nil.
func serveGRPC(t testing.TB, network, address string, register func(*grpc.Server), options ...grpc.ServerOption) string {
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(options...)
	if register != nil {
		register(server)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); <-done })
	return l.Addr().String()
}

func withHealth(s *grpc.Server) {
	h := health.NewServer()
	h.SetServingStatus("good", grpc_health_v1.HealthCheckResponse_SERVING)
	h.SetServingStatus("bad", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	grpc_health_v1.RegisterHealthServer(s, h)
}

// silent never answers.
type silent struct {
	grpc_health_v1.UnimplementedHealthServer
}

func (silent) Check(ctx context.Context, _ *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestGRPC(t *testing.T) {
	address := serveGRPC(t, "tcp", "127.0.0.1:0", withHealth)
	socket := filepath.Join(t.TempDir(), "g.sock")
	serveGRPC(t, "unix", socket, withHealth)
	bare := serveGRPC(t, "tcp", "127.0.0.1:0", nil)
	mute := serveGRPC(t, "tcp", "127.0.0.1:0", func(s *grpc.Server) { grpc_health_v1.RegisterHealthServer(s, silent{}) })

	https, _ := serve(t, true)
	ca := certificateFile(t, https)
	secure := serveGRPC(t, "tcp", "127.0.0.1:0", withHealth, grpc.Creds(credentials.NewServerTLSFromCert(&https.TLS.Certificates[0])))

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	for _, c := range []struct {
		grpc GRPC
		want string
	}{
		{GRPC{Address: address}, ""},
		{GRPC{Address: address, Service: "good"}, ""},
		{GRPC{Address: "unix:" + socket}, ""},
		{GRPC{Address: address, Service: "bad"}, `service "bad" is NOT_SERVING`},
		{GRPC{Address: address, Service: "none"}, "NotFound"},
		{GRPC{Address: bare}, "unknown service grpc.health.v1.Health"},
		{GRPC{Address: l.Addr().String()}, "refused"},
		{GRPC{Address: mute}, "DeadlineExceeded"},
		{GRPC{Address: secure, TLS: true, CA: ca}, ""},
		{GRPC{Address: secure, TLS: true}, "certificate signed by unknown authority"},
		{GRPC{Address: secure, TLS: true, CA: ca + "x"}, "read certificates"},
		{GRPC{Address: secure}, "call " + secure},
		{GRPC{Address: address, TLS: true}, "call " + address},
	} {
		limit := 10 * time.Second
		if c.grpc.Address == mute {
			limit = 50 * time.Millisecond
		}
		err := c.grpc.Probe(within(t, limit))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.grpc, err, c.want)
		}
	}
}
