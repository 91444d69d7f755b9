package s3

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"drover/internal/objstore"
)

// roleTimeout limits a request for a role's credentials, which a machine
// without a metadata service would wait for in vain.
const roleTimeout = 5 * time.Second

// search asks one source of credentials after the other: the environment, the
// shared files, and the role of the container or machine. Unlike the SDK's own
// chain it never ends in anonymous access, which would hide why it found none.
type search struct {
	sources []credentials.Provider
	found   credentials.Provider
}

// newSearch looks in one file alone if that, or a part of it, is named: a store that
// needs its own credentials must never get another's.
func newSearch(file, profile string) *search {
	if file != "" || profile != "" {
		return &search{sources: []credentials.Provider{&credentials.FileAWSCredentials{Filename: file, Profile: profile}}}
	}
	return &search{sources: []credentials.Provider{
		&credentials.EnvAWS{},
		&credentials.FileAWSCredentials{},
		&credentials.IAM{Client: &http.Client{Timeout: roleTimeout}},
	}}
}

// RetrieveWithCredContext implements credentials.Provider.
func (s *search) RetrieveWithCredContext(cc *credentials.CredContext) (credentials.Value, error) {
	why := errors.New("nothing set")
	for _, source := range s.sources {
		v, err := source.RetrieveWithCredContext(cc)
		if err == nil && v.AccessKeyID != "" && v.SecretAccessKey != "" {
			s.found = source
			return v, nil
		}
		if err != nil {
			why = err // the last source's is the one that says most: others are just not set
		}
	}
	if s.found != nil {
		// They were there before: their source is away for now.
		return credentials.Value{}, fmt.Errorf("%w: renew the credentials: %w", objstore.ErrUnavailable, why)
	}
	return credentials.Value{}, fmt.Errorf("%w: no credentials found in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the shared files or a role: %w",
		objstore.ErrUnauthorised, why)
}

// Retrieve implements credentials.Provider.
func (s *search) Retrieve() (credentials.Value, error) { return s.RetrieveWithCredContext(nil) }

// IsExpired implements credentials.Provider.
func (s *search) IsExpired() bool { return s.found == nil || s.found.IsExpired() }
