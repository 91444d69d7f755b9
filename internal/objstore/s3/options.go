package s3

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"drover/internal/objstore"
)

// Options say where a bucket is and how to talk to its server.
type Options struct {
	Bucket   string
	Prefix   string // of all keys; no slash at its ends; may be empty
	Endpoint string // http://host:port or https://host; empty: Amazon's, by region
	Region   string // empty: AWS_REGION, AWS_DEFAULT_REGION, then us-east-1

	// PathStyle puts the bucket into the path and not into the host's name:
	// "true", "false", or "auto" (the default: host names at Amazon, Google and
	// Aliyun, the path elsewhere).
	PathStyle string

	// CA is a file of PEM certificates to trust besides the system's; empty:
	// AWS_CA_BUNDLE.
	CA string

	// ContentMD5 sends Content-MD5 with every put, which Amazon demands for a
	// bucket with a default retention (object lock).
	ContentMD5 bool

	// CredentialsFile and Profile name a shared credentials file and a part of it,
	// instead of the usual search; of two stores each may need its own. Empty: the search.
	CredentialsFile, Profile string

	// Concurrency is how many connections are kept open between requests.
	// Zero means 64.
	Concurrency int

	// Credentials replaces the usual search; for tests.
	Credentials *credentials.Credentials
	// Wrap is put around the transport of requests to the store; for tests.
	Wrap func(http.RoundTripper) http.RoundTripper
}

// ParseURL reads s3://bucket/prefix?endpoint=…&region=…&path-style=…&ca=…&content-md5=…
// Credentials in it are refused, and no error shows them.
func ParseURL(u *url.URL) (Options, error) {
	if u.User != nil {
		return Options{}, errors.New("s3 URL: it holds credentials; give them in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a credentials file")
	}
	if u.Scheme != "s3" || u.Opaque != "" || u.Host == "" {
		return Options{}, errors.New("s3 URL: it has to begin s3://BUCKET")
	}
	if u.Port() != "" {
		return Options{}, fmt.Errorf("s3 URL: %q is not a bucket; the server goes into ?endpoint=http://HOST:PORT", u.Host)
	}
	if u.Fragment != "" {
		return Options{}, errors.New("s3 URL: it has a fragment (#…)")
	}
	o := Options{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/"), PathStyle: "auto"}
	if o.Prefix != "" {
		if err := objstore.CheckKey(o.Prefix); err != nil {
			return Options{}, fmt.Errorf("s3 URL: prefix: %w", err)
		}
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Options{}, errors.New("s3 URL: the part after ? is not well-formed")
	}
	for name, values := range query {
		if len(values) != 1 {
			return Options{}, fmt.Errorf("s3 URL: %s is given %d times", name, len(values))
		}
		if err := o.set(name, values[0]); err != nil {
			return Options{}, fmt.Errorf("s3 URL: %w", err)
		}
	}
	_, err = o.endpoint()
	return o, err
}

func (o *Options) set(name, value string) error {
	switch name {
	case "endpoint":
		o.Endpoint = value
	case "region":
		o.Region = value
	case "ca":
		o.CA = value
	case "path-style":
		o.PathStyle = value
		if !slices.Contains([]string{"auto", "true", "false"}, value) {
			return fmt.Errorf("path-style is %q, not true, false or auto", value)
		}
	case "credentials":
		if !path.IsAbs(value) {
			return errors.New("credentials is not the absolute path of a credentials file")
		}
		o.CredentialsFile = value
	case "profile":
		o.Profile = value
	case "content-md5":
		on, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("content-md5 is %q, not true or false", value)
		}
		o.ContentMD5 = on
	default:
		return fmt.Errorf("unknown parameter %q; known are endpoint, region, path-style, ca, content-md5, credentials, profile", name)
	}
	return nil
}

// endpoint returns the server's URL with nothing but scheme and host.
func (o *Options) endpoint() (*url.URL, error) {
	if o.Endpoint == "" {
		return &url.URL{Scheme: "https", Host: "s3.amazonaws.com"}, nil
	}
	u, err := url.Parse(o.Endpoint)
	switch {
	case err != nil:
		return nil, errors.New("s3 URL: endpoint is not a URL")
	case u.User != nil:
		return nil, errors.New("s3 URL: endpoint holds credentials; give them in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a credentials file")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("s3 URL: endpoint %q has to begin http:// or https:// and name a host", o.Endpoint)
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("s3 URL: endpoint %q has more than a host and a port", o.Endpoint)
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

// Restic says how stock restic names the repository of a volume under these
// options, and which variables it needs besides the credentials.
func (o *Options) Restic(volume string) (repository string, env map[string]string) {
	endpoint := o.Endpoint
	if endpoint == "" {
		endpoint = "https://s3.amazonaws.com"
	}
	env = map[string]string{}
	if o.Region != "" {
		env["AWS_DEFAULT_REGION"] = o.Region
	}
	if o.CA != "" {
		env["RESTIC_CACERT"] = o.CA
	}
	if o.CredentialsFile != "" {
		env["AWS_SHARED_CREDENTIALS_FILE"] = o.CredentialsFile
	}
	if o.Profile != "" {
		env["AWS_PROFILE"] = o.Profile
	}
	return "s3:" + strings.TrimSuffix(endpoint, "/") + "/" + path.Join(o.Bucket, o.Prefix, volume), env
}
