// Package remote reads a Git repository on a server: which branches and tags it has, and
// the files of one commit.
//
// It promises that nothing is kept on a disk, that what is read is whole or an error, that
// memory is bounded whatever the server sends, that a server is who it says (TLS, SSH host
// keys), and that credentials come from files, are read at each use, and are shown nowhere.
// Symbolic links and submodules are left out, and said to be; the executable bit means nothing.
//
// It leaves to others which files are wanted, what becomes of them, and when to ask again.
package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"
)

// Options of New.
type Options struct {
	// URL is https://, http://, ssh:// or host:path as SSH has it. It carries no password.
	URL string

	// For http and https. With PasswordFile the password (or access token) in that file is
	// sent, by Basic, with Username ("git" if empty); with TokenFile a bearer token.
	// Neither is sent over plain http, but to this machine.
	Username, PasswordFile, TokenFile string
	CAFile                            string // PEM; beside those of the system

	// For SSH. KeyFile is a private key, PassphraseFile what it is locked with, KnownHostsFile
	// has the server's key, as ssh's own file; both files are needed.
	KeyFile, PassphraseFile, KnownHostsFile string

	Limits Limits
}

// Limits of one fetch. 0 is the default.
type Limits struct {
	Pack  int64 // bytes that the server sends; 64 MiB
	File  int64 // bytes of one file; 512 KiB, which is what Consul takes
	Total int64 // bytes of all objects, in memory; 256 MiB
	Files int   // directory entries that are looked at; 100,000
}

func (l Limits) orDefault() Limits {
	def := func(v *int64, d int64) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&l.Pack, 64<<20)
	def(&l.File, 512<<10)
	def(&l.Total, 256<<20)
	if l.Files <= 0 {
		l.Files = 100_000
	}
	return l
}

// ErrGone: the repository has no such branch or tag.
var ErrGone = errors.New("no such branch or tag")

// errTooMuch is wrapped into what is said when a limit is reached.
var errTooMuch = errors.New("over the limit")

// Remote is a repository on a server. Its methods may be called from any goroutine.
type Remote struct {
	o        Options
	endpoint *transport.Endpoint
}

// New checks the options. It reads no file and connects nowhere.
func New(o Options) (*Remote, error) {
	o.Limits = o.Limits.orDefault()
	ep, err := transport.NewEndpoint(o.URL)
	if err != nil {
		return nil, fmt.Errorf("read the repository's URL: %w", withoutURL(err))
	}
	if ep.Password != "" {
		return nil, errors.New("the repository's URL has a password in it: put it into a file")
	}
	switch ep.Protocol {
	case "https", "http":
		if ep.Protocol == "http" && (o.PasswordFile != "" || o.TokenFile != "") && !loopback(ep.Host) {
			return nil, errors.New("credentials are not sent over plain http: use https")
		}
		if o.PasswordFile != "" && o.TokenFile != "" {
			return nil, errors.New("there are both a password and a token: give one")
		}
	case "ssh":
		if o.KeyFile == "" || o.KnownHostsFile == "" {
			return nil, errors.New("ssh needs a key file and a known hosts file")
		}
	default:
		return nil, fmt.Errorf("%s is no way to a repository: use https or ssh", ep.Protocol)
	}
	return &Remote{o: o, endpoint: ep}, nil
}

// withoutURL drops the URL that package net/url repeats in its errors: it may have a password in it.
func withoutURL(err error) error {
	var wrong *url.Error
	if errors.As(err, &wrong) {
		return wrong.Err
	}
	return err
}

func loopback(host string) bool {
	return host == "localhost" || host == "[::1]" || strings.HasPrefix(host, "127.")
}

// session is one conversation with a server.
type session interface {
	AdvertisedReferencesContext(ctx context.Context) (*packp.AdvRefs, error)
	UploadPack(ctx context.Context, req *packp.UploadPackRequest) (*packp.UploadPackResponse, error)
	Close() error
}

func (r *Remote) session(ctx context.Context) (session, error) {
	if r.endpoint.Protocol == "ssh" {
		return r.dialSSH(ctx)
	}
	return r.newHTTP()
}

// Refs lists the branches and tags, as refs/heads/… and refs/tags/…, with the commit that
// each is at. A repository without any is no error.
func (r *Remote) Refs(ctx context.Context) (map[string]string, error) {
	s, err := r.session(ctx)
	if err != nil {
		return nil, fmt.Errorf("list branches: %w", err)
	}
	defer func() { _ = s.Close() }()
	adv, err := s.AdvertisedReferencesContext(ctx)
	if errors.Is(err, transport.ErrEmptyRemoteRepository) {
		return map[string]string{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list branches: %w", err)
	}
	refs := map[string]string{}
	for name, hash := range adv.References {
		if !strings.HasPrefix(name, "refs/heads/") && !strings.HasPrefix(name, "refs/tags/") {
			continue
		}
		if peeled, ok := adv.Peeled[name]; ok { // an annotated tag
			hash = peeled
		}
		refs[name] = hash.String()
	}
	return refs, nil
}

// Snapshot is what a commit has.
type Snapshot struct {
	Commit  string // 40 hex digits
	Files   []File // sorted by path
	Skipped []Skipped
}

// File is a regular file.
type File struct {
	Path string
	Data []byte
}

// Skipped is what has no content of its own, and why it was left out.
type Skipped struct{ Path, Why string }

// Fetch reads the files of the commit that ref is at now; of those that want says no to, only the
// name. One that is wanted and too large is an error. Errors: ErrGone.
func (r *Remote) Fetch(ctx context.Context, ref string, want func(path string) bool) (Snapshot, error) {
	s, err := r.session(ctx)
	if err != nil {
		return Snapshot{}, fmt.Errorf("fetch %s: %w", ref, err)
	}
	defer func() { _ = s.Close() }()
	snapshot, err := r.fetch(ctx, s, ref, want)
	if err != nil {
		return Snapshot{}, fmt.Errorf("fetch %s: %w", ref, err)
	}
	return snapshot, nil
}

func (r *Remote) fetch(ctx context.Context, s session, ref string, want func(string) bool) (Snapshot, error) {
	adv, err := s.AdvertisedReferencesContext(ctx)
	if errors.Is(err, transport.ErrEmptyRemoteRepository) {
		return Snapshot{}, ErrGone
	}
	if err != nil {
		return Snapshot{}, err
	}
	hash, ok := adv.References[ref]
	if !ok {
		return Snapshot{}, ErrGone
	}
	commit := hash
	if peeled, ok := adv.Peeled[ref]; ok {
		commit = peeled
	}
	req := r.request(adv, hash)
	answer, err := s.UploadPack(ctx, req)
	if err != nil {
		return Snapshot{}, err
	}
	defer func() { _ = answer.Close() }()
	pack, err := readAll(demux(req.Capabilities, answer), r.o.Limits.Pack)
	if err != nil {
		return Snapshot{}, err
	}
	objects, err := unpack(pack, r.o.Limits)
	if err != nil {
		return Snapshot{}, err
	}
	return r.files(objects, commit, want)
}

// request asks for the one commit, without history where the server can, and without
// files that are too large where it can.
func (r *Remote) request(adv *packp.AdvRefs, hash plumbing.Hash) *packp.UploadPackRequest {
	req := packp.NewUploadPackRequestFromCapabilities(adv.Capabilities)
	req.Wants = []plumbing.Hash{hash}
	if adv.Capabilities.Supports(capability.Shallow) {
		req.Depth = packp.DepthCommits(1)
		_ = req.Capabilities.Set(capability.Shallow) // known to it, and takes no argument
	}
	if adv.Capabilities.Supports(capability.Filter) {
		req.Filter = packp.FilterBlobLimit(uint64(r.o.Limits.File)+1, packp.BlobLimitPrefixNone)
		_ = req.Capabilities.Set(capability.Filter)
	}
	if adv.Capabilities.Supports(capability.NoProgress) {
		_ = req.Capabilities.Set(capability.NoProgress)
	}
	return req
}

func demux(c *capability.List, r io.Reader) io.Reader {
	switch {
	case c.Supports(capability.Sideband64k):
		return sideband.NewDemuxer(sideband.Sideband64k, r)
	case c.Supports(capability.Sideband):
		return sideband.NewDemuxer(sideband.Sideband, r)
	}
	return r
}

// readAll reads at most limit bytes.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("the pack has more than %d bytes: %w", limit, errTooMuch)
	}
	return data, nil
}
