package postgres

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"drover/internal/database"
	"drover/internal/failover"
	"drover/internal/testkit/certificate"

	"github.com/jackc/pgx/v5"
)

// papers are a member's certificates in a test, which may be exchanged.
type papers struct {
	t   *testing.T
	ca  *certificate.Authority
	now Certificates
}

func newPapers(t *testing.T, ca *certificate.Authority, name string) *papers {
	t.Helper()
	p := &papers{t: t, ca: ca}
	p.exchange(name)
	return p
}

// exchange makes another certificate the one of now.
func (p *papers) exchange(name string) {
	p.t.Helper()
	cert, key := p.ca.Leaf(name)
	var text [3][]byte
	for i, f := range []string{p.ca.File, cert, key} {
		var err error
		if text[i], err = os.ReadFile(f); err != nil {
			p.t.Fatal(err)
		}
	}
	p.now = Certificates{CA: text[0], Pair: append(text[1], text[2]...)}
}

func (p *papers) option(o *Options) {
	o.TLS = &TLS{Certificates: func() (Certificates, error) { return p.now, nil }, Full: true}
}

// network is how a user connects from elsewhere.
func (m *member) network(r Role, sslmode string) *pgx.ConnConfig {
	m.t.Helper()
	host, port := m.e.Peer(m.n)
	config, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%d dbname=%s sslmode=%s", host, port, maintenance, sslmode))
	m.must(err)
	config.User, config.Password = r.Name, r.Password()
	return config
}

// shown is the certificate that a server shows to those who begin now.
func (m *member) shown() (raw []byte) {
	m.t.Helper()
	conn, err := pgx.ConnectConfig(m.ctx(), m.network(m.o.Superuser, "require"))
	m.must(err)
	defer closeConn(conn)
	return conn.PgConn().Conn().(*tls.Conn).ConnectionState().PeerCertificates[0].Raw
}

func (p *papers) raw() []byte {
	p.t.Helper()
	pair, err := tls.X509KeyPair(p.now.Pair, p.now.Pair)
	if err != nil {
		p.t.Fatal(err)
	}
	return pair.Certificate[0]
}

// encrypted: with TLS members copy, follow, and rewind to one another, and nobody else; without it nobody does.
func encrypted(t *testing.T, e *engine) {
	ca := certificate.NewAuthority(t, t.TempDir())
	first, second := newPapers(t, ca, "first"), newPapers(t, ca, "second")
	a, b := newMember(t, e, 0, first.option), newMember(t, e, 1, second.option)
	for _, m := range []*member{a, b} {
		if renewed, err := m.Renew(); err != nil || !renewed {
			t.Fatal(renewed, err)
		}
	}
	a.found()
	b.join(a)
	if got := a.sql("SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_replication USING (pid)"); got != "true" {
		t.Errorf("the replica is connected by TLS: %s", got)
	}
	a.refusesInTheClear(a.o.Replication, "replication")
	a.refusesInTheClear(a.o.Rewind, maintenance)
	a.exchanged(first, b)

	// They fail over, and the former primary goes back.
	b.must(b.Follow(b.ctx(), nil))
	b.sees(func(s failover.Database) bool { return s.Detached })
	a.sql("CREATE TABLE public.lost AS SELECT 1")
	a.process.Kill()
	b.must(b.Promote(b.ctx()))
	b.sql("CREATE TABLE public.kept AS SELECT 1")
	b.must(b.Replicas(b.ctx(), []database.Peer{*a.peer()}))
	a.must(a.Rewind(a.ctx(), *b.peer()))
	a.start(database.Configuration{Standby: true, Upstream: b.peer()})
	a.sees(func(s failover.Database) bool { return s.Receiving })
	if got := b.sql("SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_replication USING (pid)"); got != "true" {
		t.Errorf("the rewound replica is connected by TLS: %s", got)
	}
	b.refusedByOthers(e, a, first)

	// A member that has no certificates yet takes TLS where it is offered.
	c := newMember(t, e, 2, func(o *Options) { o.TLS = nil })
	c.join(b)
	c.process.Kill()
	c.must(c.Rewind(c.ctx(), *b.peer()))
}

// refusesInTheClear: a member's user may not come without TLS.
func (m *member) refusesInTheClear(r Role, what string) {
	m.t.Helper()
	config := m.network(r, "disable")
	if what == "replication" {
		config.RuntimeParams["replication"] = "true"
	}
	conn, err := pgx.ConnectConfig(m.ctx(), config)
	if err == nil {
		closeConn(conn)
		m.t.Errorf("%s is admitted without TLS", r.Name)
	} else if !strings.Contains(err.Error(), "no encryption") {
		m.t.Errorf("%s without TLS: %v", r.Name, err)
	}
}

// exchanged: another certificate takes effect while the server runs, without anybody being cut off; an unusable one does not.
func (m *member) exchanged(p *papers, replica *member) {
	m.t.Helper()
	if !bytes.Equal(m.shown(), p.raw()) {
		m.t.Error("the server shows another certificate than its own")
	}
	started := m.sql("SELECT pg_postmaster_start_time()")
	sender := m.sql("SELECT pid FROM pg_stat_replication")
	p.exchange("exchanged")
	if renewed, err := m.Renew(); err != nil || !renewed {
		m.t.Fatal(renewed, err)
	}
	for ctx := m.ctx(); !bytes.Equal(m.shown(), p.raw()); {
		m.must(wait(ctx, pause))
	}
	if renewed, err := m.Renew(); err != nil || renewed {
		m.t.Errorf("the same certificate again: %v %v", renewed, err)
	}
	gone := errors.New("gone")
	given := m.o.TLS.Certificates
	m.o.TLS.Certificates = func() (Certificates, error) { return Certificates{}, gone }
	if _, err := m.Renew(); !errors.Is(err, gone) {
		m.t.Errorf("certificates that are gone: %v", err)
	}
	m.o.TLS.Certificates = given
	if !bytes.Equal(m.shown(), p.raw()) || m.sql("SELECT pg_postmaster_start_time()") != started || m.sql("SELECT pid FROM pg_stat_replication") != sender {
		m.t.Error("it was restarted, or its replica cut off")
	}
	info, err := os.Stat(m.pairFile())
	m.must(err)
	if info.Mode() != 0o600 {
		m.t.Errorf("the key's file has mode %s", info.Mode())
	}
	replica.sees(func(s failover.Database) bool { return s.Receiving })
}

// refusedByOthers: who trusts another CA neither copies m nor rewinds to it. Nor does who asks for m's address, and reaches
// it at another one than its certificate has.
func (m *member) refusedByOthers(e *engine, replica *member, own *papers) {
	m.t.Helper()
	stranger := newPapers(m.t, certificate.NewAuthority(m.t, m.t.TempDir()), "stranger")
	c := newMember(m.t, e, 2, stranger.option)
	_, err := c.Renew()
	m.must(err)
	if err := c.Clone(c.ctx(), *m.peer()); err == nil || !strings.Contains(err.Error(), "SSL error") {
		m.t.Errorf("a copy of who is not known: %v", err)
	}
	own.option(&c.o)
	_, err = c.Renew()
	m.must(err)
	elsewhere := *m.peer()
	elsewhere.Host = "localhost"
	if err := c.Clone(c.ctx(), elsewhere); err == nil || !strings.Contains(err.Error(), `host name "localhost"`) {
		m.t.Errorf("a copy of who is reached at another address: %v", err)
	}
	replica.process.Kill()
	for _, test := range []struct {
		papers *papers
		full   bool
		host   string
		said   string
	}{
		{stranger, false, "127.0.0.1", "unknown authority"},
		{own, true, "localhost", "localhost"},
		{own, false, "localhost", ""},
	} {
		test.papers.option(&replica.o)
		replica.o.TLS.Full = test.full
		_, err := replica.Renew()
		m.must(err)
		peer := *m.peer()
		peer.Host = test.host
		if err := replica.Rewind(replica.ctx(), peer); (err == nil) != (test.said == "") || err != nil && !strings.Contains(err.Error(), test.said) {
			m.t.Errorf("rewound to %s (full: %v): %v", test.host, test.full, err)
		}
	}
}
