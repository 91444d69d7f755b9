package render

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"drover/internal/render/language"
	"drover/internal/secret"
)

// followCertificate asks for a certificate, and shows the source the one that the
// destination has, which it takes while that is good.
func (s Sources) followCertificate(ctx context.Context, d language.Dependency, tell report) {
	if s.Secrets == nil {
		tell(nil, fmt.Errorf("a source of secrets %w", errNoSource))
		return
	}
	r := secret.Request{Path: d.Name, Params: d.Written(), Known: inPlace(d.Beside)}
	s.Secrets.Watch(ctx, r, func(v *secret.Secret, err error) {
		if err != nil {
			tell(nil, err)
			return
		}
		value, cert := readPEM(strings.Join(texts(v.Data), "\n"))
		if cert == nil {
			tell(nil, fmt.Errorf("%s has given no certificate", d.Name))
			return
		}
		tell(value, nil)
	})
}

// inPlace is the certificate that a file has, as the source would give it; nil: it has none
// with its key.
func inPlace(path string) *secret.Secret {
	if path == "" {
		return nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil // it was never rendered
	}
	value, cert := readPEM(string(content))
	if cert == nil || value.Key == "" {
		return nil
	}
	chain := make([]any, len(value.CAChain))
	for i, authority := range value.CAChain {
		chain[i] = authority
	}
	return &secret.Secret{Data: map[string]any{
		"certificate": value.Cert, "private_key": value.Key, "issuing_ca": value.CA, "ca_chain": chain,
	}}
}

// texts are the strings of a secret, and those of its chain.
func texts(data map[string]any) []string {
	var list []string
	for _, key := range slices.Sorted(maps.Keys(data)) {
		switch v := data[key].(type) {
		case string:
			list = append(list, v)
		case []any:
			for _, item := range v {
				if text, ok := item.(string); ok && key == "ca_chain" {
					list = append(list, text)
				}
			}
		}
	}
	return list
}

// readPEM finds the key, the certificate and the authorities in text, whatever is between
// them.
func readPEM(text string) (language.PEM, *x509.Certificate) {
	var value language.PEM
	var cert *x509.Certificate
	rest := []byte(text)
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return value, cert
		}
		encoded := string(pem.EncodeToMemory(block))
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			value.Key = encoded
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		switch {
		case err != nil: // something else
		case !c.IsCA:
			cert, value.Cert = c, encoded
		default:
			if value.CA == "" {
				value.CA = encoded
			}
			if !slices.Contains(value.CAChain, encoded) {
				value.CAChain = append(value.CAChain, encoded)
			}
		}
	}
}
