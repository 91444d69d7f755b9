package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"drover/client"
	"drover/internal/app"
)

// statusTimeout is how long an agent may take to say how it is.
const statusTimeout = 10 * time.Second

func (s *session) statusCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "status [--all]",
		Short: "Show the instance and its volume: who holds it, how old the last commit is",
		Long: `Asks the agent on the control socket, if there is one; else reads the volume's head
from the store. With ownership slot that is one line for each slot, unless --slot names
one, which is always read from the store. --all reads every volume that there is in the
store: one line each, and a failure if one cannot be read.

A head that is held and was not renewed for three of its TTLs, and at least a minute, is
called silent: its holder is dead or cut off, and nobody has taken over.

Each job has a line: what it does, its process, for how long it runs, how often it was
restarted in a row, its health, its next turn; and below, the checks that fail. So have
services (what the catalog says), watches, templates (what blocks them) and rolls.

RPO is the age of the last commit while changes wait (what a loss now would cost); RTO
is the time that the last restore, or restore test, took.

` + storeExits(),
		Example: `  drover status
  drover status --json | jq .rpo_seconds
  drover status --all --json | jq '.[] | select(.health != "ok")'
  drover status --store s3://state/wiki --password-file /run/secrets/store`,
		Args: noArgs,
	}
	addSettings(cmd.Flags(), cmd, app.GroupStore)
	cmd.Flags().BoolVar(&all, "all", false, "every volume in the store, one line each")
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if all {
			return s.statusOfAll(cmd)
		}
		return s.status(cmd)
	}
	return cmd
}

func (s *session) status(cmd *cobra.Command) error {
	status, err := client.Status{}, client.ErrNoAgent
	if f := cmd.Flags().Lookup(slotFlag); !f.Changed {
		socket, bad := s.socket(cmd)
		if bad != nil {
			return bad
		}
		status, err = askStatus(cmd.Context(), socket)
	}
	if errors.Is(err, client.ErrNoAgent) {
		cfg, bad := s.load(cmd, nil)
		switch {
		case bad != nil:
			return bad
		case cfg.Store.URL == "":
			return fmt.Errorf("status: %w, and no store is given; set --socket, or --store to read the store", err)
		case cfg.Slots > 0:
			return s.statusOfSlots(cmd.Context(), cfg)
		}
		err = s.withOps(cmd, func(ctx context.Context, o operations) error {
			status, err = o.Status(ctx)
			return err
		})
	}
	if err != nil {
		return err
	}
	if s.json {
		return s.printJSON(status)
	}
	width := 0
	if s.OutTerm {
		width = pageWidth
	}
	return s.say("%s", strings.Join(statusPage(status, s.Now(), width, s.painter()), "\n"))
}

func askStatus(ctx context.Context, socket string) (client.Status, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, statusTimeout, errors.New("the agent does not answer"))
	defer cancel()
	agent := client.New(socket)
	defer agent.Close()
	return agent.Status(ctx)
}

// statusRows is the human form: a name and a value a row, only what is known.
func statusRows(st client.Status, now time.Time) [][]string {
	var rows [][]string
	add := func(name, value string) {
		if value != "" {
			rows = append(rows, []string{name, printable(value)})
		}
	}
	add("service", st.Service)
	add("volume", st.Volume)
	add("instance", st.Instance)
	add("role", st.Role)
	add("health", st.Health)
	add("message", st.Message)
	if st.Maintenance {
		add("maintenance", "on: what the agent does by itself waits")
	}
	for _, line := range databaseLines(st.Database, now) {
		add("database", line)
	}
	add("holder", holderOf(st))
	if st.Epoch > 0 {
		add("epoch", strconv.FormatUint(st.Epoch, 10))
	}
	add("last commit", commitOf(st, now))
	add("paths", strings.Join(st.Paths, ", "))
	if st.Volume != "" && st.Role != "none" {
		add("RPO", rpoOf(st))
	}
	if st.RTO != nil {
		add("RTO", seconds(*st.RTO)+" (the last restore)")
	}
	if b := st.LastBackup; b != nil && b.Error != "" {
		add("last backup", b.Error)
	}
	if st.Copied > 0 {
		add("copy", copyOf(st))
	}
	add("progress", progressOf(st.Progress))
	add("restore test", restoreTestLine(st.RestoreTest, now))
	add("mirror", mirrorOf(st.Mirror))
	if st.Mirror != nil {
		add("mirror upkeep", upkeepOf(st.Mirror.Upkeep))
	}
	add("upkeep", upkeepOf(st.Upkeep))
	for _, line := range damagedOf(st.Upkeep) {
		add("damaged", line)
	}
	for _, line := range secretsLines(st.Secrets, now) {
		add("secrets", line)
	}
	for _, id := range st.Diverged {
		add("diverged", shortID(id))
	}
	return rows
}

func holderOf(st client.Status) string {
	switch {
	case st.State == "":
		return ""
	case st.State != "held":
		return "nobody (" + st.State + ")"
	case st.Holder == st.Instance && st.Role != "none":
		return st.Holder + " (this instance)"
	default:
		return st.Holder
	}
}

func commitOf(st client.Status, now time.Time) string {
	switch {
	case st.Commit != nil:
		return fmt.Sprintf("%s ago: %s (seq %d)", seconds(max(0, now.Sub(*st.Commit).Seconds())), shortID(st.Snapshot), st.Seq)
	case st.Volume != "" && st.Seq == 0:
		return "none yet"
	default:
		return ""
	}
}

// copyOf says how near a standby is.
func copyOf(st client.Status) string {
	if st.Copied >= st.Seq {
		return "of the last commit"
	}
	return fmt.Sprintf("of seq %d, %d behind", st.Copied, st.Seq-st.Copied)
}

// progressOf is the line that a terminal would show.
func progressOf(p *client.Progress) string {
	if p == nil {
		return ""
	}
	return progressLine(app.Progress{
		Phase: p.Work, Files: p.Files, TotalFiles: p.TotalFiles, Bytes: p.Bytes, TotalBytes: p.TotalBytes,
	}, time.Duration(p.Seconds*float64(time.Second)))
}

func mirrorOf(m *client.Mirror) string {
	var line string
	switch {
	case m == nil:
		return ""
	case m.Stopped:
		line = "stopped"
	case m.Behind == 0:
		line = "up to date"
	default:
		line = fmt.Sprintf("%s behind, for %s", count(int64(m.Behind), "commit"), seconds(m.BehindSeconds))
	}
	if m.Error != "" {
		line += ": " + m.Error
	}
	return line
}

func upkeepOf(u *client.Upkeep) string {
	switch {
	case u == nil || u.Last.IsZero():
		return ""
	case u.Error != "":
		return "nothing is deleted: " + u.Error
	}
	line := fmt.Sprintf("%s removed, %s deleted (%s)", count(int64(u.Removed), "snapshot"), count(int64(u.Deleted), "pack"), size(u.Freed))
	if u.Waiting > 0 {
		line += fmt.Sprintf(", %s to go", count(int64(u.Waiting), "pack"))
	}
	if u.Waits != "" {
		line += "; waits for " + u.Waits
	}
	return line
}

// damagedOf is a line for each snapshot that cannot be restored whole, and one for those
// that are not named.
func damagedOf(u *client.Upkeep) []string {
	if u == nil {
		return nil
	}
	var lines []string
	for _, d := range u.Damaged {
		lines = append(lines, shortID(d.Snapshot)+": "+d.Why)
	}
	if more := u.DamagedCount - len(u.Damaged); more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return lines
}

func rpoOf(st client.Status) string {
	line := seconds(st.RPO)
	if st.Pending {
		line += ", changes wait for a commit"
	}
	return line
}

// jobLine is a job in a line.
func jobLine(job client.Job) string {
	line := job.State
	if job.PID > 0 {
		line += fmt.Sprintf(", pid %d", job.PID)
	}
	if job.Exit != nil && job.PID == 0 {
		line += fmt.Sprintf(", exit %d", *job.Exit)
	}
	if job.Health != "" {
		line += ", " + job.Health
	}
	if job.Held {
		line += ", until it is started by hand"
	}
	return line
}
