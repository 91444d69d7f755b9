package check

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// userAgent is what probes call themselves.
const userAgent = "drover"

// TCP connects: a connection that is accepted is well.
type TCP struct {
	Address string // host:port
}

// Probe connects and hangs up.
func (t *TCP) Probe(ctx context.Context) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", t.Address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// HTTP sends a request. Each probe has a connection of its own: that the server
// still accepts them is part of the question. No proxy is used.
type HTTP struct {
	URL     string // http or https; or unix:SOCKET:/PATH, HTTP over that socket
	Method  string // empty: GET
	Headers map[string]string
	// Status are the answers that are well; none: 2xx. A redirect is an answer
	// like any other, and is never followed.
	Status   []Status
	Body     *regexp.Regexp // if set, must be found in the first MiB of the answer
	CA       string         // file of certificates to trust, in PEM form, besides the system's
	Insecure bool           // trust any certificate
}

// maxBody bounds what is read of an answer, in bytes.
const maxBody = 1 << 20

// Valid tells what is wrong with the request, if anything.
func (h *HTTP) Valid() error {
	_, _, err := h.request(context.Background())
	return err
}

// request makes the request, and names the socket that it goes to if that is a
// unix socket.
func (h *HTTP) request(ctx context.Context) (req *http.Request, socket string, err error) {
	target := h.URL
	if rest, ok := strings.CutPrefix(target, "unix:"); ok {
		var path string
		socket, path, _ = strings.Cut(rest, ":")
		if !strings.HasPrefix(socket, "/") || path != "" && path[0] != '/' {
			return nil, "", fmt.Errorf("URL %q: want unix:/SOCKET:/PATH", h.URL)
		}
		target = "http://localhost" + path
	}
	u, err := url.Parse(target)
	if err != nil {
		return nil, "", err
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, "", fmt.Errorf("URL %q: want http://HOST, https://HOST or unix:/SOCKET:/PATH", h.URL)
	}
	req, err = http.NewRequestWithContext(ctx, cmp.Or(h.Method, http.MethodGet), target, nil)
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("User-Agent", userAgent)
	if u.User != nil {
		password, _ := u.User.Password()
		req.SetBasicAuth(u.User.Username(), password)
	}
	for name, value := range h.Headers {
		req.Header.Set(name, value)
		if http.CanonicalHeaderKey(name) == "Host" {
			req.Host = value // it is not sent from the header
		}
	}
	return req, socket, nil
}

// Probe sends the request and looks at the answer.
func (h *HTTP) Probe(ctx context.Context) error {
	req, socket, err := h.request(ctx)
	if err != nil {
		return err
	}
	trust, err := tlsConfig(h.CA, h.Insecure)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true, TLSClientConfig: trust, MaxResponseHeaderBytes: maxBody}
	if socket != "" {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		}
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("%s %s: %w", req.Method, req.URL.Redacted(), err)
	}
	defer func() { _ = resp.Body.Close() }()
	if err := h.judge(resp); err != nil {
		return fmt.Errorf("%s %s: %w", req.Method, req.URL.Redacted(), err)
	}
	return nil
}

func (h *HTTP) judge(resp *http.Response) error {
	accepted := h.Status
	if len(accepted) == 0 {
		accepted = []Status{{200, 299}}
	}
	if !slices.ContainsFunc(accepted, func(s Status) bool { return s.From <= resp.StatusCode && resp.StatusCode <= s.To }) {
		return fmt.Errorf("the answer is %s", resp.Status)
	}
	if h.Body == nil {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if !h.Body.Match(body) {
		return fmt.Errorf("the answer has no %q", h.Body)
	}
	return nil
}

// Status is a range of HTTP statuses.
type Status struct {
	From, To int
}

// ParseStatus reads "204", or "2xx" for a whole class.
func ParseStatus(text string) (Status, error) {
	low, high := text, text
	if class, ok := strings.CutSuffix(strings.ToLower(text), "xx"); ok {
		low, high = class+"00", class+"99"
	}
	from, err1 := strconv.ParseUint(low, 10, 16)
	to, err2 := strconv.ParseUint(high, 10, 16)
	if err1 != nil || err2 != nil || len(low) != 3 || from < 100 || to > 599 {
		return Status{}, fmt.Errorf("status %q: want a number such as 200, or a class such as 2xx", text)
	}
	return Status{int(from), int(to)}, nil
}

// tlsConfig reads the file each time: it may be rendered, or renewed, after the
// agent's start.
func tlsConfig(ca string, insecure bool) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: insecure}
	if ca == "" {
		return cfg, nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	if cfg.RootCAs, err = x509.SystemCertPool(); err != nil {
		cfg.RootCAs = x509.NewCertPool()
	}
	if !cfg.RootCAs.AppendCertsFromPEM(pem) {
		return nil, errors.New("read certificates: " + ca + " has none in PEM form")
	}
	return cfg, nil
}
