package doctor

import (
	"fmt"
	"strings"
	"time"
)

// What schedulers give where nothing is said (Docker's), what to give a last backup of
// which nothing is known, and what is too little whatever it takes.
const (
	DefaultGrace = 10 * time.Second
	advisedGrace = 30 * time.Second
)

// judgeGrace asks whether the last backup at a stop fits. The application needs a part
// of the time to end, so that half of it is what a backup may take.
func judgeGrace(f *Facts) []Finding {
	g := f.Grace
	if g.Unclear || !f.Drover {
		return nil
	}
	found := Finding{ID: IDStopGrace, Severity: Risk, Where: g.Where, Mend: "stop_grace_period: " + span(max(advisedGrace, 3*g.Took.Round(time.Second)))}
	if f.inside() {
		found.Mend = fmt.Sprintf("give %s: docker run --stop-timeout, stop_grace_period, terminationGracePeriodSeconds", span(max(advisedGrace, 3*g.Took.Round(time.Second))))
	}
	given, what := g.Given, "the scheduler gives "+span(g.Given)+" to stop"
	if given == 0 {
		given, what = DefaultGrace, "no stop grace is given: it is Docker's 10s"
		if f.inside() {
			what = "a scheduler that was told nothing gives Docker's 10s to stop (say what yours gives with --grace)"
		}
	}
	found.What = what
	switch {
	case g.Took > given:
		found.Reason = fmt.Sprintf("one of the last backups took %s: the last changes would be left behind", span(g.Took))
	case 2*g.Took > given:
		found.Severity = Note
		found.Reason = fmt.Sprintf("one of the last backups took %s, and the application has to end as well", span(g.Took))
	case g.Took > 0 || f.inside():
		return nil
	case g.Given == 0:
		found.Reason = "the last backup has to fit after the signal, and then comes the kill"
	case g.Given < DefaultGrace:
		found.Reason = "less than what Docker gives of itself; the last backup has to fit as well"
	default:
		return nil
	}
	return []Finding{found}
}

// span writes a time as Compose and people do.
func span(d time.Duration) string {
	if d >= time.Second {
		d = d.Round(100 * time.Millisecond)
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func judgeSignal(f *Facts) []Finding {
	if f.Deaf && !f.Command.First && !f.Command.Shell {
		return []Finding{{
			ID: IDStopSignal, Severity: Risk, Where: f.Entry,
			What:   fmt.Sprintf("the first process, %s, does not catch TERM", f.Command.Program),
			Reason: "the kernel keeps from PID 1 what it does not catch: it is killed after the grace, with no last backup",
			Mend:   "make drover run the entry point",
		}}
	}
	if !f.Signal.given() {
		return nil
	}
	name := strings.TrimPrefix(strings.ToUpper(strings.TrimSpace(f.Signal.Value)), "SIG")
	found := Finding{ID: IDStopSignal, Severity: Risk, Where: f.Signal.Where, What: "the stop signal is " + name, Mend: "stop_signal: SIGTERM, or take the line out"}
	switch name {
	case "KILL", "9", "STOP", "19":
		found.Reason = "nobody can catch it: no last backup, no orderly end"
	case "TERM", "15", "INT", "2", "QUIT", "3":
		return nil
	default:
		if !f.Drover {
			return nil // the application's own
		}
		found.Reason = "Drover stops at TERM, INT and QUIT, and passes others to the application"
		found.Mend += "; what the application itself needs is jobs.NAME.stop.signal in drover.yaml"
	}
	return []Finding{found}
}

// judgeEntry asks whether signals reach who has to act on them.
func judgeEntry(f *Facts) []Finding {
	c := f.Command
	if c.Shell && !c.Init {
		found := Finding{
			ID: IDShellEntry, Severity: Risk, Where: f.Entry,
			What:   "the shell stays in front of the command",
			Reason: "as PID 1 it passes no signal on: the stop signal is lost, and the kill follows",
			Mend:   "write the command as a list, or put exec before it",
		}
		if c.Simple {
			found.Severity = Note
			found.What = "a shell starts the command"
			found.Reason = "some shells step aside for a single command, others stay and pass no signal on"
		}
		return []Finding{found}
	}
	found := Finding{ID: IDNotEntry, Severity: Note, Where: f.Entry, Mend: `make it the entry point: ["drover", "run"]`}
	switch {
	case f.inside() && !f.Container && !f.Drover:
		found.What = "Drover does not run here"
		found.Reason = "there is no instance to look at"
		found.Mend = "look from inside of one (docker exec NAME drover doctor), or name a Compose file"
	case c.Program == "" || c.First && !c.Init && !f.Init:
		return nil
	case f.Drover && (c.Init || f.Init):
		found.What = "an init process stands in front of Drover"
		found.Reason = "Drover is one itself: it reaps, passes signals on and ends all that is left"
		found.Mend = "take it out (init: true, --init, tini)"
	case f.Drover && c.Drover:
		found.What = c.Program + " starts Drover"
		found.Reason = "if it stays in front, it has to pass signals and the exit status on"
	case f.inside() && !f.Drover:
		found.Severity = Risk
		found.What = "Drover does not run here: the first process is " + c.Program
		found.Reason = "nothing is restored or backed up"
	case f.inside() && f.Container && !f.Deaf: // else it is said already
		found.What = "Drover is not the first process, " + c.Program + " is"
		found.Reason = "if that one passes no signal on, there is no last backup"
	default:
		return nil
	}
	return []Finding{found}
}

func judgeHealth(f *Facts) []Finding {
	found := Finding{ID: IDNoHealthCheck, Severity: Note, Where: f.HealthAt, Mend: "healthcheck: {test: [CMD, …], interval: 10s, start_period: 60s}, with time for a restore"}
	switch f.Health {
	case HealthAbsent:
		found.What = "no health check is given"
		found.Reason = "unless the image has one, nobody sees that it hangs"
	case HealthOff:
		found.Severity = Risk
		found.What = "the health check is turned off"
		found.Reason = "nobody sees that it hangs, so that nothing replaces it"
	default:
		return nil
	}
	return []Finding{found}
}

func judgeRestart(f *Facts) []Finding {
	found := Finding{ID: IDNoRestart, Severity: Note, Where: f.RestartAt, Mend: "restart: unless-stopped, or on-failure"}
	switch f.Restart {
	case RestartAbsent:
		found.What = "no restart policy is given"
		found.Reason = "Compose starts nothing again of itself; fine for a task, and where a scheduler does it"
	case RestartNo:
		found.Severity = Risk
		found.What = "the restart policy is no"
		found.Reason = "what ended stays down until somebody comes"
	default:
		return nil
	}
	return []Finding{found}
}

func judgeMemory(f *Facts) []Finding {
	m := f.Memory
	const tight = 0.9 // of the limit; a backup needs room besides
	switch {
	case m.Seen && m.Limit == 0:
		return []Finding{{
			ID: IDNoMemoryLimit, Severity: Note, Where: m.Where,
			What:   "there is no memory limit",
			Reason: "the whole host's memory is used up before anything is stopped, and the kernel chooses what",
			Mend:   "mem_limit, well above the working set" + working(m),
		}}
	case m.Limit > 1 && m.Working > 0 && float64(m.Working) > tight*float64(m.Limit):
		return []Finding{{
			ID: IDMemoryTight, Severity: Risk, Where: m.Where,
			What:   fmt.Sprintf("the working set of %s is %d %% of the limit of %s", mib(m.Working), 100*m.Working/m.Limit, mib(m.Limit)),
			Reason: "a backup or a restore needs some as well; what goes over is killed",
			Mend:   "raise the limit, or bound Drover by limits.memory (--limit-memory)",
		}}
	}
	return nil
}

func working(m Memory) string {
	if m.Working == 0 {
		return ""
	}
	return " (now " + mib(m.Working) + ")"
}

func mib(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }
