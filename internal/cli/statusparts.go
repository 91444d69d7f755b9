package cli

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"drover/client"
)

// note is a line below a row.
type note struct {
	text   string
	colour colour
}

// entry is a row of a table, and what is to be said about it below.
type entry struct {
	row   []cell
	notes []note
}

// annotated lays out a table with its notes, after an empty line; no entries, nothing.
func annotated(head []cell, entries []entry, width int, p painter) []string {
	if len(entries) == 0 {
		return nil
	}
	rows := [][]cell{head}
	for _, e := range entries {
		rows = append(rows, e.row)
	}
	table := columns(rows, p)
	lines := []string{"", table[0]}
	for i, e := range entries {
		lines = append(lines, table[i+1])
		for _, n := range e.notes {
			for j, part := range wrap(printable(n.text), max(0, width-4)) {
				indent := "  "
				if j > 0 {
					indent = "    "
				}
				lines = append(lines, indent+p.paint(n.colour, part))
			}
		}
	}
	return lines
}

func heads(names ...string) []cell {
	var row []cell
	for _, name := range names {
		row = append(row, cell{name, dim, name == "FOR"})
	}
	return row
}

// coordinated are the tables of what an instance has to do with others: services, watches,
// templates and rolls.
func coordinated(st client.Status, now time.Time, width int, p painter) []string {
	var lines []string
	of := func(head []cell, entries []entry) { lines = append(lines, annotated(head, entries, width, p)...) }
	short := func(text string, most int) string {
		if text = printable(text); width > 0 {
			return cut(text, most)
		}
		return text
	}
	of(heads("SERVICE", "JOB", "CATALOG", "FOR"), entriesOf(st.Services, func(s client.Service) entry { return serviceEntry(s, now, short) }))
	of(heads("WATCH", "OF", "STATE", "FOR"), entriesOf(st.Watches, func(w client.Watch) entry { return watchEntry(w, now, short) }))
	of(heads("TEMPLATE", "STATE", "FOR", "FILE"), entriesOf(st.Templates, func(t client.Template) entry { return templateEntry(t, now, width, short) }))
	of(heads("ROLL", "STATE", "FOR"), entriesOf(st.Rolls, func(r client.Roll) entry { return rollEntry(r, now, short) }))
	return lines
}

func entriesOf[T any](list []T, of func(T) entry) []entry {
	var all []entry
	for _, one := range list {
		all = append(all, of(one))
	}
	return all
}

// since is for how long; "": not known.
func since(t, now time.Time) cell {
	if t.IsZero() {
		return cell{"", plainText, true}
	}
	return cell{brief(now.Sub(t)), plainText, true}
}

func serviceEntry(s client.Service, now time.Time, short func(string, int) string) entry {
	text, shade := s.Status, yellow
	switch s.Status {
	case "passing":
		shade = green
	case "critical":
		shade = red
	case "":
		text, shade = "not listed", dim
	}
	e := entry{row: []cell{{short(s.Name, nameWidth), bold, false}, {short(s.Job, nameWidth), plainText, false}, {"● " + text, shade, false}, since(s.Since, now)}}
	if s.Wanted != s.Status {
		wanted := "is to be " + s.Wanted
		if s.Wanted == "" {
			wanted = "is to be taken out"
		}
		if s.Error != "" {
			wanted += ": " + s.Error
		}
		e.notes = append(e.notes, note{wanted, yellow})
	} else if s.Error != "" {
		e.notes = append(e.notes, note{s.Error, yellow})
	}
	return e
}

func watchEntry(w client.Watch, now time.Time, short func(string, int) string) entry {
	of, thing := "service "+w.Service, "instance"
	switch {
	case w.Key != "":
		of, thing = "key "+w.Key, "key"
	case w.Prefix != "":
		of, thing = "keys "+w.Prefix, "key"
	}
	text, shade := "● "+count(int64(w.Size), thing), green
	switch {
	case !w.Known:
		text, shade = "● not known", yellow
	case w.Error != "":
		shade = yellow
	case w.Size == 0:
		shade = dim
	}
	const ofWidth = 32
	e := entry{row: []cell{{short(w.Name, nameWidth), bold, false}, {short(of, ofWidth), plainText, false}, {text, shade, false}, since(w.Since, now)}}
	if w.Error != "" {
		what := "as last heard: "
		if !w.Known {
			what = ""
		}
		e.notes = append(e.notes, note{what + w.Error, yellow})
	}
	return e
}

func templateEntry(t client.Template, now time.Time, width int, short func(string, int) string) entry {
	shade, when := green, time.Time{}
	switch t.State {
	case "failed":
		shade = red
	case "blocked", "waiting":
		shade = yellow
	}
	switch {
	case t.Since != nil:
		when = *t.Since
	case t.Changed != nil:
		when = *t.Changed
	}
	file := printable(t.Destination)
	const fileWidth = 36
	if n := utf8.RuneCountInString(file); width > 0 && n > fileWidth {
		file = "…" + string([]rune(file)[n-fileWidth+1:])
	}
	e := entry{row: []cell{{short(t.Name, nameWidth), bold, false}, {"● " + t.State, shade, false}, since(when, now), {file, plainText, false}}}
	for _, m := range t.Missing {
		e.notes = append(e.notes, note{"waits for " + m, yellow})
	}
	if t.Error != "" {
		e.notes = append(e.notes, note{t.Error, red})
	}
	if n := len(t.Stale); n > 0 {
		text := "last value in use of " + t.Stale[0]
		if n > 1 {
			text += " (and of " + strconv.Itoa(n-1) + " more)"
		}
		e.notes = append(e.notes, note{text, yellow})
	}
	if t.Unacted != "" {
		e.notes = append(e.notes, note{"what follows is not done yet: " + t.Unacted, red})
	}
	return e
}

func rollEntry(r client.Roll, now time.Time, short func(string, int) string) entry {
	text, shade := r.State, yellow
	switch r.State {
	case "":
		text, shade = "at rest", dim
	case "stopped":
		shade = red
	}
	e := entry{row: []cell{{short(r.Name, nameWidth), bold, false}, {"● " + text, shade, false}, since(r.Since, now)}}
	if r.Why != "" {
		e.notes = append(e.notes, note{r.Why, shade})
	}
	return e
}

// databaseLines say how a member of a cluster is, and the cluster.
func databaseLines(d *client.Database, now time.Time) []string {
	if d == nil {
		return nil
	}
	first := d.Engine + " cluster " + d.Cluster + ", "
	switch {
	case d.Primary == "" && d.Without > 0:
		first += "no primary for " + seconds(d.Without)
	case d.Primary == "":
		first += "no primary"
	default:
		first += d.Primary + " leads"
	}
	if d.Timeline != "" {
		first += ", timeline " + d.Timeline
	}
	if d.Lag != nil {
		first += ", " + size(*d.Lag) + " behind"
	}
	lines := []string{first}
	switch {
	case d.Mode == "off":
		lines = append(lines, "asynchronous: the last commits may be lost with the primary")
	case d.Mode != "":
		lines = append(lines, fmt.Sprintf("synchronous (%s): %d of %s a commit, by %s", d.Mode, d.Acks, count(int64(d.AcksWanted), "acknowledgement"), cmp.Or(strings.Join(d.SyncMembers, " or "), "nobody")))
	}
	if d.Paused {
		lines = append(lines, "failover is paused")
	}
	if d.Switchover != nil {
		lines = append(lines, switchoverLine(d.Switchover))
	}
	if d.Withdrawn != nil {
		lines = append(lines, withdrawnLine(d.Withdrawn))
	}
	if d.Restart {
		lines = append(lines, restartLine(d.Pending))
	}
	if d.Roll != "" {
		lines = append(lines, d.Roll)
	}
	if b := d.Backups; b != nil {
		shown := *b
		shown.RestoreTest = nil // it has a row of its own
		for _, l := range backupLines(&shown, now) {
			lines = append(lines, l.text)
		}
	}
	if d.Why != "" {
		lines = append(lines, d.Why)
	}
	return lines
}

// secretsLines say how Vault is: a line, and one for each secret that cannot be had.
func secretsLines(s *client.Secrets, now time.Time) []string {
	if s == nil {
		return nil
	}
	text, age := "Vault serves them", ""
	if !s.Since.IsZero() && !s.Healthy {
		age = ", for " + brief(now.Sub(s.Since))
	}
	switch {
	case s.Error != "":
		text = "as last read" + age + ": " + s.Error
	case len(s.Failing) > 0:
		text = count(int64(len(s.Failing)), "secret") + " cannot be had" + age
	}
	return append([]string{text}, s.Failing...)
}
