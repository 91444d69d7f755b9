package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
)

// settings names the parameters of now, and reports whether some that wait for a restart, whose present values are given, go lower
// than replicas may go before their primary.
func (d *Driver) settings(pending map[string]string) (name string, lowers bool) {
	var o Options
	d.set(func() { o.Parameters = d.o.Parameters })
	for _, s := range floors {
		if have, err := strconv.Atoi(pending[s.name]); err == nil && o.number(s.name, s.initial) < have {
			lowers = true
		}
	}
	text, err := json.Marshal(o.Parameters)
	if err != nil {
		return "", lowers
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:6]), lowers
}

// outgrown says what a replica that has paused has less of than its primary; empty: nothing.
func (d *Driver) outgrown(ctx context.Context, conn *pgx.Conn) string {
	var files control
	if err := d.quick(ctx, func() (err error) { files, err = d.control(ctx); return err }); err != nil {
		return ""
	}
	for _, s := range floors {
		var have int
		if err := conn.QueryRow(ctx, "SELECT current_setting($1)::int", s.name).Scan(&have); err != nil {
			return ""
		}
		if need, err := strconv.Atoi(files.fields[s.control]); err == nil && need > have {
			return fmt.Sprintf("it applies nothing: %s is %d here, and %d on the primary", s.name, have, need)
		}
	}
	return ""
}
