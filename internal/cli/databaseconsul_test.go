package cli

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"drover/client"
	"drover/internal/testkit/certificate"
	"drover/internal/testkit/consulserver"

	"github.com/jackc/pgx/v5"
)

// listed are the passing members in Consul's catalog, as "role port", sorted.
func listed(t *testing.T, consul string) []string {
	t.Helper()
	resp, err := http.Get(consul + "/v1/health/service/db?passing")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var entries []struct {
		Service struct {
			Tags []string
			Meta map[string]string
			Port int
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&entries); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		if e.Service.Meta["epoch"] == "" || e.Service.Meta["timeline"] == "" {
			t.Errorf("an entry without meta: %+v", e)
		}
		all = append(all, strings.Join(e.Service.Tags, ",")+" "+fmt.Sprint(e.Service.Port))
	}
	slices.Sort(all)
	return all
}

// pair is a new certificate and its key.
func pair(t *testing.T, ca *certificate.Authority) (cert, key []byte) {
	t.Helper()
	certFile, keyFile := ca.Leaf("member")
	cert, err1 := os.ReadFile(certFile)
	key, err2 := os.ReadFile(keyFile)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// put sets a key of Consul's.
func put(t *testing.T, url string, value []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, bytes.NewReader(value))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
}

// shows waits until the member's server shows a certificate, in PEM form.
func (m *dbMember) shows(cert []byte) {
	m.t.Helper()
	want, _ := pem.Decode(cert)
	config, err := pgx.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%s user=postgres password='%s' dbname=postgres sslmode=require", m.port, dbSecret))
	if err != nil {
		m.t.Fatal(err)
	}
	eventually(m.t, func() string { return m.name + " shows another certificate than that of now" }, func() bool {
		conn, err := pgx.ConnectConfig(m.t.Context(), config)
		if err != nil {
			return false
		}
		defer func() { _ = conn.Close(m.t.Context()) }()
		shown, ok := conn.PgConn().Conn().(*tls.Conn)
		return ok && bytes.Equal(shown.ConnectionState().PeerCertificates[0].Raw, want.Bytes)
	})
}

// TestDatabaseInConsul: with Consul as its coordinator a cluster's members are in the catalog by their roles, which
// move with the failover. They speak TLS with one another; the certificate is a template's, and another one takes effect while they run.
func TestDatabaseInConsul(t *testing.T) {
	t.Setenv("CONSUL_HTTP_ADDR", "")
	consul := consulserver.Start(t, consulserver.Options{}).Address
	ca := certificate.NewAuthority(t, t.TempDir())
	renew := func() (cert []byte) {
		t.Helper()
		cert, key := pair(t, ca)
		put(t, consul+"/v1/kv/tls", append(slices.Clone(cert), key...))
		return cert
	}
	renew()
	made := filepath.Join(t.TempDir(), "member.pem")
	c := newCluster(t, 2, clusterOptions{
		coordinator: "consul://" + strings.TrimPrefix(consul, "http://"), boxed: true,
		top:  fmt.Sprintf("templates: {tls: {content: '[[ key \"tls\" ]]', destination: %s}}", made),
		more: fmt.Sprintf("  service: db\n  tls: {ca: %s, cert: %s, key: %s, verify: full}", ca.File, made, made),
	})
	defer http.DefaultClient.CloseIdleConnections()
	has := func(want ...string) {
		t.Helper()
		slices.Sort(want)
		var last []string
		eventually(t, func() string { return fmt.Sprintf("Consul lists %v, want %v", last, want) }, func() bool {
			last = listed(t, consul)
			return slices.Equal(last, want)
		})
	}
	first := c.whole()
	second := c.others(first)[0]
	has("primary "+first.port, "replica "+second.port)
	first.has("true", "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_replication USING (pid)")
	cert := renew()
	for _, m := range c.members {
		m.shows(cert)
	}
	if got := second.do("switchover", "--timeout", "3m"); got.code != 0 {
		t.Fatal(got)
	}
	has("primary "+second.port, "replica "+first.port)
	c.whole()
	second.kill()
	c.leads(first)
	has("primary " + first.port)
	first.status("degraded without a replica", func(s client.Status) bool { return s.Health == "degraded" && s.Database.Acks == 0 })
}
