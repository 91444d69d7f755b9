package s3server

import (
	"crypto/md5"
	"encoding/hex"
	"encoding/xml"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Careless is a server that speaks enough of S3 for Drover and breaks one
// promise: it ignores the conditions of a put and answers 200, as some servers
// do. It believes any signature.
type Careless struct {
	server *httptest.Server

	mu      sync.Mutex
	objects map[string]object
}

type object struct {
	data []byte
	etag string
	at   time.Time
}

// StartCareless starts a Careless with an empty bucket.
func StartCareless(t testing.TB) *Careless {
	t.Helper()
	c := &Careless{objects: map[string]object{}}
	c.server = httptest.NewServer(c)
	t.Cleanup(c.server.Close)
	return c
}

// URL is the store's URL for a prefix of the bucket.
func (c *Careless) URL(prefix string) string {
	return "s3://bucket/" + prefix + "?endpoint=" + c.server.URL + "&region=us-east-1"
}

// Keys are the names of all objects.
func (c *Careless) Keys() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.objects))
}

// ServeHTTP implements http.Handler: /bucket/key, and /bucket?list-type=2.
func (c *Careless) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	key, inBucket := strings.CutPrefix(r.URL.Path, "/bucket/")
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !inBucket || key == "":
		c.list(w, r.URL.Query())
	case r.Method == http.MethodPut:
		sum := md5.Sum(body)
		c.objects[key] = object{body, hex.EncodeToString(sum[:]), time.Now()}
		w.Header().Set("ETag", strconv.Quote(c.objects[key].etag))
	case r.Method == http.MethodDelete:
		delete(c.objects, key)
		w.WriteHeader(http.StatusNoContent)
	default:
		c.get(w, r, key)
	}
}

func (c *Careless) get(w http.ResponseWriter, r *http.Request, key string) {
	o, ok := c.objects[key]
	if !ok {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(http.StatusNotFound)
		_ = xml.NewEncoder(w).Encode(struct {
			XMLName xml.Name `xml:"Error"`
			Code    string
		}{Code: "NoSuchKey"})
		return
	}
	w.Header().Set("ETag", strconv.Quote(o.etag))
	http.ServeContent(w, r, "", o.at, strings.NewReader(string(o.data)))
}

func (c *Careless) list(w http.ResponseWriter, query url.Values) {
	type contents struct {
		Key          string
		LastModified string
		ETag         string
		Size         int
	}
	answer := struct {
		XMLName     xml.Name `xml:"ListBucketResult"`
		IsTruncated bool
		Contents    []contents
	}{}
	for _, key := range slices.Sorted(maps.Keys(c.objects)) {
		if o := c.objects[key]; strings.HasPrefix(key, query.Get("prefix")) {
			answer.Contents = append(answer.Contents, contents{key, o.at.UTC().Format(time.RFC3339), strconv.Quote(o.etag), len(o.data)})
		}
	}
	w.Header().Set("Content-Type", "application/xml")
	_ = xml.NewEncoder(w).Encode(answer)
}
