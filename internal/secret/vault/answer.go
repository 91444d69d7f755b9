package vault

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"maps"
	"math"
	"reflect"
	"strconv"
	"time"

	"drover/internal/secret"
	"drover/internal/secret/vault/lifetime"
)

// life says how the secret in an answer is kept good, as an input for lifetime that
// lacks who and when. now is this machine's wall clock, which is what certificates go by.
func life(r secret.Request, got *answer, now time.Time) lifetime.Input {
	in := lifetime.Input{What: lifetime.Fetch}
	if got.LeaseID != "" {
		in.Life, in.TTL, in.Renewable = lifetime.Leased, seconds(json.Number(strconv.FormatInt(got.LeaseDuration, 10))), got.Renewable
		return in
	}
	if cert := certificate(r, got.Data); cert != nil {
		// One that has ended is asked for again, not kept for ever.
		in.Life, in.TTL, in.Full = lifetime.Ending, max(time.Second, cert.NotAfter.Sub(now)), cert.NotAfter.Sub(cert.NotBefore)
		return in
	}
	if r.Params != nil {
		in.Life = lifetime.Once
		return in
	}
	if _, ok := got.Data["ttl"]; ok && (got.Data["rotation_period"] != nil || got.Data["rotation_schedule"] != nil) {
		in.Life, in.TTL = lifetime.Rotating, seconds(got.Data["ttl"])
		return in
	}
	in.Life = lifetime.Polled
	return in
}

// certificate is the one that was issued or signed; nil: the data is another thing.
// (A certificate that is only read does not become another one by being read again.)
func certificate(r secret.Request, data map[string]any) *x509.Certificate {
	text, _ := data["certificate"].(string)
	if r.Params == nil {
		return nil
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return cert
}

// reusable says whether what an earlier run got answers a request, and is good for a while.
func reusable(r secret.Request, now time.Time) bool {
	if r.Known == nil {
		return false
	}
	cert := certificate(r, r.Known.Data)
	if cert == nil || now.Before(cert.NotBefore) {
		return false
	}
	if name, ok := r.Params["common_name"].(string); ok && name != cert.Subject.CommonName {
		return false
	}
	return cert.NotAfter.Sub(now) > cert.NotAfter.Sub(cert.NotBefore)/5
}

// state is the port's form of an answer.
func state(r secret.Request, got *answer, in lifetime.Input, sent time.Time) *secret.Secret {
	s := &secret.Secret{
		Data: got.Data, LeaseID: got.LeaseID, LeaseDuration: time.Duration(got.LeaseDuration) * time.Second,
		Renewable: got.Renewable, RequestID: got.RequestID, Warnings: got.Warnings,
	}
	if s.Data == nil {
		s.Data = map[string]any{}
	}
	if in.TTL > 0 {
		s.Expires = sent.Add(in.TTL).Round(0)
	}
	if cert := certificate(r, got.Data); cert != nil && in.Life == lifetime.Ending {
		s.Expires = cert.NotAfter
	}
	return s
}

// unchanged says that what was asked for again is what it was. How long a password has
// until it rotates is no part of it.
func unchanged(l lifetime.Life, before, now map[string]any) bool {
	switch l {
	case lifetime.Polled:
		return reflect.DeepEqual(before, now)
	case lifetime.Rotating:
		before, now = maps.Clone(before), maps.Clone(now)
		delete(before, "ttl")
		delete(now, "ttl")
		return reflect.DeepEqual(before, now)
	}
	return false
}

// seconds reads a number of seconds, or a duration such as 1h; 0 if it is neither, or
// negative. What is longer than a century is one.
func seconds(v any) time.Duration {
	const most = 100 * 365 * 24 * time.Hour
	var n float64
	switch v := v.(type) {
	case json.Number:
		n, _ = v.Float64()
	case float64:
		n = v
	case string:
		d, err := time.ParseDuration(v)
		if err != nil {
			n, _ = strconv.ParseFloat(v, 64)
		} else {
			n = d.Seconds()
		}
	}
	if math.IsNaN(n) || n <= 0 {
		return 0
	}
	if n >= most.Seconds() {
		return most
	}
	return time.Duration(n * float64(time.Second))
}
