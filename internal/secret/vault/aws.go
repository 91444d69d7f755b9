package vault

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/signer"

	"drover/internal/secret"
)

// AWS logs in as the IAM role or user that the machine, the container or the environment
// has: Vault is given a signed question to STS of who that is, which it asks.
// The credentials themselves stay here.
type AWS struct {
	Mount    string // "": aws
	Role     string // of Vault; "": the name of the IAM one
	Region   string // whose STS Vault is set up to ask; "": the global one
	ServerID string // that Vault demands in the question, so that no other server's will do; "": none

	found []credentials.Provider // the tests'; nil: the usual places
}

// whoAmI is the question.
const whoAmI = "Action=GetCallerIdentity&Version=2011-06-15"

// metadataLimit is how long a metadata service may take, which may not be there.
const metadataLimit = 5 * time.Second

func (a *AWS) own() bool { return true }

func (a *AWS) login(ctx context.Context, c *client) (*session, error) {
	keys, err := a.credentials(ctx)
	if err != nil {
		return nil, err
	}
	url, region := "https://sts.amazonaws.com/", "us-east-1"
	if a.Region != "" {
		url, region = "https://sts."+a.Region+".amazonaws.com/", a.Region
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(whoAmI))
	if err != nil {
		return nil, errors.New("the region is none")
	}
	sum := sha256.Sum256([]byte(whoAmI))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	req.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(sum[:])) // what the signer takes
	if a.ServerID != "" {
		req.Header.Set("X-Vault-AWS-IAM-Server-ID", a.ServerID)
	}
	if keys.SessionToken != "" {
		req.Header.Set("X-Amz-Security-Token", keys.SessionToken)
	}
	req = signer.SignV4STS(*req, keys.AccessKeyID, keys.SecretAccessKey, region)
	body := map[string]any{
		"iam_http_request_method": req.Method,
		"iam_request_url":         base64.StdEncoding.EncodeToString([]byte(url)),
		"iam_request_body":        base64.StdEncoding.EncodeToString([]byte(whoAmI)),
		"iam_request_headers":     map[string][]string(req.Header),
	}
	if a.Role != "" {
		body["role"] = a.Role
	}
	return c.login(ctx, a.Mount, "aws", body)
}

// credentials looks in the environment, the shared files, and for the role of the
// container or machine, anew each time.
func (a *AWS) credentials(ctx context.Context) (credentials.Value, error) {
	places := a.found
	if places == nil {
		places = []credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.IAM{}}
	}
	where := &credentials.CredContext{Client: &http.Client{Timeout: metadataLimit}, Context: ctx}
	defer where.Client.CloseIdleConnections()
	for _, p := range places {
		if v, err := p.RetrieveWithCredContext(where); err == nil && v.AccessKeyID != "" && v.SecretAccessKey != "" {
			return v, nil
		}
	}
	return credentials.Value{}, fmt.Errorf("no AWS credentials in the environment, the shared files or a role: %w", secret.ErrUnauthorized)
}
