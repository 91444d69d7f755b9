package mantaserver

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// customer signs requests with its own few lines, so that a mistake of the
// client under test cannot hide behind the same one here.
type customer struct {
	*testing.T
	server    *Server
	key       crypto.Signer
	algorithm string
	keyID     string
	date      time.Time
	unsigned  bool
}

func newCustomer(t *testing.T, s *Server, file, id string) *customer {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	algorithm := "ecdsa-sha256"
	if s.options.RSA {
		algorithm = "rsa-sha256"
	}
	return &customer{T: t, server: s, key: key.(crypto.Signer), algorithm: algorithm, keyID: "/" + s.Account + "/keys/" + id, date: time.Now()}
}

// do sends a request; more is pairs of headers. It returns the status, the
// error's code, and the answer.
func (c *customer) do(method, at, body string, more ...string) (status int, code string, answer http.Header, text string) {
	c.Helper()
	req, err := http.NewRequestWithContext(c.Context(), method, c.server.Endpoint+at, strings.NewReader(body))
	if err != nil {
		c.Fatal(err)
	}
	for i := 0; i < len(more); i += 2 {
		req.Header.Set(more[i], more[i+1])
	}
	date := c.date.UTC().Format(http.TimeFormat)
	req.Header.Set("Date", date)
	digest := sha256.Sum256([]byte("date: " + date))
	signature, err := c.key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		c.Fatal(err)
	}
	if !c.unsigned {
		req.Header.Set("Authorization", fmt.Sprintf(`Signature keyId="%s",algorithm="%s",signature="%s"`,
			c.keyID, c.algorithm, base64.StdEncoding.EncodeToString(signature)))
	}
	resp, err := c.server.server.Client().Do(req)
	if err != nil {
		c.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		c.Fatal(err)
	}
	var refused struct{ Code string }
	if resp.StatusCode >= 300 {
		_ = json.Unmarshal(data, &refused)
	}
	return resp.StatusCode, refused.Code, resp.Header, string(data)
}

// want sends a request and compares status and code.
func (c *customer) want(status int, code, method, at, body string, more ...string) http.Header {
	c.Helper()
	gotStatus, gotCode, header, _ := c.do(method, at, body, more...)
	if gotStatus != status || gotCode != code {
		c.Errorf("%s %s: %d %s, want %d %s", method, at, gotStatus, gotCode, status, code)
	}
	return header
}

func TestOnlyTheKeyIsLetIn(t *testing.T) {
	for _, useRSA := range []bool{false, true} {
		s := Start(t, Options{RSA: useRSA})
		root := s.root()
		good := newCustomer(t, s, s.KeyFile, s.KeyID)
		good.want(200, "", "GET", root, "")
		kind := "ecdsa"
		if useRSA {
			kind = "rsa"
		}
		other := NewKey(t, kind)
		for _, c := range []struct {
			code   string
			status int
			change func(*customer)
		}{
			{"AuthorizationRequired", 401, func(c *customer) { c.unsigned = true }},
			{"InvalidSignature", 403, func(c *customer) { c.key = newCustomer(t, s, other.File, "").key }},
			{"InvalidSignature", 403, func(c *customer) { c.algorithm = "hmac-sha256" }},
			{"KeyDoesNotExist", 403, func(c *customer) { c.keyID = "/" + s.Account + "/keys/" + other.ID }},
			{"AccountDoesNotExist", 403, func(c *customer) { c.keyID = "/somebody/keys/" + s.KeyID }},
			{"UserDoesNotExist", 403, func(c *customer) { c.keyID = "/" + s.Account + "/nobody/keys/" + s.KeyID }},
			{"InvalidKeyId", 403, func(c *customer) { c.keyID = s.KeyID }},
			{"RequestExpired", 400, func(c *customer) { c.date = c.date.Add(-6 * time.Minute) }},
			{"InvalidHeader", 400, func(c *customer) { c.date = c.date.Add(6 * time.Minute) }},
		} {
			bad := *good
			c.change(&bad)
			bad.want(c.status, c.code, "GET", root, "")
		}
		good.want(403, "AuthorizationFailed", "GET", "/somebody/stor", "")
	}
}

func TestSubuserHasTheKey(t *testing.T) {
	s := Start(t, Options{Subuser: "backup"})
	c := newCustomer(t, s, s.KeyFile, s.KeyID)
	c.want(403, "KeyDoesNotExist", "GET", s.root(), "")
	c.keyID = "/" + s.Account + "/backup/keys/" + s.KeyID
	c.want(200, "", "GET", s.root(), "")
}

const directory = "application/json; type=directory"

// TestDocuments goes through the operations as Manta's documents have them.
func TestDocuments(t *testing.T) {
	s := Start(t, Options{})
	c := newCustomer(t, s, s.KeyFile, s.KeyID)
	dir := s.root() + "/d"
	c.want(404, "DirectoryDoesNotExist", "PUT", dir+"/a", "x")
	c.want(404, "DirectoryDoesNotExist", "PUT", dir+"/e", "", "Content-Type", directory)
	c.want(204, "", "PUT", dir, "", "Content-Type", directory)
	h := c.want(204, "", "PUT", dir+"/a", "0123456789")
	if h.Get("Etag") == "" || h.Get("Computed-MD5") != "eB5eJF1ptWaXm4bijSPyxw==" || h.Get("Last-Modified") == "" {
		t.Errorf("the answer to a put has %v", h)
	}
	c.want(204, "", "PUT", dir, "", "Content-Type", directory) // again: nothing changes
	c.want(400, "ContentMD5Mismatch", "PUT", dir+"/b", "x", "Content-MD5", "eB5eJF1ptWaXm4bijSPyxw==")
	c.want(400, "OperationNotAllowedOnDirectory", "PUT", dir, "x")
	c.want(400, "ParentNotDirectory", "PUT", dir+"/a/b", "x")
	_, _, h, text := c.do("GET", dir+"/a", "", "Range", "bytes=3-5")
	if text != "345" || h.Get("Content-Range") != "bytes 3-5/10" {
		t.Errorf("a range is %q, %v", text, h)
	}
	c.want(416, "RangeNotSatisfiable", "GET", dir+"/a", "", "Range", "bytes=10-")
	c.want(404, "ResourceNotFound", "GET", dir+"/b", "")
	c.want(400, "DirectoryNotEmpty", "DELETE", dir, "")
	c.want(204, "", "DELETE", dir+"/a", "")
	c.want(404, "ResourceNotFound", "DELETE", dir+"/a", "")
	c.want(204, "", "DELETE", dir, "")
}

func TestListing(t *testing.T) {
	s := Start(t, Options{})
	c := newCustomer(t, s, s.KeyFile, s.KeyID)
	for _, name := range []string{"a", "b", "c", "sub/x"} {
		s.Add(name, []byte(name))
	}
	names := func(query string) string {
		_, _, h, text := c.do("GET", s.root()+query, "")
		if h.Get("Content-Type") != listType || h.Get("Result-Set-Size") != "4" {
			t.Errorf("%s: %v", query, h)
		}
		var list []string
		for line := range strings.Lines(text) {
			var e struct{ Name, Type, ETag string }
			if err := json.Unmarshal([]byte(line), &e); err != nil || (e.Type == "object") != (e.ETag != "") {
				t.Errorf("line %s: %v", line, err)
			}
			list = append(list, e.Name)
		}
		return strings.Join(list, " ")
	}
	for query, want := range map[string]string{"": "a b c sub", "?limit=2": "a b", "?limit=2&marker=b": "b c", "?marker=bb": "c sub", "?marker=z": ""} {
		if got := names(query); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	c.want(400, "InvalidArgumentError", "GET", s.root()+"?limit=1025", "")
	s.Remove("sub")
	if got := s.Paths(); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("there is %q", got)
	}
}

// TestConditions has what both kinds of server do, and where they differ.
func TestConditions(t *testing.T) {
	for _, rfc := range []bool{false, true} {
		s := Start(t, Options{RFC: rfc})
		c := newCustomer(t, s, s.KeyFile, s.KeyID)
		at := s.root() + "/a"
		star, empty := 412, 204
		if rfc {
			star, empty = 204, 412
		}
		got := func(more ...string) int { status, _, _, _ := c.do("PUT", at, "x", more...); return status }
		if status := got("If-None-Match", "*"); status != star {
			t.Errorf("RFC %v: If-None-Match: * of nothing: %d", rfc, status)
		}
		s.Remove("a")
		if status := got("If-Match", `""`); status != empty {
			t.Errorf("RFC %v: If-Match: \"\" of nothing: %d", rfc, status)
		}
		s.Remove("a")
		if status := got("If-Match", "some-tag"); status != 412 {
			t.Errorf("RFC %v: If-Match of nothing: %d", rfc, status)
		}
		tag := c.want(204, "", "PUT", at, "y").Get("Etag")
		for _, more := range [][]string{{"If-None-Match", "*"}, {"If-Match", `""`}, {"If-Match", "other"}, {"If-Match", `"` + tag + `"`}} {
			if status := got(more...); status != 412 {
				t.Errorf("RFC %v: %q of an object: %d", rfc, more, status)
			}
		}
		if status := got("If-Match", tag); status != 204 {
			t.Errorf("RFC %v: If-Match of the object's tag: %d", rfc, status)
		}
	}
}
