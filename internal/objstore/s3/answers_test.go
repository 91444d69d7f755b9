package s3_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drover/internal/objstore"
	"drover/internal/objstore/s3"
	"drover/internal/testkit/s3server"
)

// serve returns a store whose server gives one fixed answer.
func serve(t *testing.T, status int, header map[string]string, body string) *s3.Store {
	t.Helper()
	s3server.ClearEnv(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		for k, v := range header {
			w.Header().Set(k, v)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	return open(t, "s3://bucket/p?endpoint="+server.URL, nil)
}

func xml(code string) string {
	return `<?xml version="1.0" encoding="UTF-8"?><Error><Code>` + code + `</Code><Message>told so</Message></Error>`
}

func TestKindsOfAnswers(t *testing.T) {
	for _, c := range []struct {
		status int
		code   string
		want   error
	}{
		{404, "NoSuchKey", objstore.ErrNotFound},
		{403, "AccessDenied", objstore.ErrUnauthorised},
		{403, "SignatureDoesNotMatch", objstore.ErrUnauthorised},
		{403, "RequestTimeTooSkewed", objstore.ErrUnauthorised},
		{400, "ExpiredToken", objstore.ErrUnauthorised},
		{400, "RequestTimeout", objstore.ErrUnavailable},
		{409, "OperationAborted", objstore.ErrUnavailable},
		{429, "TooManyRequests", objstore.ErrUnavailable},
		{500, "InternalError", objstore.ErrUnavailable},
		{501, "NotImplemented", objstore.ErrUnsupported},
		{502, "BadGateway", objstore.ErrUnavailable},
		{503, "SlowDown", objstore.ErrUnavailable},
	} {
		s := serve(t, c.status, nil, xml(c.code))
		_, _, err := s.Get(t.Context(), "a", 0, -1)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), "told so") {
			t.Errorf("%d %s: %v, want %v", c.status, c.code, err, c.want)
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
		{409, "ConditionalRequestConflict", objstore.ErrConflict},
		{404, "NoSuchKey", objstore.ErrConflict},
		{501, "NotImplemented", objstore.ErrUnsupported},
		{503, "SlowDown", objstore.ErrUnavailable},
	} {
		_, err := serve(t, c.status, nil, xml(c.code)).PutIf(t.Context(), "a", []byte("x"), objstore.IfMatch("e"))
		if !errors.Is(err, c.want) {
			t.Errorf("%d %s: %v, want %v", c.status, c.code, err, c.want)
		}
		if c.want == objstore.ErrConflict && errors.Is(err, objstore.ErrNotFound) {
			t.Errorf("%d %s: is a conflict and not found", c.status, c.code)
		}
	}
}

// TestNotAnS3Server: what a proxy or a login page says is never "empty" or "not found".
func TestNotAnS3Server(t *testing.T) {
	for _, status := range []int{200, 404} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			s := serve(t, status, map[string]string{"Last-Modified": "Wed, 21 Oct 2026 07:28:00 GMT"}, "<html><body>Please log in</body></html>")
			_, _, getErr := s.Get(t.Context(), "a", 0, -1)
			_, headErr := s.Head(t.Context(), "a")
			_, putIfErr := s.PutIf(t.Context(), "a", nil, objstore.IfAbsent())
			for op, err := range map[string]error{
				"Get": getErr, "Head": headErr, "PutIf": putIfErr, "Put": s.Put(t.Context(), "a", []byte("x")),
				"List": s.List(t.Context(), "", func(objstore.Info) error { return nil }),
			} {
				if !errors.Is(err, objstore.ErrUnavailable) {
					t.Errorf("%s: %v", op, err)
				}
			}
		})
	}
}

func TestServerThatMisreadsRanges(t *testing.T) {
	whole := map[string]string{"ETag": `"e"`, "Last-Modified": "Wed, 21 Oct 2026 07:28:00 GMT"}
	if _, _, err := serve(t, 200, whole, "0123456789").Get(t.Context(), "a", 2, 3); !errors.Is(err, objstore.ErrUnsupported) {
		t.Errorf("a server that ignores ranges: %v", err)
	}
	if got, info, err := serve(t, 200, whole, "0123").Get(t.Context(), "a", 0, 30); err != nil || string(got) != "0123" || info.Size != 4 {
		t.Errorf("a server that sends all for a range that is all: %q, %+v, %v", got, info, err)
	}
	for _, content := range []string{"bytes 0-2/10", "bytes 2-3/10", "nonsense", "bytes 2-4/*", "bytes 2-4/5/6"} {
		header := map[string]string{"ETag": `"e"`, "Last-Modified": whole["Last-Modified"], "Content-Range": content}
		if got, _, err := serve(t, 206, header, "234").Get(t.Context(), "a", 2, 3); err == nil {
			t.Errorf("Content-Range %q: got %q without an error", content, got)
		}
	}
	short := map[string]string{"ETag": `"e"`, "Last-Modified": whole["Last-Modified"], "Content-Length": "10"}
	if _, _, err := serve(t, 200, short, "012").Get(t.Context(), "a", 0, -1); !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("an answer that is cut off: %v", err)
	}
	cut := `<?xml version="1.0"?><ListBucketResult><Contents><Key>p/a</Key>`
	if err := serve(t, 200, nil, cut).List(t.Context(), "", func(objstore.Info) error { return nil }); err == nil {
		t.Error("a listing that is cut off: no error")
	}
}

func TestWrongRegion(t *testing.T) {
	err := serve(t, 400, map[string]string{"X-Amz-Bucket-Region": "eu-west-3"}, xml("AuthorizationHeaderMalformed")).Put(t.Context(), "a", nil)
	if err == nil || !strings.Contains(err.Error(), "region=eu-west-3") {
		t.Errorf("got %v", err)
	}
}

func TestNoCredentials(t *testing.T) {
	s3server.ClearEnv(t)
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/role") // stands for a metadata service that is not there
	_, err := open(t, "s3://bucket/p?endpoint=http://127.0.0.1:1", nil).Head(t.Context(), "a")
	if !errors.Is(err, objstore.ErrUnauthorised) || !strings.Contains(err.Error(), "no credentials found") {
		t.Errorf("got %v", err)
	}
}

func TestCredentialsFile(t *testing.T) {
	s3server.ClearEnv(t)
	file := filepath.Join(t.TempDir(), "credentials")
	writeFile(t, file, "[work]\naws_access_key_id = fromfile\naws_secret_access_key = s\n")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	t.Setenv("AWS_PROFILE", "work")
	var c counter
	s := open(t, "s3://bucket/p?endpoint=http://127.0.0.1:1", c.wrap)
	if _, err := s.Head(t.Context(), "a"); !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	seen := c.take()
	if len(seen) != 1 || !strings.Contains(seen[0].Header.Get("Authorization"), "Credential=fromfile/") {
		t.Errorf("requests %v", seen)
	}
}

func TestParseURL(t *testing.T) {
	for raw, want := range map[string]s3.Options{
		"s3://b":           {Bucket: "b", PathStyle: "auto"},
		"s3://b/":          {Bucket: "b", PathStyle: "auto"},
		"s3://b/some/pre/": {Bucket: "b", Prefix: "some/pre", PathStyle: "auto"},
		"s3://b/p?endpoint=http://h:9000&region=eu-1&path-style=true&ca=/x.pem&content-md5=true": {
			Bucket: "b", Prefix: "p", Endpoint: "http://h:9000", Region: "eu-1", PathStyle: "true", CA: "/x.pem", ContentMD5: true},
	} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s3.ParseURL(u)
		if err != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Errorf("%s: %+v, %v", raw, got, err)
		}
	}
}

func TestParseURLRefuses(t *testing.T) {
	for raw, want := range map[string]string{
		"s3:///p":               "s3://BUCKET",
		"s3:bucket":             "s3://BUCKET",
		"s3://id:topsecret@b/p": "AWS_SECRET_ACCESS_KEY",
		"s3://b/p?endpoint=http://id:topsecret@h": "AWS_SECRET_ACCESS_KEY",
		"s3://host:9000/b":                        "?endpoint=",
		"s3://b/p#x":                              "fragment",
		"s3://b/a%20b":                            "prefix",
		"s3://b/a//b":                             "prefix",
		"s3://b?endpoint=host:9000":               "http://",
		"s3://b?endpoint=host":                    "http://",
		"s3://b?endpoint=http://h/path":           "more than a host",
		"s3://b?region=a&region=b":                "2 times",
		"s3://b?regoin=a":                         "regoin",
		"s3://b?path-style=maybe":                 "path-style",
		"s3://b?content-md5=maybe":                "content-md5",
		"s3://b?credentials=relative":             "absolute path",
		"s3://b?a=%zz":                            "well-formed",
	} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s3.ParseURL(u)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "topsecret") {
			t.Errorf("%s: %v, want %q in it", raw, err, want)
		}
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
