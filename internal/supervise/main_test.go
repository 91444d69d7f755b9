package supervise

import (
	"bytes"
	"flag"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// The datadriven package registers -rewrite.
func TestMain(m *testing.M) {
	if what := os.Getenv(agentVar); what != "" {
		os.Exit(agent(what))
	}
	flag.Parse()
	goleak.VerifyTestMain(m)
}

// buffer is a writer for jobs' output that the test can wait on.
type buffer struct {
	mu   sync.Mutex
	data bytes.Buffer
	grew chan struct{}
}

func newBuffer() *buffer { return &buffer{grew: make(chan struct{}, 1)} }

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, err := b.data.Write(p)
	wake(b.grew)
	return n, err
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.String()
}

// waitFor returns when the output contains text.
func (b *buffer) waitFor(t *testing.T, text string) {
	t.Helper()
	for !strings.Contains(b.String(), text) {
		select {
		case <-b.grew:
		case <-t.Context().Done():
			t.Fatalf("the output has no %q: %q", text, b.String())
		}
	}
}

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// sh is a job that runs a script.
func sh(name, script string) Job {
	return Job{Name: name, Command: []string{"sh", "-c", script}, Env: os.Environ()}
}
