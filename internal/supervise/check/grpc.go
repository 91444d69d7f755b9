package check

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// GRPC calls grpc.health.v1.Health/Check, over a connection of its own for each
// probe. No proxy is used.
type GRPC struct {
	Address string // host:port, or unix:/SOCKET
	Service string // empty: the server as a whole
	TLS     bool
	CA      string // with TLS: file of certificates to trust, in PEM form, besides the system's
}

// Probe asks for the service's status: SERVING is well.
func (g *GRPC) Probe(ctx context.Context) error {
	secure := insecure.NewCredentials()
	if g.TLS {
		trust, err := tlsConfig(g.CA, false)
		if err != nil {
			return err
		}
		secure = credentials.NewTLS(trust)
	}
	target := g.Address
	if !strings.HasPrefix(target, "unix:") {
		target = "passthrough:///" + target // the dialer looks names up, as it does for the other checks
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(secure), grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(), grpc.WithUserAgent(userAgent))
	if err != nil {
		return fmt.Errorf("call %s: %w", g.Address, err)
	}
	defer func() { _ = conn.Close() }()
	answer, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: g.Service})
	if err != nil {
		s := status.Convert(err)
		return fmt.Errorf("call %s: %v: %s", g.Address, s.Code(), s.Message())
	}
	if answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("call %s: service %q is %v", g.Address, g.Service, answer.GetStatus())
	}
	return nil
}
