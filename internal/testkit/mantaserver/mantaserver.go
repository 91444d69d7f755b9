// Package mantaserver simulates a Manta object store for tests: an https server
// on the loopback interface with one account, whose storage is empty.
//
// It was written from Manta's public REST API documents, and, where those are
// silent, from how the published server (manta-muskie) answers. It verifies the
// signature of each request, keeps directories and objects in memory, and
// compares and stores in two steps as the service does, so that racing writers
// meet both kinds of refusal. It is not the service: durability, throttling,
// roles, links, uploads in parts and jobs are not there, and what it does in
// places that no document describes is a guess.
package mantaserver

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Options are what Start may be told.
type Options struct {
	// RFC has If-None-Match: * as RFC 9110 says, and as Manta's documents lead
	// one to expect. The published server refuses every put with it, which is
	// the default here.
	RFC bool
	// MostEntries is how many entries of a directory one answer has at most,
	// whatever is asked for; zero is as many as are asked for.
	MostEntries int
	// RSA gives the account a key of that kind; otherwise it is ECDSA.
	RSA bool
	// Subuser gives the key to a user of the account; otherwise the account has it.
	Subuser string
}

// Server is a running simulator. Its methods may be called from any goroutine.
type Server struct {
	Endpoint string // https://127.0.0.1:port
	Account  string
	CA       string // file of the certificate that the server has
	KeyFile  string // the key that the account knows
	KeyID    string // its fingerprint, as aa:bb:…

	t       testing.TB
	options Options
	server  *httptest.Server
	keys    keys

	mu       sync.Mutex
	nodes    map[string]*node // by path
	skew     time.Duration
	requests []string
	answer   func(w http.ResponseWriter, r *http.Request) bool
}

// node is a directory or an object. It is replaced, never changed.
type node struct {
	directory bool
	data      []byte
	etag      string // a new one for each version, whatever its bytes
	md5       string
	modified  time.Time
}

// Start starts a server that ends with the test.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s := &Server{t: t, options: o, Account: "drover.test", nodes: map[string]*node{}}
	s.nodes[s.root()] = &node{directory: true, modified: time.Now()}
	s.server = httptest.NewUnstartedServer(s)
	s.server.Config.ErrorLog = log.New(io.Discard, "", 0) // what clients do is the tests' to judge
	s.server.StartTLS()
	t.Cleanup(s.server.Close)
	s.Endpoint = s.server.URL
	dir := t.TempDir()
	s.CA = filepath.Join(dir, "ca.pem")
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.server.Certificate().Raw})
	if err := os.WriteFile(s.CA, cert, 0o600); err != nil {
		t.Fatal(err)
	}
	kind := "ecdsa"
	if o.RSA {
		kind = "rsa"
	}
	key := NewKey(t, kind)
	s.KeyFile, s.KeyID = key.File, key.ID
	s.keys = keys{account: s.Account, subuser: o.Subuser, id: key.ID, public: key.public}
	return s
}

func (s *Server) root() string { return "/" + s.Account + "/stor" }

// URL is the store's URL for a directory of the account's storage.
func (s *Server) URL(prefix string) string {
	return "manta://" + s.Account + "/stor/" + prefix + "?endpoint=" + s.Endpoint + "&ca=" + s.CA
}

// Env is this process's environment with what a client needs and nothing else
// of Manta's.
func (s *Server) Env() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "MANTA_") {
			env = append(env, v)
		}
	}
	return append(env, s.variables()...)
}

func (s *Server) variables() []string {
	return []string{
		"MANTA_USER=" + s.Account, "MANTA_SUBUSER=" + s.options.Subuser,
		"MANTA_KEY_ID=" + s.KeyID, "MANTA_KEY_PATH=" + s.KeyFile,
	}
}

// Setenv gives the test itself the environment that Env describes.
func (s *Server) Setenv() {
	s.t.Helper()
	ClearEnv(s.t)
	for _, v := range s.variables() {
		name, value, _ := strings.Cut(v, "=")
		s.t.Setenv(name, value)
	}
}

// ClearEnv takes Manta's variables away from a test, whatever the machine has set.
func ClearEnv(t testing.TB) {
	t.Helper()
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "MANTA_") {
			t.Setenv(name, "") // so that it is restored
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// SetSkew makes the server's clock differ from ours.
func (s *Server) SetSkew(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.skew = d
}

// SetAnswer has f see each request first; true means that it answered. Nil ends that.
func (s *Server) SetAnswer(f func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = f
}

// Paths are all that is stored, sorted; directories end in a slash.
func (s *Server) Paths() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for name, n := range s.nodes {
		name, below := strings.CutPrefix(name, s.root()+"/")
		if n.directory {
			name += "/"
		}
		if below {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

// Add stores an object as another program of the account would, with the
// directories above it.
func (s *Server) Add(name string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.root() + "/" + name
	for dir := path.Dir(at); s.nodes[dir] == nil; dir = path.Dir(dir) {
		s.nodes[dir] = &node{directory: true, modified: time.Now()}
	}
	s.nodes[at] = newObject(data)
}

// Remove removes a directory and all below it, or an object.
func (s *Server) Remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.root() + "/" + name
	for p := range s.nodes {
		if p == at || strings.HasPrefix(p, at+"/") {
			delete(s.nodes, p)
		}
	}
}

// TakeRequests returns "METHOD path" of each request since the last call.
func (s *Server) TakeRequests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.requests
	s.requests = nil
	return seen
}

// newTag returns a version's name in the form of a UUID.
func newTag() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// get returns what is at a path; nil is nothing.
func (s *Server) get(at string) *node {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nodes[at]
}
