package database

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"sync"
	"time"

	"drover/internal/failover"
)

// askPath is where members ask one another. It is no public API.
const askPath = "/drover/ask"

// question is what a member asks another one.
type question struct {
	Epoch uint64 `json:"epoch"` // the highest that the asking member has written down
	Leads uint64 `json:"leads"` // the epoch that it leads in; 0: none
}

// reply is what it is told: what decisions depend on, and what people want to know.
type reply struct {
	failover.Answer
	View View `json:"view"`
}

// maxMessage bounds a question and an answer, in bytes.
const maxMessage = 16 << 10

// token shows that who asks knows the secret.
func (m *Member) token() string {
	mac := hmac.New(sha256.New, m.opt.Secret)
	_, _ = io.WriteString(mac, "drover database peer 1 "+m.opt.Prefix)
	return "Bearer " + hex.EncodeToString(mac.Sum(nil))
}

// askAll asks the other members again and again.
func (m *Member) askAll(ctx context.Context) {
	client := peerClient()
	defer client.CloseIdleConnections()
	for {
		m.askRound(ctx, client)
		if !m.rest(ctx, m.reask, m.pace(near)) {
			return
		}
	}
}

func peerClient() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1, DisableCompression: true}}
}

// askRound asks the other members, all at the same time, and returns when they have answered or it has waited for long enough.
func (m *Member) askRound(ctx context.Context, client *http.Client) {
	var round sync.WaitGroup
	sent := m.now() // before what the question says: that it leads is said for a moment that is not earlier
	q, ids := m.question()
	for _, id := range ids {
		round.Go(func() {
			if err := m.ask(ctx, client, id, q, sent); err != nil && ctx.Err() == nil {
				m.opt.Log.Debug("database: ask a member", "member", id, "err", err)
			}
		})
	}
	round.Wait()
}

// askNow has the view be of now: what was seen a second ago may be why an order is refused, or who is chosen.
func (m *Member) askNow(ctx context.Context) {
	client := peerClient()
	defer client.CloseIdleConnections()
	m.askRound(ctx, client)
	asked := m.now()
	m.nudge()
	for m.seen.Load().stepped < asked && m.now() < asked+m.askTimeout() && m.rest(ctx, nil, 5*time.Millisecond) {
	}
}

func (m *Member) question() (question, []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return question{m.written, m.leading()}, m.decision.Ask
}

// askTimeout bounds one question: who does not answer holds up the next round no longer.
func (m *Member) askTimeout() time.Duration { return max(m.opt.Failover.TTL/6, 250*time.Millisecond) }

func (m *Member) ask(ctx context.Context, client *http.Client, id string, q question, sent time.Duration) error {
	m.mu.Lock()
	api := m.peers[id].API
	m.mu.Unlock()
	if api == "" {
		return errors.New("its address is not known")
	}
	said, err := m.inquire(ctx, client, api, q)
	if err != nil {
		return err
	}
	a := said.Answer
	m.mu.Lock()
	if last, is := m.obs.Answers[a.ID]; !is || last.Sent <= sent { // two rounds may be under way
		a.Sent, a.Got = sent, m.now()
		m.obs.Answers = with(m.obs.Answers, a)
		m.views[a.ID] = Sighting{View: said.View, Age: sent}
		maps.DeleteFunc(m.views, func(_ string, s Sighting) bool { return sent-s.Age > oldest })
	}
	m.mu.Unlock()
	m.nudge()
	return nil
}

// inquire asks whoever answers at an address.
func (m *Member) inquire(ctx context.Context, client *http.Client, api string, q question) (said reply, err error) {
	body, err := json.Marshal(q)
	if err != nil {
		return said, err
	}
	ctx, cancel := context.WithTimeout(ctx, m.askTimeout())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+api+askPath, bytes.NewReader(body))
	if err != nil {
		return said, err
	}
	req.Header.Set("Authorization", m.token())
	resp, err := client.Do(req)
	if err != nil {
		return said, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return said, fmt.Errorf("it answers %s", resp.Status)
	}
	return said, json.NewDecoder(io.LimitReader(resp.Body, maxMessage)).Decode(&said)
}

// oldest is how long what another copy of the files said is kept.
const oldest = 10 * time.Minute

// with is a copy that has the answer, too; the core may still read the former.
func with(old map[string]failover.Answer, a failover.Answer) map[string]failover.Answer {
	all := make(map[string]failover.Answer, len(old)+1)
	for id, b := range old {
		if a.Got-b.Sent < oldest {
			all[id] = b
		}
	}
	all[a.ID] = a
	return all
}

// answer answers another member: as soon as this one has obeyed an epoch that it had not heard of, or
// after a while.
func (m *Member) answer(w http.ResponseWriter, r *http.Request) {
	var q question
	if !m.read(w, r, &q) {
		return
	}
	m.heed(r.Context(), q)
	m.mu.Lock()
	if q.Leads != 0 && q.Leads == m.written {
		m.obs.Alive, m.obs.AliveEpoch = m.now(), q.Leads
	}
	a := m.state.Answer(m.written, m.observation())
	m.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(reply{a, m.View()})
}

// read reads what a member says; anything else is answered.
func (m *Member) read(w http.ResponseWriter, r *http.Request, v any) bool {
	if !hmac.Equal([]byte(r.Header.Get("Authorization")), []byte(m.token())) {
		http.Error(w, "who asks is no member", http.StatusForbidden)
		return false
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, maxMessage)).Decode(v); err != nil {
		http.Error(w, "the question cannot be read", http.StatusBadRequest)
		return false
	}
	return true
}

// heed looks at the record at once if somebody knows a newer epoch, and waits a little for the effect.
func (m *Member) heed(ctx context.Context, q question) {
	end := m.now() + m.askTimeout()*3/4
	for {
		m.mu.Lock()
		behind := q.Epoch > m.written
		m.mu.Unlock()
		if !behind || m.now() >= end {
			return
		}
		poke(m.reread)
		if !m.rest(ctx, nil, 5*time.Millisecond) {
			return
		}
	}
}
