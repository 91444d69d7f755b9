package manta_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"drover/internal/objstore"
	"drover/internal/objstore/manta"
	"drover/internal/testkit/mantaserver"
)

// serve returns a store whose server gives one fixed answer.
func serve(t *testing.T, status int, header http.Header, body string) *manta.Store {
	t.Helper()
	server := start(t, mantaserver.Options{})
	server.SetAnswer(func(w http.ResponseWriter, r *http.Request) bool {
		_, _ = io.Copy(io.Discard, r.Body)
		for k, v := range header {
			w.Header()[k] = v
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
		return true
	})
	return open(t, server.URL("p"))
}

func told(code string) string { return fmt.Sprintf(`{"code":%q,"message":"told so"}`, code) }

func TestKindsOfAnswers(t *testing.T) {
	for _, c := range []struct {
		status int
		code   string
		want   error
	}{
		{404, "ResourceNotFound", objstore.ErrNotFound},
		{401, "AuthorizationRequired", objstore.ErrUnauthorised},
		{401, "InvalidAlgorithm", objstore.ErrUnauthorised},
		{403, "KeyDoesNotExist", objstore.ErrUnauthorised},
		{403, "InvalidSignature", objstore.ErrUnauthorised},
		{403, "AuthorizationFailed", objstore.ErrUnauthorised},
		{400, "RequestExpired", objstore.ErrUnauthorised},
		{400, "ContentMD5Mismatch", objstore.ErrUnavailable},
		{408, "UploadTimeout", objstore.ErrUnavailable},
		{429, "TooManyRequests", objstore.ErrUnavailable},
		{499, "UploadAbandoned", objstore.ErrUnavailable},
		{500, "InternalError", objstore.ErrUnavailable},
		{501, "NotImplemented", objstore.ErrUnsupported},
		{503, "ThrottledError", objstore.ErrUnavailable},
		{507, "NotEnoughSpace", objstore.ErrUnavailable},
	} {
		s := serve(t, c.status, nil, told(c.code))
		_, _, err := s.Get(t.Context(), "a", 0, -1)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), "told so") {
			t.Errorf("%d %s: %v, want %v", c.status, c.code, err, c.want)
		}
	}
}

func TestPlainFailures(t *testing.T) {
	for status, code := range map[int]string{301: "", 400: "InvalidUpdate", 409: "DirectoryLimitExceeded", 413: "MaxContentLengthExceeded"} {
		err := serve(t, status, nil, told(code)).Put(t.Context(), "a", nil)
		if err == nil {
			t.Errorf("%d %s: no error", status, code)
		}
		for _, kind := range []error{objstore.ErrNotFound, objstore.ErrConflict, objstore.ErrUnauthorised, objstore.ErrUnavailable, objstore.ErrUnsupported, objstore.ErrRange} {
			if errors.Is(err, kind) {
				t.Errorf("%d %s: %v is of the kind %q", status, code, err, kind)
			}
		}
	}
}

func TestKindsOfConditionalAnswers(t *testing.T) {
	for _, c := range []struct {
		status int
		code   string
		want   error
	}{
		{412, "PreconditionFailed", objstore.ErrConflict},
		{409, "ConcurrentRequest", objstore.ErrConflict},
		{404, "ResourceNotFound", objstore.ErrConflict},
		{404, "DirectoryDoesNotExist", objstore.ErrUnavailable},
		{501, "NotImplemented", objstore.ErrUnsupported},
		{503, "ServiceUnavailable", objstore.ErrUnavailable},
	} {
		s := serve(t, c.status, nil, told(c.code))
		_, err := s.PutIf(t.Context(), "a", []byte("x"), objstore.IfMatch("e"))
		if !errors.Is(err, c.want) || errors.Is(err, objstore.ErrNotFound) {
			t.Errorf("%d %s: %v, want %v", c.status, c.code, err, c.want)
		}
		if err := s.Put(t.Context(), "a", nil); errors.Is(err, objstore.ErrConflict) || errors.Is(err, objstore.ErrNotFound) {
			t.Errorf("%d %s: a plain put: %v", c.status, c.code, err)
		}
	}
}

// TestNotAMantaServer: what a proxy or a login page says is never "empty" or "not found".
func TestNotAMantaServer(t *testing.T) {
	for _, status := range []int{200, 204, 404} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			body := "<html><body>Please log in</body></html>"
			if status == 204 {
				body = ""
			}
			s := serve(t, status, http.Header{"Last-Modified": {"Wed, 21 Oct 2026 07:28:00 GMT"}}, body)
			_, _, getErr := s.Get(t.Context(), "a", 0, -1)
			_, headErr := s.Head(t.Context(), "a")
			_, createErr := s.PutIf(t.Context(), "a", nil, objstore.IfAbsent())
			_, swapErr := s.PutIf(t.Context(), "a", nil, objstore.IfMatch("x"))
			for op, err := range map[string]error{
				"Get": getErr, "Head": headErr, "create": createErr, "swap": swapErr, "Put": s.Put(t.Context(), "a", []byte("x")),
				"List": s.List(t.Context(), "", func(objstore.Info) error { return nil }),
			} {
				if !errors.Is(err, objstore.ErrUnavailable) {
					t.Errorf("%s: %v", op, err)
				}
			}
		})
	}
}

// TestPutThatIsNoSuccess: without one ETag, or with other bytes stored, nobody
// knows what is there.
func TestPutThatIsNoSuccess(t *testing.T) {
	for name, header := range map[string]http.Header{
		"no ETag":     {"Computed-Md5": {"ndTkYSaMgDT1yFZOFVxnpg=="}},
		"empty ETag":  {"Etag": {""}},
		"two ETags":   {"Etag": {"former", "new"}},
		"other bytes": {"Etag": {"e"}, "Computed-Md5": {"1B2M2Y8AsgTpgAmY7PhCfg=="}},
	} {
		s := serve(t, 204, header, "")
		_, err := s.PutIf(t.Context(), "a", []byte("x"), objstore.IfMatch("e"))
		if !errors.Is(err, objstore.ErrUnavailable) {
			t.Errorf("%s: PutIf: %v", name, err)
		}
		if err := s.Put(t.Context(), "a", []byte("x")); !errors.Is(err, objstore.ErrUnavailable) {
			t.Errorf("%s: Put: %v", name, err)
		}
	}
	good := http.Header{"Etag": {"e"}, "Computed-Md5": {"ndTkYSaMgDT1yFZOFVxnpg=="}}
	if tag, err := serve(t, 204, good, "").PutIf(t.Context(), "a", []byte("x"), objstore.IfMatch("d")); err != nil || tag != "e" {
		t.Errorf("a good answer: %q, %v", tag, err)
	}
}

// TestPutIfIsSentOnce: whatever the answer, a swap is one request, and a create
// is put a second time only after a refusal and a look that found nothing.
func TestPutIfIsSentOnce(t *testing.T) {
	server := start(t, mantaserver.Options{})
	s := open(t, server.URL("p"))
	put(t, s, "there", "x")
	for _, status := range []int{412, 409, 500, 503, 404} {
		server.SetAnswer(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPut {
				return false
			}
			w.WriteHeader(status)
			return true
		})
		for key, cond := range map[string]objstore.Condition{"there": objstore.IfMatch("e"), "a": objstore.IfAbsent()} {
			server.TakeRequests()
			if _, err := s.PutIf(t.Context(), key, nil, cond); err == nil {
				t.Errorf("%d: no error", status)
			}
			puts := strings.Count(strings.Join(server.TakeRequests(), "\n"), "PUT ")
			if want := 1; puts != want && (!cond.Absent || status != 412 || puts != 2) {
				t.Errorf("%d, %+v: %d puts", status, cond, puts)
			}
		}
	}
}

// TestCreateThatCannotLook: refused, and whether something is there is not to be
// found out, so nothing more is sent.
func TestCreateThatCannotLook(t *testing.T) {
	server := start(t, mantaserver.Options{})
	s := open(t, server.URL("p"))
	put(t, s, "there", "x")
	server.SetAnswer(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		return false
	})
	server.TakeRequests()
	_, err := s.PutIf(t.Context(), "a", nil, objstore.IfAbsent())
	if !errors.Is(err, objstore.ErrUnavailable) || errors.Is(err, objstore.ErrConflict) {
		t.Errorf("got %v", err)
	}
	if puts := strings.Count(strings.Join(server.TakeRequests(), "\n"), "PUT "); puts != 1 {
		t.Errorf("%d puts", puts)
	}
}

// TestConditionsAreSent holds the headers: a tag as it was given, without quotes.
func TestConditionsAreSent(t *testing.T) {
	server := start(t, mantaserver.Options{})
	s := open(t, server.URL("p"))
	tag, err := s.PutIf(t.Context(), "a", []byte("x"), objstore.IfAbsent())
	if err != nil {
		t.Fatal(err)
	}
	server.SetAnswer(func(_ http.ResponseWriter, r *http.Request) bool {
		if got := r.Header.Get("If-Match"); got != string(tag) || r.Header.Get("If-None-Match") != "" {
			t.Errorf("If-Match: %s, want %s", got, tag)
		}
		if got := r.Header.Get("Content-MD5"); got != "QVKQdpWURg4uSFkikE80XQ==" {
			t.Errorf("Content-MD5: %s", got)
		}
		if len(r.TransferEncoding) != 0 || r.ContentLength != 1 {
			t.Errorf("length %d, %q", r.ContentLength, r.TransferEncoding)
		}
		return false
	})
	if _, err := s.PutIf(t.Context(), "a", []byte("y"), objstore.IfMatch(tag)); err != nil {
		t.Error(err)
	}
}

func TestServerThatMisreadsRanges(t *testing.T) {
	etag := http.Header{"Etag": {"e"}, "Last-Modified": {"Wed, 21 Oct 2026 07:28:00 GMT"}}
	if _, _, err := serve(t, 200, etag, "0123456789").Get(t.Context(), "a", 2, 3); !errors.Is(err, objstore.ErrUnsupported) {
		t.Errorf("a server that ignores ranges: %v", err)
	}
	if got, info, err := serve(t, 200, etag, "0123").Get(t.Context(), "a", 0, 30); err != nil || string(got) != "0123" || info.Size != 4 {
		t.Errorf("a server that sends all for a range that is all: %q, %+v, %v", got, info, err)
	}
	for _, content := range []string{"bytes 0-2/10", "bytes 2-3/10", "nonsense", "", "bytes 2-4/*", "bytes 2-4/5/6", "bytes 2-4/4"} {
		header := http.Header{"Etag": {"e"}, "Content-Range": {content}}
		if got, _, err := serve(t, 206, header, "234").Get(t.Context(), "a", 2, 3); err == nil {
			t.Errorf("Content-Range %q: got %q without an error", content, got)
		}
	}
	short := http.Header{"Etag": {"e"}, "Content-Length": {"10"}}
	if _, _, err := serve(t, 200, short, "012").Get(t.Context(), "a", 0, -1); !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("an answer that is cut off: %v", err)
	}
}

func TestBadListings(t *testing.T) {
	header := http.Header{"Content-Type": {"application/x-json-stream; type=directory"}}
	for _, body := range []string{
		`{"name":"a","type":"object","size":1,"mtime":"2026-01-01T00:00:00Z"}` + "\n" + `{"name":"b","ty`,
		`{"name":"","type":"object"}`, `{"name":"a/b","type":"object"}`, `{"name":"a","type":"door"}`, `{"name":"a"}`,
		`{"name":"a","type":"object","size":-1}`, `{"name":1,"type":"object"}`, `[]`, `<html>`,
	} {
		err := serve(t, 200, header, body).List(t.Context(), "", func(objstore.Info) error { return nil })
		if !errors.Is(err, objstore.ErrUnavailable) {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// TestListEndsWithTheCallersError returns it as it is, and calls nobody again,
// though other directories are being read.
func TestListEndsWithTheCallersError(t *testing.T) {
	server := start(t, mantaserver.Options{})
	s := open(t, server.URL("p"))
	const directories = 6
	for i := range directories {
		put(t, s, fmt.Sprintf("%d/x", i), "x")
	}
	enough := errors.New("enough")
	for range 20 {
		reading, all := make(chan string, 100), map[string]bool{}
		server.SetAnswer(func(_ http.ResponseWriter, r *http.Request) bool { reading <- r.URL.Path; return false })
		calls := 0
		err := s.List(t.Context(), "", func(objstore.Info) error {
			for len(all) < directories+1 { // until each is asked for
				all[<-reading] = true
			}
			calls++
			return enough
		})
		if err != enough || calls != 1 {
			t.Fatalf("got %v after %d calls", err, calls)
		}
	}
}
