package etcd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"drover/internal/coord"
	"drover/internal/testkit/etcdserver"
)

func TestOptionsAreChecked(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	plain, secure := []string{"http://127.0.0.1:1"}, []string{"https://127.0.0.1:1"}
	for name, o := range map[string]Options{
		"no endpoint":             {},
		"no scheme":               {Endpoints: []string{"127.0.0.1:2379"}},
		"another scheme":          {Endpoints: []string{"unix://x"}},
		"a path":                  {Endpoints: []string{"http://127.0.0.1:1/v3"}},
		"a password in the URL":   {Endpoints: []string{"http://a:secret@127.0.0.1:1"}},
		"mixed schemes":           {Endpoints: []string{plain[0], secure[0]}},
		"TLS over http":           {Endpoints: plain, TLS: TLS{CA: none}},
		"no authorities":          {Endpoints: secure, TLS: TLS{CA: none}},
		"authorities are not any": {Endpoints: secure, TLS: TLS{CA: "options.go"}},
		"key without certificate": {Endpoints: secure, TLS: TLS{Key: none}},
		"no certificate":          {Endpoints: secure, TLS: TLS{Key: none, Cert: none}},
		"user without password":   {Endpoints: plain, User: "a"},
		"password without user":   {Endpoints: plain, Password: "a"},
		"two passwords":           {Endpoints: plain, User: "a", Password: "a", PasswordFile: none},
	} {
		if c, err := Open(o); err == nil {
			_ = c.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

func TestKinds(t *testing.T) {
	for err, want := range map[error]error{
		rpctypes.ErrGRPCRequestTooManyRequests: coord.ErrUnavailable,
		rpctypes.ErrTooManyRequests:            coord.ErrUnavailable,
		rpctypes.ErrGRPCNoSpace:                coord.ErrUnavailable,
		rpctypes.ErrNoLeader:                   coord.ErrUnavailable,
		rpctypes.ErrGRPCTimeout:                coord.ErrUnavailable,
		rpctypes.ErrTimeoutWaitAppliedIndex:    coord.ErrUnavailable,
		rpctypes.ErrGRPCRequestTooLarge:        coord.ErrTooLarge,
		rpctypes.ErrTooManyOps:                 coord.ErrTooLarge,
		rpctypes.ErrLeaseNotFound:              coord.ErrNotFound,
		rpctypes.ErrGRPCAuthFailed:             coord.ErrUnauthorized,
		rpctypes.ErrGRPCInvalidAuthToken:       coord.ErrUnauthorized,
		rpctypes.ErrPermissionDenied:           coord.ErrUnauthorized,
		rpctypes.ErrGRPCUserEmpty:              coord.ErrUnauthorized,
		rpctypes.ErrLeaseTTLTooLarge:           nil,
		rpctypes.ErrGRPCDuplicateKey:           nil,
		status.Error(codes.ResourceExhausted, "a message is larger than gRPC takes"): coord.ErrTooLarge,
		status.Error(codes.Internal, "stream reset"):                                 coord.ErrUnavailable,
		status.Error(codes.Unavailable, "connection refused"):                        coord.ErrUnavailable,
		context.DeadlineExceeded:                                                     coord.ErrUnavailable,
		os.ErrNotExist:                                                               nil,
	} {
		if got := kindOf(fmt.Errorf("it says: %w", err)); got != want && kindOf(err) != want {
			t.Errorf("%v: kind %v, want %v", err, got, want)
		}
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	s := etcdserver.Start(t, etcdserver.Options{TLS: true, ClientCerts: true})
	good := TLS{CA: s.CA, Cert: s.Cert, Key: s.Key}
	with := func(change func(*TLS)) TLS {
		o := good
		change(&o)
		return o
	}
	for name, c := range map[string]struct {
		tls  TLS
		want error
	}{
		"as it should be":        {good, nil},
		"no authority":           {with(func(o *TLS) { o.CA = "" }), coord.ErrUnavailable},
		"anyone is believed":     {with(func(o *TLS) { o.CA, o.Insecure = "", true }), nil},
		"the address for a name": {with(func(o *TLS) { o.ServerName = "127.0.0.1" }), nil},
		"another name":           {with(func(o *TLS) { o.ServerName = "etcd.example" }), coord.ErrUnavailable},
		"no client certificate":  {with(func(o *TLS) { o.Cert, o.Key = "", "" }), coord.ErrUnavailable},
	} {
		client := open(t, Options{Endpoints: s.Endpoints, TLS: c.tls, RequestTimeout: time.Second})
		if c.want == nil {
			client.opts.RequestTimeout = time.Minute
		}
		_, err := client.Put(t.Context(), "a", []byte("x"))
		if coord.Kind(err) != c.want || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPasswordIsReadAgain(t *testing.T) {
	t.Parallel()
	s := etcdserver.Start(t, etcdserver.Options{Auth: true, Args: []string{"--auth-token-ttl", "1"}})
	s.AddUser(user, "first", prefix)
	file := filepath.Join(t.TempDir(), "password")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("wrong\n")
	c := open(t, Options{Endpoints: s.Endpoints, Prefix: prefix, User: user, PasswordFile: file, RequestTimeout: time.Minute})
	_, err := c.Put(t.Context(), "a", []byte("x"))
	is(t, "a wrong password", err, coord.ErrUnauthorized)
	write("first\n")
	seen := make(chan []coord.Pair)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.Watch(ctx, "a", true, func(pairs []coord.Pair, err error) {
			if err != nil {
				t.Errorf("watch: %v", err)
			}
			seen <- pairs
		})
	}()
	defer func() { cancel(); <-ended }()
	<-seen
	s.Call(0, "/v3/auth/user/changepw", map[string]string{"name": user, "password": "second"}, nil)
	write("second")
	first := token(c)
	for token(c) == first { // until the first login has expired
		if _, err := c.Put(t.Context(), "b", nil); err != nil {
			t.Fatalf("with a new password: %v", err)
		}
		coord.Wait(t.Context(), 1500*time.Millisecond)
	}
	if _, err := c.Put(t.Context(), "a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if pairs := <-seen; len(pairs) != 1 {
		t.Errorf("the watch sees %v", pairs)
	}
	outside := open(t, Options{Endpoints: s.Endpoints, User: user, PasswordFile: file})
	_, err = outside.Get(t.Context(), "elsewhere")
	is(t, "a key outside of what the user may read", err, coord.ErrUnauthorized)
	nobody := open(t, Options{Endpoints: s.Endpoints, Prefix: prefix})
	_, err = nobody.Get(t.Context(), "a")
	is(t, "a client without a user", err, coord.ErrUnauthorized)
}

// token is the one in use, "" if there is none.
func token(c *Client) string {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	if c.token == nil {
		return ""
	}
	return *c.token
}

func TestLoginThatNobodyAsksFor(t *testing.T) {
	t.Parallel()
	s := etcdserver.Start(t, etcdserver.Options{})
	c := open(t, Options{Endpoints: s.Endpoints, User: user, Password: password})
	if _, err := c.Put(t.Context(), "a", nil); err != nil {
		t.Fatal(err)
	}
	if token(c) != "" {
		t.Error("there is a token where there are no users")
	}
}

// TestRestoredEtcd has a client with a login from a log that is longer than etcd's: etcd waits then, and
// does not say that the login is why.
func TestRestoredEtcd(t *testing.T) {
	t.Parallel()
	s := etcdserver.Start(t, etcdserver.Options{Auth: true})
	s.AddUser(user, password, prefix)
	for range 50 {
		s.Call(0, "/v3/kv/put", map[string]string{"key": "eA=="}, nil)
	}
	c := open(t, Options{Endpoints: s.Endpoints, Prefix: prefix, User: user, Password: password, RequestTimeout: 500 * time.Millisecond})
	putHard(t, c, "a", "1")
	before := token(c)
	s.Wipe()
	s.AddUser(user, password, prefix)
	putHard(t, c, "a", "2")
	if token(c) == before {
		t.Error("the old login is still in use")
	}
}
