package control

import (
	"context"
	"errors"
	"testing"
	"time"

	"drover/client"
)

func (a *agent) HandOver(_ context.Context, grace time.Duration) (client.Takeover, error) {
	switch grace {
	case 2 * time.Second:
		return client.Takeover{}, errFailed
	case time.Second:
		return client.Takeover{Kind: client.KindHeld}, errors.New("held by another")
	}
	return client.Takeover{Holder: "two", Epoch: 2, Seconds: grace.Seconds()}, nil
}

func TestTakeover(t *testing.T) {
	a := &agent{}
	socket := start(t, a, Options{})
	c := client.New(socket)
	defer c.Close()
	if got, err := c.HandOver(t.Context(), time.Minute); err != nil || got != (client.Takeover{Holder: "two", Epoch: 2, Seconds: 60}) {
		t.Errorf("got %+v, %v", got, err)
	}
	for grace, want := range map[time.Duration]string{time.Second: client.KindHeld, 0: client.KindInvalid, -time.Minute: client.KindInvalid, 48 * time.Hour: client.KindInvalid} {
		var refusal *client.Error
		if _, err := c.HandOver(t.Context(), grace); !errors.As(err, &refusal) || refusal.Kind != want || refusal.Message == "" {
			t.Errorf("grace %v: got %v, want a refusal of kind %s", grace, err, want)
		}
	}
}
