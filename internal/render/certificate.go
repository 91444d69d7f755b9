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
	"time"

	"drover/internal/render/language"
	"drover/internal/secret"
)

// spent is how much of its life a certificate may have behind it and still be taken from
// the file that was rendered before.
const spent = 0.8

// followCertificate tells the certificate that the destination has, while it is good, and
// asks for one when it is not.
func (s Sources) followCertificate(ctx context.Context, d language.Dependency, tell report) {
	if s.Secrets == nil {
		tell(nil, fmt.Errorf("a source of secrets %w", errNoSource))
		return
	}
	if content, err := os.ReadFile(d.Beside); err == nil && d.Beside != "" {
		value, cert := readPEM(string(content))
		if until, good := goodUntil(cert, value, time.Now()); good {
			tell(value, nil)
			timer := time.NewTimer(time.Until(until))
			defer timer.Stop()
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
		}
	}
	s.Secrets.Watch(ctx, secret.Request{Path: d.Name, Params: d.Written()}, func(v *secret.Secret, err error) {
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

// goodUntil says when a certificate that has its key is to be replaced.
func goodUntil(cert *x509.Certificate, value language.PEM, now time.Time) (time.Time, bool) {
	if cert == nil || value.Key == "" {
		return time.Time{}, false
	}
	life := cert.NotAfter.Sub(cert.NotBefore)
	until := cert.NotBefore.Add(time.Duration(float64(life) * spent))
	return until, now.After(cert.NotBefore) && now.Before(until)
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
