package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"drover/client"
)

// statusPage is a status for people: a name and a value a row, then tables of its jobs and of what they
// have to do with others.
// On a terminal it is no wider than that; elsewhere no line is broken.
func statusPage(st client.Status, now time.Time, width int, p painter) []string {
	rows := statusRows(st, now)
	names := 0
	for _, row := range rows {
		names = max(names, utf8.RuneCountInString(row[0]))
	}
	var lines []string
	for _, row := range rows {
		room := 0
		if width > 0 {
			room = width - names - 2
		}
		name := row[0]
		for _, part := range wrap(row[1], room) {
			lines = append(lines, p.paint(dim, name)+strings.Repeat(" ", names+2-utf8.RuneCountInString(name))+p.paint(rowColour(row[0], row[1], st), part))
			name = ""
		}
	}
	lines = append(lines, jobTable(st.Jobs, now, width, p)...)
	return append(lines, coordinated(st, now, width, p)...)
}

// rowColour makes what needs a look stand out.
func rowColour(name, value string, st client.Status) colour {
	switch {
	case name == "health" && value == "ok":
		return green
	case name == "secrets" && !st.Secrets.Healthy, name == "maintenance", (name == "health" || name == "message") && st.Health == "degraded":
		return yellow
	case (name == "health" || name == "message") && st.Health == "failed", name == "last backup":
		return red
	}
	return plainText
}

// jobTable is a line for each job, and one below for each of its checks that fails.
func jobTable(jobs []client.Job, now time.Time, width int, p painter) []string {
	head := []cell{
		{"JOB", dim, false}, {"STATE", dim, false}, {"PID", dim, true}, {"UPTIME", dim, true},
		{"RESTARTS", dim, true}, {"HEALTH", dim, false}, {"NEXT", dim, false},
	}
	return annotated(head, entriesOf(jobs, func(job client.Job) entry {
		e := entry{row: jobCells(job, now, width)}
		for _, check := range job.Checks {
			if check.Error == "" || check.Health != "unhealthy" && check.Failures == 0 {
				continue
			}
			shade := yellow
			if check.Health == "unhealthy" {
				shade = red
			}
			e.notes = append(e.notes, note{checkLine(check), shade})
		}
		return e
	}), width, p)
}

// nameWidth is how much of a job's name fits on a terminal.
const nameWidth = 16

func jobCells(job client.Job, now time.Time, width int) []cell {
	name, suffix := printable(job.Name), ""
	if job.Main {
		suffix = " (main)"
	}
	if width > 0 {
		name = cut(name, nameWidth-len(suffix))
	}
	text, shade := stateOf(job)
	row := []cell{{name + suffix, bold, false}, {"● " + text, shade, false}, {"", plainText, true}, {"", plainText, true}, {strconv.Itoa(job.Restarts), plainText, true}, {job.Health, healthColour(job.Health), false}, {"", plainText, false}}
	if job.PID > 0 {
		row[2].text = strconv.Itoa(job.PID)
	}
	if job.State == "running" && !job.Since.IsZero() {
		row[3].text = brief(now.Sub(job.Since))
	}
	if job.Restarts > 0 {
		row[4].colour = yellow
	}
	if job.Next != nil {
		row[6].text = "in " + brief(job.Next.Sub(now))
	}
	return row
}

// stateOf is a job's state in a word, and how it is shown.
func stateOf(job client.Job) (string, colour) {
	failed := job.Exit != nil && *job.Exit != 0
	switch {
	case job.Held && (job.State == "exited" || job.State == "waiting"):
		return "stopped", dim
	case job.State == "running" && job.Health == "unhealthy":
		return job.State, red
	case job.State == "running":
		return job.State, green
	case job.State == "exited" && job.Exit != nil:
		if failed {
			return "exited " + strconv.Itoa(*job.Exit), red
		}
		return "exited 0", dim
	case job.State == "waiting" && failed:
		return "failed " + strconv.Itoa(*job.Exit), red
	case job.State == "waiting":
		return job.State, dim
	}
	return job.State, yellow
}

func healthColour(health string) colour {
	switch health {
	case "healthy":
		return green
	case "unhealthy":
		return red
	case "":
		return plainText
	}
	return yellow
}

func checkLine(c client.Check) string {
	line := fmt.Sprintf("%s check %s", c.Level, c.Name)
	if c.Failures > 0 {
		line += fmt.Sprintf(" failed %s", times(c.Failures))
	}
	return line + ": " + c.Error
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return strconv.Itoa(n) + " times"
}

// brief writes a length of time in at most two units, rounded down.
func brief(d time.Duration) string {
	const day = 24 * time.Hour
	d = max(0, d)
	two := func(big time.Duration, bigUnit string, small time.Duration, smallUnit string) string {
		text := strconv.Itoa(int(d/big)) + bigUnit
		if rest := d % big / small; rest > 0 {
			text += strconv.Itoa(int(rest)) + smallUnit
		}
		return text
	}
	switch {
	case d < time.Minute:
		return strconv.Itoa(int(d/time.Second)) + "s"
	case d < time.Hour:
		return two(time.Minute, "m", time.Second, "s")
	case d < day:
		return two(time.Hour, "h", time.Minute, "m")
	case d < 100*day:
		return two(day, "d", time.Hour, "h")
	}
	return strconv.Itoa(int(d/day)) + "d"
}
