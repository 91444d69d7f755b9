package database

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"drover/internal/failover"
)

// Release is what a member runs.
type Release struct {
	Server string // version of the database's server; empty: not known
	Agent  string
}

func (r Release) String() string {
	if r.Server == "" {
		return "agent " + r.Agent
	}
	return "server " + r.Server + ", agent " + r.Agent
}

// compare orders releases: the server's version first.
func (r Release) compare(o Release) int {
	return cmp.Or(compareVersions(r.Server, o.Server), compareVersions(r.Agent, o.Agent))
}

var numbers = regexp.MustCompile(`\d+`)

// compareVersions compares the numbers in them; those that have the same are ordered as text.
func compareVersions(a, b string) int {
	parts := func(v string) (list []int) {
		for _, text := range numbers.FindAllString(v, -1) {
			n, _ := strconv.Atoi(text) // one that is too large counts as the largest
			list = append(list, n)
		}
		return list
	}
	return cmp.Or(slices.Compare(parts(a), parts(b)), strings.Compare(a, b))
}

// is reports whether the release is meant by a version, of the server or of the agent.
func (r Release) is(version string) bool { return version == r.Server || version == r.Agent }

// releases are those of the members that answer, by name.
func (m *Member) releases(v View) map[string]Release {
	all := map[string]Release{}
	for _, name := range v.Names() {
		if s, ok := m.Named(v, name); ok {
			all[name] = Release{s.Server, v.Record.Members[name].Version}
		}
	}
	return all
}

// Upgrade has a member of another release lead, when there are enough of that release to go on without the others: need of them; 0: as
// many as commits need, and one. Version names the release, by the server's or the agent's version; empty: the newest that a member
// has. Outcome.Leave are the members of other releases, which are not needed any more: who started them ends them.
func (m *Member) Upgrade(ctx context.Context, version string, need int) (Outcome, error) {
	r, err := m.record(ctx)
	if err != nil {
		return Outcome{}, err
	}
	if err := m.mayUpgrade(r, &need); err != nil {
		return Outcome{}, err
	}
	release, err := m.release(ctx, version)
	if err != nil {
		return Outcome{}, err
	}
	v := m.View()
	out := Outcome{Primary: v.Primary, Epoch: v.Epoch, Release: release}
	if len(m.leaving(v, release)) == 0 {
		if i := slices.IndexFunc(v.Names(), func(name string) bool { _, ok := m.Named(v, name); return !ok }); i >= 0 {
			return Outcome{}, unsafe("%s does not answer: nobody knows what its server is", v.Names()[i])
		}
		return out, nil
	}
	ready, err := m.awaitReady(ctx, release, need)
	if err != nil {
		return Outcome{}, err
	}
	v = m.View()
	leave := m.leaving(v, release)
	if !slices.Contains(ready, v.Primary) {
		m.opt.Log.Info("database: an upgrade", "release", release.String(), "to", ready[0])
		if out, err = m.Switchover(ctx, ready[0], time.Time{}); err != nil {
			return Outcome{}, err
		}
	}
	out.Release, out.Leave = release, leave
	if out.Former == "" {
		return out, nil
	}
	// One that ends before it has joined again cannot take itself off the list.
	return out, m.watch(ctx, out.Former, func(now View) bool { return now.Role == RoleReplica })
}

// leaving are the members of other releases.
func (m *Member) leaving(v View, release Release) []string {
	releases := m.releases(v)
	return slices.DeleteFunc(v.Names(), func(name string) bool {
		have, ok := releases[name]
		if !ok || have.Server == "" {
			have = Release{release.Server, v.Record.Members[name].Version}
		}
		return have == release
	})
}

// release is the one that is meant, as soon as it is known of all members that answer.
func (m *Member) release(ctx context.Context, version string) (Release, error) {
	for v := m.afresh(ctx); ; v = m.View() {
		all := m.releases(v)
		unknown := slices.DeleteFunc(v.Names(), func(name string) bool {
			have, ok := all[name]
			return !ok || have.Server != ""
		})
		if len(unknown) == 0 {
			return newest(all, version)
		}
		if !m.rest(ctx, nil, 100*time.Millisecond) {
			s, _ := m.Named(v, unknown[0])
			return Release{}, fmt.Errorf("nothing was done: the server of %s does not run%s: %w", unknown[0], because(s.Why), context.Cause(ctx))
		}
	}
}

// newest is the newest release that there is, or that is meant by a version.
func newest(all map[string]Release, version string) (Release, error) {
	var best Release
	var known []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		known = append(known, name+" ("+all[name].String()+")")
		if (version == "" || all[name].is(version)) && all[name].compare(best) > 0 {
			best = all[name]
		}
	}
	if best == (Release{}) {
		return best, unsafe("no member has version %s: there are %s", version, strings.Join(known, ", "))
	}
	return best, nil
}

// mayUpgrade says why it cannot be begun, and fills in how many members are needed.
func (m *Member) mayUpgrade(r *failover.Record, need *int) error {
	v, least := m.View(), 1
	if r.Mode != failover.Off {
		least += m.opt.Failover.Acks
	}
	if *need == 0 {
		*need = least
	}
	switch {
	case r.Paused:
		return unsafe("failover is paused, and so are switchovers: drover resume")
	case r.Switchover != nil:
		return refuse(RefusedBusy, "a switchover is pending%s: drover switchover --cancel withdraws it", planned(r.Switchover))
	case v.Primary == "":
		return unsafe("there is no primary to take over from%s", because(v.Why))
	case *need < least:
		return unsafe("%d members are too few: a commit needs %d acknowledgements, and the primary", *need, m.opt.Failover.Acks)
	}
	return nil
}

// awaitReady waits until so many members of a release lead or can, and returns them, the best first.
func (m *Member) awaitReady(ctx context.Context, release Release, need int) ([]string, error) {
	told := ""
	for {
		v := m.View()
		ready, missing := m.readyOf(v, release)
		if len(ready) >= need {
			return ready, nil
		}
		why := fmt.Sprintf("%d of %d members of the release (%s) are ready", len(ready), need, release)
		if len(missing) > 0 {
			why += ": " + strings.Join(missing, "; ")
		}
		if why != told {
			told = why
			m.opt.Log.Info("database: an upgrade waits: " + why)
		}
		if !m.rest(ctx, nil, 100*time.Millisecond) {
			return nil, fmt.Errorf("nothing was done: %s: %w", why, context.Cause(ctx))
		}
	}
}

// readyOf are the members of a release that lead or can, the best first, and what the others lack.
func (m *Member) readyOf(v View, release Release) (ready, missing []string) {
	if v.Record == nil || v.Primary == "" {
		return nil, []string{"there is no primary"}
	}
	releases := m.releases(v)
	for _, name := range v.Names() {
		if releases[name] != release {
			continue
		}
		if err := m.canLead(v, v.Record, name); name != v.Primary && err != nil {
			missing = append(missing, err.Error())
			continue
		}
		ready = append(ready, name)
	}
	slices.SortStableFunc(ready, func(a, b string) int {
		switch v.Primary {
		case a:
			return -1
		case b:
			return 1
		}
		return cmp.Compare(v.Record.Members[b].Tags.Priority, v.Record.Members[a].Tags.Priority)
	})
	return ready, missing
}
