package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"drover/client"
)

func (s *session) membersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "members",
		Short: "Show the members of the database's cluster",
		Long: `Asks the agent on the control socket, which is a member's, for all members: who leads,
for whom commits wait, how far each is behind, the versions of its server and agent, and
what it waits for; of a cluster that follows another one, how old the last commit is that
each has applied. This one is marked with *. One that has not answered lately is silent.

` + agentExits(exitHeld),
		Example: `  drover members
  drover members --json | jq -r '.members[] | select(.role == "primary").name'`,
		Args: noArgs,
	}
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return s.withAgent(cmd, func(ctx context.Context, c *client.Client) error {
			d, err := c.DatabaseMembers(ctx)
			switch {
			case err != nil:
				return s.failed(err)
			case s.json:
				return s.printJSON(d)
			}
			return s.say("%s", strings.Join(membersPage(d, s.Now(), s.painter()), "\n"))
		})
	}
	return cmd
}

// membersPage is a cluster for people.
func membersPage(d client.DatabaseCluster, now time.Time, p painter) []string {
	var entries []entry
	for _, m := range d.Members {
		mark := " "
		if m.Name == d.Member {
			mark = "*"
		}
		state, shade := memberState(m)
		entries = append(entries, entry{
			row: []cell{
				{mark + printable(m.Name), bold, false}, {m.Role, roleColour(m.Role), false}, {yes(m.Sync), plainText, false}, {"● " + state, shade, false},
				{m.Timeline, plainText, true}, {lagOf(m, now), plainText, true}, {agoOf(m.LastBackup, now), plainText, true}, {strings.Join(m.Tags, ","), plainText, false},
				{printable(m.Server), plainText, false}, {printable(m.Version), plainText, false},
				{fmt.Sprintf("%s:%d", m.Host, m.Port), plainText, false},
			},
			notes: memberNotes(m),
		})
	}
	head := []cell{
		{" MEMBER", dim, false}, {"ROLE", dim, false}, {"SYNC", dim, false}, {"STATE", dim, false}, {"TIMELINE", dim, true},
		{"LAG", dim, true}, {"BACKUP", dim, true}, {"TAGS", dim, false}, {"SERVER", dim, false}, {"AGENT", dim, false}, {"ADDRESS", dim, false},
	}
	lines := []string{clusterLine(d)}
	if d.Paused {
		lines = append(lines, p.paint(yellow, "failover is paused"))
	}
	if d.Switchover != nil {
		lines = append(lines, p.paint(yellow, switchoverLine(d.Switchover)))
	}
	if d.Withdrawn != nil {
		lines = append(lines, p.paint(yellow, withdrawnLine(d.Withdrawn)))
	}
	if d.Roll != "" {
		lines = append(lines, p.paint(yellow, printable(d.Roll)))
	}
	for _, l := range backupLines(d.Backups, now) {
		lines = append(lines, p.paint(l.colour, printable(l.text)))
	}
	return append(lines, annotated(head, entries, 0, p)...)
}

// backupLines say how a database's backups are.
func backupLines(b *client.DatabaseBackups, now time.Time) []note {
	if b == nil {
		return nil
	}
	last := note{"no base backup is known", yellow}
	if b.Last != nil {
		last = note{"last base backup " + agoOf(b.Last, now), plainText}
		if b.By != "" {
			last.text += " by " + b.By
		}
	}
	log := note{"log archived", plainText}
	if b.ArchivedAt != nil {
		log.text += " up to " + b.Archived + ", " + agoOf(b.ArchivedAt, now)
	}
	if b.Waiting > 0 {
		log.text += fmt.Sprintf("; %s wait (%s), the first for %s", count(int64(b.Waiting), "segment"), size(b.WaitingBytes), seconds(b.WaitingSeconds))
	}
	lines := []note{last}
	switch {
	case b.ArchiveError != "":
		lines = append(lines, note{"the log is not archived: " + b.ArchiveError, red})
	case b.ArchivedAt != nil || b.Waiting > 0:
		lines = append(lines, log)
	}
	if b.Error != "" {
		lines = append(lines, note{"the last base backup failed: " + b.Error, red})
	}
	if t := b.RestoreTest; t != nil {
		shade := plainText
		if !t.Passed {
			shade = red
		}
		lines = append(lines, note{"restore test " + restoreTestLine(t, now), shade})
	}
	return lines
}

func clusterLine(d client.DatabaseCluster) string {
	line := fmt.Sprintf("%s cluster %s, epoch %d: ", d.Engine, printable(d.Cluster), d.Epoch)
	if d.Standby {
		return line + "it follows another cluster"
	}
	if d.Primary == "" {
		line += "no primary"
	} else {
		line += printable(d.Primary) + " leads"
	}
	switch {
	case d.Mode == "off":
		line += "; asynchronous"
	case d.Mode != "":
		line += fmt.Sprintf("; %s, %s a commit", d.Mode, count(int64(d.Acks), "acknowledgement"))
	}
	return line
}

func switchoverLine(s *client.DatabaseSwitchover) string {
	what := "a switchover"
	if s.Force {
		what = "a failover"
	}
	if s.To != "" {
		what += " to " + printable(s.To)
	}
	if s.At == nil {
		return what + " is under way"
	}
	return what + " is to come at " + s.At.Local().Format(time.RFC3339)
}

func withdrawnLine(w *client.DatabaseWithdrawn) string {
	what := "a switchover"
	if w.To != "" {
		what += " to " + printable(w.To)
	}
	return what + " was withdrawn at " + w.Time.Local().Format(time.RFC3339) + ": " + printable(w.Why)
}

func memberState(m client.DatabaseMember) (string, colour) {
	switch {
	case m.State == "silent":
		return m.State, red
	case m.Role == "primary":
		return m.State, green
	case m.Receiving:
		return "receiving", green
	case m.Role == "standby":
		return "applying", green
	}
	return m.State, yellow
}

func memberNotes(m client.DatabaseMember) []note {
	var notes []note
	if m.Why != "" {
		notes = append(notes, note{m.Why, yellow})
	}
	if m.Position != "" {
		notes = append(notes, note{"it has applied up to " + m.Position, plainText})
	}
	if m.Restart {
		notes = append(notes, note{restartLine(m.Pending), yellow})
	}
	if b := m.Backups; b != nil && b.ArchiveError != "" {
		notes = append(notes, note{"its log is not archived: " + b.ArchiveError, red})
	}
	if b := m.Backups; b != nil && b.Error != "" {
		notes = append(notes, note{"its last base backup failed: " + b.Error, red})
	}
	return notes
}

// restartLine says what waits for a restart.
func restartLine(parameters []string) string {
	if len(parameters) == 0 {
		return "restart needed" // an older agent does not say for what
	}
	return "restart needed: " + printable(strings.Join(parameters, ", "))
}

func roleColour(role string) colour {
	switch role {
	case "primary":
		return green
	case "none":
		return yellow
	}
	return plainText
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

// lagOf is what a member lacks: in bytes, or of a standby, which cannot know, the age of the last commit that it has.
func lagOf(m client.DatabaseMember, now time.Time) string {
	switch {
	case m.LastCommit != nil:
		return brief(max(now.Sub(*m.LastCommit), 0))
	case m.Role == "primary" || m.State == "silent":
		return ""
	case m.Lag == nil:
		return "unknown"
	}
	return size(*m.Lag)
}

func agoOf(t *time.Time, now time.Time) string {
	if t == nil {
		return ""
	}
	return brief(now.Sub(*t)) + " ago"
}
