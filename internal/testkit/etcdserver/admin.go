package etcdserver

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"time"
)

// Call makes a call of etcd's JSON gateway (/v3/kv/range and so on) at a member, as root if
// there are users. Both bodies are as etcd's; 64-bit numbers are strings there, keys and
// values base64.
func (s *Server) Call(i int, path string, in, out any) {
	s.t.Helper()
	if err := s.call(i, path, in, out, s.token(i)); err != nil {
		s.t.Fatalf("call %s of etcd: %v", path, err)
	}
}

func (s *Server) token(i int) string {
	if s.Password == "" {
		return ""
	}
	var answer struct{ Token string }
	in := map[string]string{"name": "root", "password": s.Password}
	if err := s.call(i, "/v3/auth/authenticate", in, &answer, ""); err != nil {
		s.t.Fatalf("log in to etcd: %v", err)
	}
	return answer.Token
}

func (s *Server) call(i int, path string, in, out any, token string) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.Endpoints[i]+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	transport := &http.Transport{TLSClientConfig: s.clientTLS()}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, answer)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}

// clientTLS trusts the server's authority and shows its certificate.
func (s *Server) clientTLS() *tls.Config {
	if !s.opts.TLS {
		return nil
	}
	authority, err := os.ReadFile(s.CA)
	if err != nil {
		s.t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(s.Cert, s.Key)
	if err != nil {
		s.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}
}

func (s *Server) enableAuth() {
	password := rand.Text()
	s.Password = ""
	s.AddUser("root", password, "")
	s.Call(0, "/v3/auth/enable", struct{}{}, nil)
	s.Password = password
}

// AddUser makes a user who may do everything with the keys below prefix, and nothing else.
func (s *Server) AddUser(name, password, prefix string) {
	s.t.Helper()
	s.Call(0, "/v3/auth/user/add", map[string]string{"name": name, "password": password}, nil)
	s.Call(0, "/v3/auth/role/add", map[string]string{"name": name}, nil)
	if prefix != "" {
		end := []byte(prefix)
		end[len(end)-1]++
		s.Call(0, "/v3/auth/role/grant", map[string]any{"name": name, "perm": map[string]any{
			"permType": "READWRITE", "key": encode(prefix), "range_end": encode(string(end)),
		}}, nil)
	}
	s.Call(0, "/v3/auth/user/grant", map[string]string{"user": name, "role": name}, nil)
}

func encode(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// header is in every answer.
type header struct {
	Header struct {
		MemberID string `json:"member_id"`
		Revision string `json:"revision"`
	}
}

// Revision is the cluster's.
func (s *Server) Revision() int64 {
	s.t.Helper()
	var answer header
	s.Call(0, "/v3/kv/range", map[string]string{"key": encode("x")}, &answer)
	n, err := strconv.ParseInt(answer.Header.Revision, 10, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// Compact removes the history before the present revision.
func (s *Server) Compact() {
	s.t.Helper()
	s.Call(0, "/v3/kv/compaction", map[string]any{"revision": strconv.FormatInt(s.Revision(), 10), "physical": true}, nil)
}

// Leases are the IDs of all leases, sorted.
func (s *Server) Leases() []int64 {
	s.t.Helper()
	var answer struct{ Leases []struct{ ID string } }
	s.Call(0, "/v3/lease/leases", struct{}{}, &answer)
	var ids []int64
	for _, l := range answer.Leases {
		id, err := strconv.ParseInt(l.ID, 10, 64)
		if err != nil {
			s.t.Fatal(err)
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// Revoke ends a lease behind its owner's back.
func (s *Server) Revoke(id int64) {
	s.t.Helper()
	s.Call(0, "/v3/lease/revoke", map[string]string{"ID": strconv.FormatInt(id, 10)}, nil)
}

// Leader returns the number of the member that leads, and waits until one that runs does.
func (s *Server) Leader() int {
	s.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 3000 {
		for i, m := range s.members {
			if !m.Running() {
				continue
			}
			var answer struct {
				header
				Leader string
			}
			s.Call(i, "/v3/maintenance/status", struct{}{}, &answer)
			if answer.Leader == answer.Header.MemberID {
				return i
			}
		}
		<-tick.C
	}
	s.t.Fatal("etcd has no leader")
	return 0
}
