//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"drover/client"
	"drover/internal/testkit/appender"
	"drover/internal/testkit/dockertest"
)

// TestComposePostgresHAProxy: examples/postgres behind HAProxy, which asks the members who leads.
func TestComposePostgresHAProxy(t *testing.T) { behind(t, "haproxy", "5000") }

// TestComposePostgresPgBouncer: examples/postgres behind a PgBouncer whose configuration follows the catalog.
func TestComposePostgresPgBouncer(t *testing.T) { behind(t, "pgbouncer", "6432") }

// behind brings up two members and a proxy, of the example's Compose files as they stand. A client that knows the proxy alone
// writes while the primary is changed on purpose, and while it is destroyed; all that it was told is there.
func behind(t *testing.T, proxy, port string) {
	p := project(t, "postgres", "COMPOSE_FILE=compose.yaml:compose."+proxy+".yaml")
	p.Do("up", "--build", "--detach", "--scale", "postgres=2")
	primary := awaitMembers(t, p.Containers("postgres"), 2)
	known := appender.Options{Hosts: []string{net.JoinHostPort(address(t, p.Containers(proxy)[0]), port)}, User: "postgres", Password: exampleSecret}
	var a *appender.Appender
	dockertest.Await(t, 2*time.Minute, proxy+" to lead to the primary", func(ctx context.Context) (err error) {
		a, err = appender.Start(t.Context(), known)
		return err
	})
	for _, change := range []struct {
		name string
		do   func()
	}{
		{"switchover", func() { switchover(t, primary) }},
		{"destroyed", func() { primary.Remove(); p.Do("up", "--detach", "--no-recreate", "--scale", "postgres=2") }},
	} {
		writes(t, a, 50)
		began := time.Now()
		change.do()
		former := primary
		primary = awaitMembers(t, p.Containers("postgres"), 2)
		if primary.ID == former.ID {
			t.Errorf("%s: the same member leads", change.name)
		}
		writes(t, a, 50)
		t.Logf("%s: all is as before after %.1f s", change.name, time.Since(began).Seconds())
	}
	r, err := a.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("RESULT behind %s: %s", proxy, r)
	if len(r.Missing) > 0 || len(r.Duplicated) > 0 {
		t.Errorf("missing %v, duplicated %v", r.Missing, r.Duplicated)
	}
}

// switchover has another member lead. The order is refused as long as no other one is near enough.
func switchover(t *testing.T, primary *dockertest.Container) {
	t.Helper()
	dockertest.Await(t, 3*time.Minute, "a switchover", func(ctx context.Context) error {
		_, err := primary.Exec(ctx, "drover", "switchover")
		if err == nil {
			return nil
		}
		var st client.Status
		if out, failed := primary.Exec(ctx, "drover", "status", "--json"); failed == nil && json.Unmarshal([]byte(out), &st) == nil &&
			st.Database != nil && st.Database.Primary != "" && !strings.HasPrefix(primary.ID, st.Database.Primary) {
			return nil // an order that seemed to fail was carried out
		}
		return err
	})
}

// writes waits until so many more writes were acknowledged.
func writes(t *testing.T, a *appender.Appender, more int) {
	t.Helper()
	goal := a.Acked() + more
	dockertest.Await(t, 2*time.Minute, "writes to be acknowledged", func(context.Context) error {
		if n := a.Acked(); n < goal {
			return fmt.Errorf("%d of %d; the last error was %w", n, goal, a.LastError())
		}
		return nil
	})
}

// address is a container's, in its one network.
func address(t *testing.T, c *dockertest.Container) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "docker", "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", c.ID).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
