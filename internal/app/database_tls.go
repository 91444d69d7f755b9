package app

import (
	"context"
	"fmt"
	"time"

	"drover/internal/config"
	"drover/internal/database/postgres"
)

// certificateEvery is how often a member's files are looked at.
const certificateEvery = time.Second

// memberTLS is how a driver gets the certificates of now; nil: there are none.
func memberTLS(cfg *config.Config) *postgres.TLS {
	if !cfg.HasDatabaseTLS() {
		return nil
	}
	return &postgres.TLS{
		Full: cfg.Database.TLS.Verify == config.VerifyFull,
		Certificates: func() (postgres.Certificates, error) {
			c, err := cfg.ReadDatabaseTLS()
			return postgres.Certificates(c), err
		},
	}
}

// certify gives the member its first certificates. Those that templates make are waited for, until the agent is to stop.
func (a *agent) certify(ctx context.Context) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for told := false; ; told = true {
		held := a.renders.current().holds() // before: what they have made by then is there
		_, err := a.member.driver.Renew()
		if err == nil || !held {
			return err
		}
		if !told {
			a.log.Info("the database waits for its certificates, which templates may make", "err", err)
		}
		select {
		case <-tick.C:
		case <-a.stopping.Done():
			return a.stopping.Err()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// followCertificates has the member's files take effect when they change, until ctx ends. Files that cannot be used twice in a
// row are told of: one after the other is being exchanged at first.
func (a *agent) followCertificates(ctx context.Context) {
	seen, told := "", ""
	repeat(ctx, certificateEvery, func() {
		renewed, err := a.member.driver.Renew()
		if renewed {
			a.log.Info("the database has other certificates")
		}
		switch said := fmt.Sprint(err); {
		case err == nil:
			seen, told = "", ""
		case said != seen:
			seen = said
		case said != told:
			a.log.Error("the database's certificates stay as they were", "err", err)
			told = said
		}
	})
}
