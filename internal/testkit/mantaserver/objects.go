package mantaserver

import (
	"cmp"
	"crypto/md5"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// listType is the type of a directory's listing.
const listType = "application/x-json-stream; type=directory"

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+r.URL.Path)
	answer, now := s.answer, time.Now().Add(s.skew)
	s.mu.Unlock()
	w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
	w.Header().Set("Server", "Manta simulator")
	if answer != nil && answer(w, r) {
		return
	}
	at := path.Clean(r.URL.Path)
	why := s.keys.refuse(r, now)
	if why == nil && at != s.root() && !strings.HasPrefix(at, s.root()+"/") {
		why = &refusal{403, "AuthorizationFailed", s.Account + " is not allowed to access " + at}
	}
	if why == nil {
		switch r.Method {
		case http.MethodPut:
			why = s.put(w, r, at)
		case http.MethodGet, http.MethodHead:
			why = s.read(w, r, at)
		case http.MethodDelete:
			why = s.remove(w, at)
		default:
			why = &refusal{405, "MethodNotAllowed", r.Method + " is not allowed"}
		}
	}
	if why != nil {
		why.write(w)
	}
}

func (f *refusal) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(f.status)
	_ = json.NewEncoder(w).Encode(map[string]string{"code": f.code, "message": f.message})
}

func newObject(data []byte) *node {
	sum := md5.Sum(data)
	return &node{data: data, etag: newTag(), md5: base64.StdEncoding.EncodeToString(sum[:]), modified: time.Now()}
}

// put is PutDirectory and PutObject.
func (s *Server) put(w http.ResponseWriter, r *http.Request, at string) *refusal {
	before := s.get(at)
	if media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil && media == "application/json" && params["type"] == "directory" {
		return s.putDirectory(w, at)
	}
	if why := s.unmet(r.Header, before); why != nil {
		return why
	}
	switch {
	case at == s.root():
		return &refusal{400, "OperationNotAllowedOnRootDirectory", "PUT is not allowed on " + at}
	case before != nil && before.directory:
		return &refusal{400, "OperationNotAllowedOnDirectory", at + " is a directory: PUT is not allowed"}
	}
	if why := s.noParent(at); why != nil {
		return why
	}
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return &refusal{499, "UploadAbandoned", "request was aborted prematurely by the client"}
	}
	object := newObject(data)
	if want := r.Header.Get("Content-MD5"); want != "" && want != object.md5 {
		return &refusal{400, "ContentMD5Mismatch", "Content-MD5 expected " + want + ", but was " + object.md5}
	}
	conditional := len(r.Header.Values("If-Match"))+len(r.Header.Values("If-None-Match")) > 0
	s.mu.Lock()
	defer s.mu.Unlock()
	if conditional && s.nodes[at] != before {
		return &refusal{409, "ConcurrentRequest", at + " was being concurrently updated"}
	}
	if s.nodes[path.Dir(at)] == nil {
		return &refusal{404, "DirectoryDoesNotExist", path.Dir(at) + " does not exist"}
	}
	s.nodes[at] = object
	w.Header().Set("Etag", object.etag)
	w.Header().Set("Last-Modified", object.modified.UTC().Format(http.TimeFormat))
	w.Header().Set("Computed-MD5", object.md5)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// putDirectory replaces an object of the name: nothing in the published server
// keeps it from that.
func (s *Server) putDirectory(w http.ResponseWriter, at string) *refusal {
	if at != s.root() {
		if why := s.noParent(at); why != nil {
			return why
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.nodes[at]; n == nil || !n.directory {
		s.nodes[at] = &node{directory: true, modified: time.Now()}
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) noParent(at string) *refusal {
	dir := path.Dir(at)
	switch n := s.get(dir); {
	case n == nil:
		return &refusal{404, "DirectoryDoesNotExist", dir + " does not exist"}
	case !n.directory:
		return &refusal{400, "ParentNotDirectory", dir + " is not a directory"}
	}
	return nil
}

var quoted = regexp.MustCompile(`^"(\w*)"$`)

// unmet evaluates If-Match and If-None-Match. In the published server what is
// not there has the empty tag, "*" matches it too, and quotes are taken off
// only of tags without a hyphen.
func (s *Server) unmet(h http.Header, n *node) *refusal {
	etag := ""
	if n != nil {
		etag = n.etag
	}
	matches := func(list string) bool {
		for tag := range strings.SplitSeq(list, ",") {
			tag = quoted.ReplaceAllString(strings.TrimPrefix(strings.TrimSpace(tag), "W/"), "$1")
			switch {
			case tag == "*":
				if !s.options.RFC || n != nil {
					return true
				}
			case tag == etag && (!s.options.RFC || n != nil):
				return true
			}
		}
		return false
	}
	if list := h.Get("If-Match"); list != "" && !matches(list) {
		return &refusal{412, "PreconditionFailed", fmt.Sprintf("if-match '%s' didn't match etag '%s'", list, etag)}
	}
	if list := h.Get("If-None-Match"); list != "" && matches(list) {
		return &refusal{412, "PreconditionFailed", fmt.Sprintf("if-none-match '%s' matched etag '%s'", list, etag)}
	}
	return nil
}

// read is GetObject and ListDirectory, and HEAD of both.
func (s *Server) read(w http.ResponseWriter, r *http.Request, at string) *refusal {
	n := s.get(at)
	switch {
	case n == nil:
		return &refusal{404, "ResourceNotFound", at + " was not found"}
	case n.directory:
		return s.list(w, r, at)
	}
	h := w.Header()
	h.Set("Etag", n.etag)
	h.Set("Last-Modified", n.modified.UTC().Format(http.TimeFormat))
	h.Set("Content-Type", "application/octet-stream")
	data, status := n.data, http.StatusOK
	if asked := r.Header.Get("Range"); asked != "" && len(n.data) > 0 && r.Method == http.MethodGet {
		from, to, ok := parseRange(asked, len(n.data))
		if !ok {
			h.Set("Content-Range", fmt.Sprintf("bytes */%d", len(n.data)))
			return &refusal{416, "RangeNotSatisfiable", asked + " is an invalid range"}
		}
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(n.data)))
		data, status = n.data[from:to], http.StatusPartialContent
	} else {
		h.Set("Accept-Ranges", "bytes")
		h.Set("Content-MD5", n.md5)
	}
	h.Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(status)
	if r.Method == http.MethodGet {
		_, _ = w.Write(data)
	}
	return nil
}

// parseRange reads bytes=from-to and bytes=from-; the end that it returns is exclusive.
func parseRange(header string, size int) (from, to int, ok bool) {
	first, last, found := strings.Cut(strings.TrimPrefix(header, "bytes="), "-")
	from, err := strconv.Atoi(first)
	if !found || err != nil || from >= size {
		return 0, 0, false
	}
	if last == "" {
		return from, size, true
	}
	to, err = strconv.Atoi(last)
	if err != nil || to < from {
		return 0, 0, false
	}
	return from, min(to+1, size), true
}

// list is ListDirectory: names from the marker on, which is one of them.
func (s *Server) list(w http.ResponseWriter, r *http.Request, dir string) *refusal {
	query := r.URL.Query()
	limit, err := strconv.Atoi(cmp.Or(query.Get("limit"), "256"))
	if err != nil || limit < 1 || limit > 1024 {
		return &refusal{400, "InvalidArgumentError", "limit=" + query.Get("limit") + " is invalid: must be between [1, 1024]"}
	}
	if s.options.MostEntries > 0 {
		limit = min(limit, s.options.MostEntries)
	}
	names, lines := s.children(dir)
	w.Header().Set("Content-Type", listType)
	w.Header().Set("Result-Set-Size", strconv.Itoa(len(names)))
	if r.Method == http.MethodHead {
		return nil
	}
	begin, _ := slices.BinarySearch(names, query.Get("marker"))
	for _, name := range names[begin:min(begin+limit, len(names))] {
		_, _ = w.Write(lines[name])
	}
	return nil
}

// children returns the sorted names in a directory and their lines of a listing.
func (s *Server) children(dir string) (names []string, lines map[string][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines = map[string][]byte{}
	for at, n := range s.nodes {
		if path.Dir(at) != dir {
			continue
		}
		entry := map[string]any{"name": path.Base(at), "type": "directory", "mtime": n.modified.UTC().Format("2006-01-02T15:04:05.000Z")}
		if !n.directory {
			entry["type"], entry["etag"], entry["size"] = "object", n.etag, len(n.data)
			entry["contentType"], entry["contentMD5"], entry["durability"] = "application/octet-stream", n.md5, 2
		}
		line, err := json.Marshal(entry)
		if err != nil {
			panic(err) // of text and numbers
		}
		names = append(names, path.Base(at))
		lines[path.Base(at)] = append(line, '\n')
	}
	slices.Sort(names)
	return names, lines
}

// remove is DeleteObject and DeleteDirectory.
func (s *Server) remove(w http.ResponseWriter, at string) *refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[at]
	switch {
	case n == nil:
		return &refusal{404, "ResourceNotFound", at + " was not found"}
	case at == s.root():
		return &refusal{400, "OperationNotAllowedOnRootDirectory", "DELETE is not allowed on " + at}
	}
	if n.directory {
		for other := range s.nodes {
			if path.Dir(other) == at {
				return &refusal{400, "DirectoryNotEmpty", at + " is not empty"}
			}
		}
	}
	delete(s.nodes, at)
	w.WriteHeader(http.StatusNoContent)
	return nil
}
