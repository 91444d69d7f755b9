package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"drover/client"
	"drover/internal/app"
)

// statusOfAll reads the heads of all volumes that there are in the store.
func (s *session) statusOfAll(cmd *cobra.Command) error {
	for _, one := range []string{slotFlag, "volume"} {
		if cmd.Flags().Lookup(one).Changed {
			return usageError{"--all is every volume, --" + one + " is one", "leave one of them out"}
		}
	}
	cfg, err := s.load(cmd, nil)
	if err != nil {
		return err
	}
	if err := cfg.CheckStore(); err != nil {
		return err
	}
	o := s.ops(cfg, app.NewLogger(s.Err, cfg, true))
	names, err := o.Volumes(cmd.Context())
	if err := errors.Join(err, o.Close()); err != nil {
		return err
	}
	var all []*app.Config
	for _, name := range names {
		all = append(all, cfg.Named(name))
	}
	return s.statusOfEach(cmd.Context(), all, false)
}

// statusOfSlots reads the heads of all slots.
func (s *session) statusOfSlots(ctx context.Context, cfg *app.Config) error {
	if err := cfg.CheckStore(); err != nil {
		return err
	}
	var all []*app.Config
	for i := range cfg.Slots {
		all = append(all, cfg.Slot(i))
	}
	return s.statusOfEach(ctx, all, true)
}

// statusOfEach reads one volume after another and prints a line for each. What cannot
// be read of one is told in its place, and makes the command fail in the end.
func (s *session) statusOfEach(ctx context.Context, all []*app.Config, slots bool) error {
	found := []client.Status{}
	var failed []error
	for i, cfg := range all {
		o := s.ops(cfg, app.NewLogger(s.Err, cfg, true))
		st, err := o.Status(ctx)
		if err = errors.Join(err, o.Close()); ctx.Err() != nil {
			return err
		}
		if err != nil {
			if st = app.StatusOf(cfg, err); st.Health == "failed" {
				failed = append(failed, err)
			}
		}
		if st.Volume = cfg.Volume; slots {
			st.Slot, st.Slots = &i, len(all)
		}
		found = append(found, st)
	}
	if err := s.printStatuses(found, slots); err != nil {
		return err
	}
	if len(failed) > 0 {
		return fmt.Errorf("%d of %s could not be read: %w", len(failed), count(int64(len(found)), "volume"), failed[0])
	}
	return nil
}

func (s *session) printStatuses(all []client.Status, slots bool) error {
	if s.json {
		return s.printJSON(all)
	}
	if len(all) == 0 {
		return s.say("no volumes")
	}
	rows := [][]string{{"SLOT", "VOLUME", "HOLDER", "EPOCH", "LAST COMMIT", "HEALTH"}}
	for i, st := range all {
		holder, commit, health := holderOf(st), commitOf(st, s.Now()), st.Health
		if holder == "" {
			holder = "nobody (not made yet)"
		}
		if health == "failed" {
			holder, commit = "?", "?"
		}
		if health != "ok" {
			health += ": " + st.Message
		}
		rows = append(rows, []string{
			strconv.Itoa(i), st.Volume, printable(holder), strconv.FormatUint(st.Epoch, 10), commit, oneLine(health),
		})
	}
	if !slots {
		for i := range rows {
			rows[i] = rows[i][1:]
		}
	}
	return table(s.Out, rows)
}
