package vault

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"drover/internal/secret"
	"drover/internal/testkit/vaultserver"
)

// signedBy works out the signature of a request as Amazon's description of version 4 has
// it, and says whether it is that of the key. (Vault asks for // and Amazon's servers take it
// for /.)
func signedBy(r *http.Request, body, key, region string) bool {
	mac := func(key []byte, text string) []byte {
		m := hmac.New(sha256.New, key)
		m.Write([]byte(text))
		return m.Sum(nil)
	}
	hash := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return hex.EncodeToString(sum[:])
	}
	fields := map[string]string{}
	for part := range strings.SplitSeq(strings.TrimPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 "), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		fields[name] = value
	}
	headers := ""
	for name := range strings.SplitSeq(fields["SignedHeaders"], ";") {
		value := r.Header.Get(name)
		if name == "host" {
			value = r.Host
		}
		headers += name + ":" + strings.TrimSpace(value) + "\n"
	}
	date := r.Header.Get("X-Amz-Date")
	scope := date[:8] + "/" + region + "/sts/aws4_request"
	canonical := strings.Join([]string{r.Method, path.Clean(r.URL.Path), r.URL.RawQuery, headers, fields["SignedHeaders"], hash(body)}, "\n")
	text := strings.Join([]string{"AWS4-HMAC-SHA256", date, scope, hash(canonical)}, "\n")
	signing := mac(mac(mac(mac([]byte("AWS4"+key), date[:8]), region), "sts"), "aws4_request")
	return fields["Signature"] == hex.EncodeToString(mac(signing, text)) && strings.Contains(fields["SignedHeaders"], "x-vault-aws-iam-server-id")
}

// The real Vault asks an STS of ours, which knows one key.
func TestLoginWithAWS(t *testing.T) {
	t.Parallel()
	sts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if string(body) != whoAmI || r.Host != "sts.eu-west-1.amazonaws.com" || !signedBy(r, string(body), "right-key", "eu-west-1") || r.Header.Get("X-Amz-Security-Token") != "session" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		fmt.Fprint(w, `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>
			<Arn>arn:aws:sts::123456789012:assumed-role/app/one</Arn><UserId>AROAEXAMPLE:one</UserId><Account>123456789012</Account>
			</GetCallerIdentityResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></GetCallerIdentityResponse>`)
	}))
	defer sts.Close()
	s := vaultserver.Start(t, vaultserver.Options{})
	s.KV("secret", "1")
	s.Policy("app", "secret/*")
	s.Do(http.MethodPost, "secret/app", map[string]any{"a": "b"})
	s.Auth("aws", "aws")
	s.Do(http.MethodPost, "auth/aws/config/client", map[string]any{"sts_endpoint": sts.URL, "sts_region": "eu-west-1", "iam_server_id_header_value": "vault.example.com"})
	s.Do(http.MethodPost, "auth/aws/role/app", map[string]any{
		"auth_type": "iam", "bound_iam_principal_arn": "arn:aws:iam::123456789012:role/app", "resolve_aws_unique_ids": false, "token_policies": "app",
	})
	for key, want := range map[string]bool{"right-key": true, "wrong-key": false} {
		src, err := Open(Options{Address: s.Address, Login: &AWS{
			Role: "app", Region: "eu-west-1", ServerID: "vault.example.com",
			found: []credentials.Provider{
				&credentials.Static{}, // nothing there: the next
				&credentials.Static{Value: credentials.Value{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: key, SessionToken: "session"}},
			},
		}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		src.Watch(ctx, secret.Request{Path: "secret/app"}, func(got *secret.Secret, err error) {
			if (err == nil) != want || want && got.Data["a"] != "b" || err != nil && strings.Contains(err.Error(), key) {
				t.Errorf("%s: %v, %v", key, got, err)
			}
			cancel()
		})
		cancel()
		if err := src.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if _, err := (&AWS{found: []credentials.Provider{&credentials.Static{}}}).credentials(t.Context()); secret.Kind(err) != secret.ErrUnauthorized {
		t.Errorf("without credentials: %v", err)
	}
}
