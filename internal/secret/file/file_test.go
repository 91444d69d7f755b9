package file_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"drover/internal/secret"
	"drover/internal/secret/file"
)

// watch runs a watch in the bubble and returns what it was told last.
func watch(ctx context.Context, s secret.Source, r secret.Request) (value func() (*secret.Secret, error)) {
	var mu sync.Mutex
	var got *secret.Secret
	var failed error
	go s.Watch(ctx, r, func(v *secret.Secret, err error) {
		mu.Lock()
		defer mu.Unlock()
		got, failed = v, err
	})
	return func() (*secret.Secret, error) {
		time.Sleep(5 * time.Second)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		return got, failed
	}
}

func TestFileIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := file.New(dir, file.Every)
		value := watch(ctx, s, secret.Request{Path: "password"})
		if _, err := value(); !errors.Is(err, secret.ErrNotFound) {
			t.Errorf("it is not there: %v", err)
		}
		for content, want := range map[string]string{"one\n": "one", "two\r\n": "two", "three\n\n": "three\n", "\xff\n": "\xff\n", "": ""} {
			if err := os.WriteFile(filepath.Join(dir, "password"), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if got, err := value(); err != nil || got.Data["value"] != want {
				t.Errorf("%q: got %v, %v", content, got, err)
			}
		}
		if err := os.Remove(filepath.Join(dir, "password")); err != nil {
			t.Fatal(err)
		}
		if _, err := value(); !errors.Is(err, secret.ErrNotFound) {
			t.Errorf("it is gone: %v", err)
		}
	})
}

func TestListAndWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b", ".hidden"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := file.New("/nonexistent", file.Every)
		got, err := watch(ctx, s, secret.Request{Path: dir, List: true})()
		if err != nil {
			t.Fatal(err)
		}
		if keys := got.Data["keys"].([]any); len(keys) != 2 || keys[0] != "a" || keys[1] != "b" {
			t.Errorf("got %v", keys)
		}
		if _, err := watch(ctx, s, secret.Request{Path: dir})(); err == nil {
			t.Error("a directory is read")
		}
		if _, err := watch(ctx, s, secret.Request{Path: dir + "/a", Params: map[string]any{}})(); err == nil {
			t.Error("a file is written")
		}
	})
}
