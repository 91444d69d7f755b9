package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// within says whether p is dir or below it.
func within(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}

// place is what a mount has to do with the state paths.
type place struct {
	state string // the state path that it concerns, "" if none
	how   string // as in "at a state path"
}

// concerns finds the state path that has files on the mount: one at or above which it
// is, and no other mount is between, or one that it is below.
func (f *Facts) concerns(m Mount) place {
	for _, s := range f.State {
		switch {
		case m.Target == s:
			return place{s, "at the state path " + s}
		case within(m.Target, s):
			return place{s, "below the state path " + s}
		case within(s, m.Target) && !slices.ContainsFunc(f.Mounts, func(o Mount) bool {
			return len(o.Target) > len(m.Target) && within(s, o.Target)
		}):
			return place{s, "above the state path " + s}
		}
	}
	return place{}
}

// under returns the mount that a path is on, nil if it is on none.
func (f *Facts) under(p string) *Mount {
	var best *Mount
	for i, m := range f.Mounts {
		if within(p, m.Target) && (best == nil || len(m.Target) >= len(best.Target)) {
			best = &f.Mounts[i]
		}
	}
	return best
}

func judgeMounts(f *Facts) []Finding {
	var all []Finding
	for _, m := range f.Mounts {
		if found, ok := f.judgeMount(m); ok {
			all = append(all, found)
		}
	}
	return all
}

// judgeMount weighs one mount: grave if state is on it, or may be.
func (f *Facts) judgeMount(m Mount) (Finding, bool) {
	at := f.concerns(m)
	touches, unknown := at.state != "", len(f.State) == 0
	found := Finding{ID: idOf(m), Where: m.Where, Severity: Pet}
	found.What = fmt.Sprintf("%s is mounted at %s", nameOf(m), m.Target)
	if touches && m.Target != at.state {
		found.What += ", " + at.how
	}
	found.Reason, found.Mend = reasonOf(m), f.mendMount(m, cmp.Or(at.state, m.Target))
	switch {
	case m.Kind == Scratch, !touches && f.holdsStore(m):
		return Finding{}, false // nothing to say, or judgeStore says it
	case m.Kind == InMemory:
		found.Severity, found.Mend = Note, "nothing, if it fits into memory"
		return found, touches
	case len(f.StoreOf) > 0:
		found.Severity = Note
		found.Reason = "this is the store of " + strings.Join(f.StoreOf, ", ") + ": what is in it is as safe as this host"
		found.Mend = "for anything real, name a bucket elsewhere and leave this service out"
	case f.inside() && !f.Container && !touches:
		return Finding{}, false // a machine has many
	case f.inside() && !f.Container && m.Kind != Network:
		// A machine has its own disks: which of them go with it, only its owner knows.
		found.Severity = Note
		found.Reason = "fine if this disk goes with the machine; not if it is attached from elsewhere, and awaited"
		found.Mend = "nothing, or keep the state on the machine's own disk"
	case !touches && m.ReadOnly || !touches && outward(m):
		found.Severity = Risk
		if outward(m) {
			found.Severity = Note
		}
		found.Reason = "whatever server this starts on must have the same files there"
		found.Mend = "bring them in the image, or by configs and secrets"
	case !touches && !unknown:
		found.Severity = Risk
		found.Reason = "it is outside of the state paths: what is written there is not backed up, and stays behind"
		found.Mend = "make it a state path and take the mount out, or take it out alone"
	}
	return found, true
}

// holdsStore says whether the directory of a file store is on a mount.
func (f *Facts) holdsStore(m Mount) bool {
	if f.Store == nil || f.Store.Kind != "file" {
		return false
	}
	on := f.under(f.Store.Dir)
	return on != nil && on.Target == m.Target
}

// outward says whether a mount gives access to the host rather than room for files.
func outward(m Mount) bool {
	if m.Kind != HostMount {
		return false
	}
	for _, known := range []string{"/dev", "/proc", "/sys", "/lib/modules", "/etc/localtime", "/etc/timezone", "/usr/share/zoneinfo", "/etc/ssl/certs", "/tmp/.X11-unix", "/run/user"} {
		if within(m.Source, known) {
			return true
		}
	}
	return strings.HasSuffix(m.Source, ".sock")
}

func idOf(m Mount) string {
	switch {
	case m.Kind == Volume && m.Driver != "":
		return IDVolumeDriver
	case m.Kind == Volume && m.External:
		return IDExternal
	}
	return map[MountKind]string{
		HostMount: IDHostMount, Volume: IDDockerVolume, InMemory: IDMemoryFS,
		Network: IDNetworkFS, Disk: IDOtherFS, Persistent: IDPersistent,
	}[m.Kind]
}

func nameOf(m Mount) string {
	switch {
	case m.Kind == Volume && m.Source == "":
		return "a Docker volume without a name"
	case m.Kind == Volume && m.Driver != "":
		return fmt.Sprintf("the Docker volume %q (%s)", m.Source, m.Driver)
	case m.Kind == Volume && m.External:
		return fmt.Sprintf("the external Docker volume %q", m.Source)
	case m.Kind == Volume:
		return fmt.Sprintf("the Docker volume %q", m.Source)
	case m.Kind == HostMount:
		return fmt.Sprintf("the host's %q", m.Source)
	case m.Kind == InMemory:
		return "memory (tmpfs)"
	case m.Kind == Persistent:
		return fmt.Sprintf("a Kubernetes volume (%s)", m.Source)
	default:
		return "a file system of type " + m.Source
	}
}

func reasonOf(m Mount) string {
	switch {
	case m.Kind == InMemory:
		return "what is in memory is lost with the instance, which is fine: Drover restores it"
	case m.Kind == Network:
		return "a remote file system is one thing more that must be up, and a fence that nobody checks"
	case m.Kind == Volume && m.Driver != "":
		return "a driver moves the pet to another server; the plug-in, and what it attaches, must be there too"
	case m.Kind == Volume && m.External:
		return "somebody has to make it before, on the one host where this can then run"
	case m.Kind == Volume && m.Source == "":
		return "it is lost when the container is replaced, and ties it to its host until then"
	case m.Kind == Persistent:
		return "the pod waits for this one volume, wherever it is attached"
	default:
		return "the files are on one host, and with them the only place where this can run"
	}
}

// mendMount says what to do with a mount that state is on, or the path is.
func (f *Facts) mendMount(m Mount, path string) string {
	switch {
	case m.Kind == InMemory:
		return ""
	case f.Drover:
		return "take the mount out: Drover restores " + path + " wherever this starts. To bring over what is in it, start once with --first-start adopt before"
	default:
		return "take the mount out, and put drover run --state " + path + " in front of the command (once with --first-start adopt, to bring over what is in it)"
	}
}

func judgeVolumesFrom(f *Facts) []Finding {
	var all []Finding
	for _, from := range f.Borrowed {
		all = append(all, Finding{
			ID: IDVolumesFrom, Severity: Pet, Where: from.Where,
			What:   fmt.Sprintf("the mounts of %q are taken", from.Value),
			Reason: "both must run on the same host, and neither can be lost alone",
			Mend:   "give each service its own state, or let them speak over the network",
		})
	}
	return all
}

// judgeStore asks what else is lost with the instance.
func judgeStore(f *Facts) []Finding {
	s := f.Store
	if s == nil {
		return nil
	}
	found := Finding{ID: IDStore, Where: s.Where, Mend: "name a bucket on other machines: s3://bucket/prefix?endpoint=https://host"}
	switch {
	case s.Kind == "file":
		found.Severity = Pet
		found.What = "the store is the directory " + s.Dir
		m := f.under(s.Dir)
		switch {
		case f.inside() && !f.Container:
			found.Severity, found.Reason = Risk, "the store is lost with this machine: fine for a trial, not for what must come back elsewhere"
			if m != nil && m.Kind == Network {
				return nil
			}
		case m == nil || m.Kind == Scratch || m.Kind == InMemory:
			found.Reason = "it is inside of the instance, and lost with it: nothing is restored from it"
		case m.Kind == Network:
			found.Severity, found.Reason = Risk, "it is on a remote file system, which Drover refuses"
		case m.Kind == Volume:
			found.What += ", on " + nameOf(*m)
			found.Reason = "the Docker volume is on the same host as the state: both are lost together"
		default:
			found.What += ", on " + nameOf(*m)
			found.Reason = "it is on the same host as the state: both are lost together"
		}
	case s.Service != "":
		found.Severity = Risk
		found.What = fmt.Sprintf("the store is %q, a service of the same Compose file", s.Service)
		found.Reason = "where both run on one host, they are lost together"
	case local(s.Host):
		found.Severity = Risk
		found.What = fmt.Sprintf("the store is at %q, which is this instance or its host", s.Host)
		found.Reason = "what is kept there is lost with it, unless something there passes it on"
	default:
		return nil
	}
	return []Finding{found}
}

func judgePins(f *Facts) []Finding {
	var all []Finding
	for _, pin := range f.Pins {
		all = append(all, Finding{
			ID: IDPinned, Severity: Pet, Where: pin.Where,
			What:   fmt.Sprintf("it may run on one host only: %q", pin.Value),
			Reason: "when that host is gone there is nowhere else to start",
			Mend:   "take the constraint out, or constrain by a label that several hosts have",
		})
	}
	return all
}
