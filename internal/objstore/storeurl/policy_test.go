package storeurl_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"drover/internal/app"
	"drover/internal/testkit/s3server"
)

// statement is one of an Amazon policy, as docs/stores.md has them.
type statement struct {
	Effect   string
	Action   []string
	Resource string
}

// allows evaluates as Amazon does, as far as these statements go: * in a
// resource stands for anything.
func allows(policy []statement, action, resource string) bool {
	for _, s := range policy {
		pattern := "^" + strings.ReplaceAll(regexp.QuoteMeta(s.Resource), `\*`, ".*") + "$"
		if slices.Contains(s.Action, action) && regexp.MustCompile(pattern).MatchString(resource) {
			return s.Effect == "Allow"
		}
	}
	return false
}

// policies are those of docs/stores.md, in their order, for the test's bucket.
func policies(t *testing.T, bucket string) [][]statement {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "stores.md"))
	if err != nil {
		t.Fatal(err)
	}
	var list [][]statement
	for block := range strings.SplitSeq(string(text), "```json\n") {
		block, _, found := strings.Cut(block, "```")
		var policy struct{ Statement []statement }
		block = strings.ReplaceAll(block, "arn:aws:s3:::state", "arn:aws:s3:::"+bucket)
		if found && json.Unmarshal([]byte(block), &policy) == nil {
			list = append(list, policy.Statement)
		}
	}
	return list
}

// guard stands before an S3 server and lets in what a policy allows.
type guard struct {
	policy []statement
	next   http.Handler

	mu      sync.Mutex
	used    map[string]bool // actions
	refused []string
}

// startGuard returns the guard, and the URL of the store behind it.
func startGuard(t *testing.T, server *s3server.Server, policy []statement) (*guard, string) {
	t.Helper()
	to, err := url.Parse(server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	g := &guard{policy: policy, used: map[string]bool{}}
	g.next = &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host = to.Scheme, to.Host // the Host header stays, since it is signed
		r.Out.Host = r.In.Host
	}}
	front := httptest.NewServer(g)
	t.Cleanup(front.Close)
	return g, strings.Replace(server.URL("wiki"), server.Endpoint, front.URL, 1)
}

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	action, resource := request(r)
	g.mu.Lock()
	g.used[action] = true
	ok := allows(g.policy, action, resource)
	if !ok {
		g.refused = append(g.refused, action+" "+resource)
	}
	g.mu.Unlock()
	if ok {
		g.next.ServeHTTP(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(http.StatusForbidden)
	fmt.Fprint(w, "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")
}

// request says which permission a request needs, and on what ("Required
// permissions for Amazon S3 API operations").
func request(r *http.Request) (action, resource string) {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	resource = "arn:aws:s3:::" + path.Join(bucket, key)
	query := r.URL.Query()
	query.Del("x-id") // a name that some clients add
	switch {
	case key == "" && r.Method == http.MethodGet && query.Get("list-type") == "2":
		return "s3:ListBucket", resource
	case key == "" || len(query) > 0:
	case r.Method == http.MethodGet, r.Method == http.MethodHead:
		return "s3:GetObject", resource
	case r.Method == http.MethodPut && r.Header.Get("X-Amz-Copy-Source") == "":
		return "s3:PutObject", resource
	case r.Method == http.MethodDelete:
		return "s3:DeleteObject", resource
	}
	return r.Method + " ?" + r.URL.RawQuery, resource
}

// TestPolicyOfS3 has an application live, and its volume be kept up, under the
// policy that docs/stores.md gives. It uses all of it, and needs no more.
func TestPolicyOfS3(t *testing.T) {
	server := s3server.Start(t, s3server.Options{})
	server.Setenv()
	policy := policies(t, server.Bucket)[0]
	g, store := startGuard(t, server, policy)
	state := filepath.Join(t.TempDir(), "state")
	newInstance(t, store, state).run(state, `echo one > "`+state+`/a"`)
	i := newInstance(t, store, state)
	if got := i.run(state, `cat "`+state+`/a"; echo two > "`+state+`/a"`); got != "one\n" {
		t.Errorf("restored is %q", got)
	}
	if report, err := i.ops().Probe(t.Context()); err != nil {
		t.Errorf("probe: %v: %+v", err, report)
	}
	if _, err := i.ops().Forget(t.Context(), app.ForgetOptions{Last: 1, Prune: true}); err != nil {
		t.Errorf("forget: %v", err)
	}
	if _, err := i.ops().Verify(t.Context(), app.VerifyOptions{ReadData: true}); err != nil {
		t.Errorf("verify: %v", err)
	}
	granted := map[string]bool{}
	for _, s := range policy {
		for _, action := range s.Action {
			granted[action] = true
		}
	}
	if !maps.Equal(granted, g.used) || len(g.refused) > 0 {
		t.Errorf("granted are %v, used %v; refused was %q", granted, g.used, g.refused)
	}
}

// TestPolicyWithoutPrune has an application live under the policy for agents
// where somebody else prunes.
func TestPolicyWithoutPrune(t *testing.T) {
	server := s3server.Start(t, s3server.Options{})
	server.Setenv()
	g, store := startGuard(t, server, policies(t, server.Bucket)[1])
	state := filepath.Join(t.TempDir(), "state")
	newInstance(t, store, state).run(state, `echo one > "`+state+`/a"`)
	i := newInstance(t, store, state)
	if got := i.run(state, `cat "`+state+`/a"; echo two > "`+state+`/a"`); got != "one\n" {
		t.Errorf("restored is %q", got)
	}
	if len(g.refused) > 0 {
		t.Errorf("refused was %q", g.refused)
	}
	if _, err := i.ops().Forget(t.Context(), app.ForgetOptions{Last: 1, Prune: true}); err == nil || len(g.refused) == 0 {
		t.Errorf("an agent's permissions are enough to forget: %v", err)
	}
}
