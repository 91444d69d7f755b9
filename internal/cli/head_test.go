package cli

import (
	"strings"
	"syscall"
	"testing"

	"drover/internal/testkit/s3server"
)

// TestHeadInTheCoordinator: on a store that ignores conditions a volume is held by a key of
// Consul or etcd: an agent is killed, another one takes over with the data, and the first
// one's return is a standby's.
func TestHeadInTheCoordinator(t *testing.T) {
	binary := buildBinary(t)
	for kind, open := range map[string]func(*testing.T) *place{"consul": onConsul, "etcd": onEtcd} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			p, s3 := open(t), s3server.StartCareless(t)
			one, two := newMachine(t, binary), newMachine(t, binary)
			for _, m := range []*machine{one, two} {
				m.env = append(m.env, "DROVER_STORE="+s3.URL("app"), "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test",
					"AWS_CA_BUNDLE=", "AWS_CONFIG_FILE=/none", "AWS_SHARED_CREDENTIALS_FILE=/none")
				m.write("drover.yaml", "coordinator: "+p.coordinator+"\nlease: {head: coordinator}\n")
			}
			two = two.with("DROVER_ID=two")
			one.is(0, "", "probe")
			one.write("state/f", "1")
			// The paths of a volume are the same wherever it is.
			run := []string{"run", "--state", one.dir + "/state", "--first-start", "adopt", "--", "sleep", "1000"}
			agent := one.start(run...)
			one.status("held", role("holder"))
			one.write("state/f", "2")
			one.is(0, "committed", "backup")
			one.is(11, "held", "snapshot", one.dir+"/state")
			agent.signal(syscall.SIGKILL)
			_ = agent.wait()
			one.write("state/f", "lost")
			other := two.start(run...)
			two.status("taken over", role("holder"))
			one.file("state/f", "2")
			for _, key := range s3.Keys() {
				if strings.Contains(key, "drover/head") {
					t.Errorf("%s is in the store", key)
				}
			}
			other.signal(syscall.SIGTERM)
			if got := other.wait(); got.code != 143 {
				t.Errorf("%+v", got)
			}
		})
	}
}
