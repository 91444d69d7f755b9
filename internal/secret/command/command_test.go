package command

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover/internal/secret"
	"drover/internal/testkit/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

const canary = "canary-52bd"

// ask returns what a command is told for at first.
func ask(t *testing.T, o Options, r secret.Request) (*secret.Secret, error) {
	t.Helper()
	o.Env = append(o.Env, "PATH="+os.Getenv("PATH"))
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var value *secret.Secret
	var failed error = context.DeadlineExceeded
	s.Watch(ctx, r, func(got *secret.Secret, err error) { value, failed = got, err; cancel() })
	return value, failed
}

func TestCommand(t *testing.T) {
	got, err := ask(t, Options{Command: []string{"printf", "%s-of-%s\n", canary}}, secret.Request{Path: "a b"})
	if err != nil || got.Data["value"] != canary+"-of-a b" {
		t.Errorf("raw: %v, %v", got, err)
	}
	got, err = ask(t, Options{Command: []string{"sh", "-c", `echo "{\"user\": \"$WHO\", \"n\": 12345678901234567}"`}, Env: []string{"WHO=ann"}, JSON: true}, secret.Request{})
	if err != nil || got.Data["user"] != "ann" || got.Data["n"].(interface{ String() string }).String() != "12345678901234567" {
		t.Errorf("JSON: %v, %v", got, err)
	}
}

func TestErrorsSayNothingOfTheOutput(t *testing.T) {
	for name, o := range map[string]Options{
		"it fails":        {Command: []string{"sh", "-c", "echo " + canary + "; echo " + canary + " >&2; exit 3"}},
		"no JSON":         {Command: []string{"echo", canary}, JSON: true},
		"more than JSON":  {Command: []string{"echo", `{}`, canary}, JSON: true},
		"another JSON":    {Command: []string{"echo", `["` + canary + `"]`}, JSON: true},
		"it is not there": {Command: []string{"/nonexistent/program"}},
		"it hangs":        {Command: []string{"sh", "-c", "echo " + canary + "; sleep 1000 & wait"}, Limit: 100 * time.Millisecond},
		"it prints on":    {Command: []string{"sh", "-c", "yes " + canary}, Limit: 500 * time.Millisecond},
	} {
		if got, err := ask(t, o, secret.Request{}); err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := ask(t, Options{Command: []string{"false"}}, secret.Request{}); !errors.Is(err, secret.ErrUnavailable) {
		t.Errorf("a failure: %v", err)
	}
	if _, err := New(Options{}); err == nil {
		t.Error("no command is taken")
	}
}

func TestTooMuchIsAnError(t *testing.T) {
	if _, err := ask(t, Options{Command: []string{"sh", "-c", "head -c 17000000 /dev/zero"}}, secret.Request{}); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("got %v", err)
	}
}

// What hangs is killed with its children.
func TestNothingIsLeft(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	_, err := ask(t, Options{Command: []string{"sh", "-c", `sh -c 'echo $$ > "` + pid + `"; exec sleep 1000' & wait`}, Limit: time.Second}, secret.Request{})
	if err == nil {
		t.Fatal("no error")
	}
	child, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("/proc/" + strings.TrimSpace(string(child)) + "/cmdline")
	if err == nil && strings.Contains(string(text), "sleep") {
		t.Error("a child is left")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"a": 1}`), true)
	f.Add([]byte("x\n"), false)
	f.Fuzz(func(t *testing.T, out []byte, object bool) {
		data, err := parse(out, object)
		if (err == nil) != (data != nil) {
			t.Errorf("%v, %v", data, err)
		}
		if err != nil && len(out) > 40 && strings.Contains(err.Error(), string(out)) {
			t.Error("the error has the output in it")
		}
	})
}
