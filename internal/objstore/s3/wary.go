package s3

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
)

// wary turns answers that no S3 server gave into 502 Bad Gateway. The SDK takes
// any 404 for "no such key" and any XML-like page for an empty listing, so that
// a misguided proxy would make a full bucket look empty.
type wary struct{ next http.RoundTripper }

// peekSize is enough for the first elements of any S3 answer.
const peekSize = 4 << 10

func (w wary) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := w.next.RoundTrip(req)
	if err != nil || req.Method == http.MethodHead {
		return resp, err
	}
	var mark []byte
	switch {
	case resp.StatusCode == http.StatusNotFound:
		mark = []byte("<Code>")
	case resp.StatusCode == http.StatusOK && req.URL.Query().Has("list-type"):
		mark = []byte("<ListBucketResult")
	default:
		return resp, nil
	}
	body := bufio.NewReaderSize(resp.Body, peekSize)
	head, err := body.Peek(peekSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(err, resp.Body.Close())
	}
	if !bytes.Contains(head, mark) {
		resp.StatusCode, resp.Status = http.StatusBadGateway, "502 not an answer of an S3 server"
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{body, resp.Body}
	return resp, nil
}
