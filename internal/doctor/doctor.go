// Package doctor names what would make an application a pet: what ties it to one
// server, or would be lost with one.
//
// It promises: the same facts give the same findings, in the same order; what is not
// known is not judged as if it were; no finding holds a secret, because no fact does.
//
// It leaves to others: reading the facts out of a Compose file (package compose) or
// from inside of an instance (package instance), and showing the findings.
package doctor

import (
	"cmp"
	"slices"
)

// Severity says how much a finding weighs.
type Severity string

// The severities.
const (
	Pet  Severity = "pet"  // it is tied to one server, or lost with it
	Risk Severity = "risk" // it may not come back everywhere, or not whole
	Note Severity = "note" // to know; nothing has to be done
)

func (s Severity) rank() int { return slices.Index([]Severity{Pet, Risk, Note}, s) }

// Finding is one thing that was found, in the words of a report: one line each.
type Finding struct {
	ID       string   `json:"id"` // of the catalogue; it stays
	Severity Severity `json:"severity"`
	Service  string   `json:"service,omitempty"`
	Instance string   `json:"instance,omitempty"`
	// Where is file:line:column, or the path in an instance.
	Where  string `json:"where"`
	What   string `json:"what"`
	Reason string `json:"reason"`
	Mend   string `json:"mend"`
}

// Kind is what a finding's ID stands for.
type Kind struct{ ID, Severity, What, Mend string }

// The IDs. They are part of what scripts rely on.
const (
	IDHostMount     = "host-mount"
	IDDockerVolume  = "docker-volume"
	IDVolumeDriver  = "volume-driver"
	IDExternal      = "external-volume"
	IDVolumesFrom   = "volumes-from"
	IDNetworkFS     = "network-file-system"
	IDOtherFS       = "other-file-system"
	IDPersistent    = "persistent-volume"
	IDMemoryFS      = "memory-file-system"
	IDStore         = "store-same-domain"
	IDPinned        = "pinned-to-host"
	IDSecret        = "secret-in-environment"
	IDStopGrace     = "stop-grace"
	IDStopSignal    = "stop-signal"
	IDShellEntry    = "shell-entry-point"
	IDNotEntry      = "drover-not-entry-point"
	IDNoHealthCheck = "no-health-check"
	IDNoRestart     = "no-restart"
	IDNoMemoryLimit = "no-memory-limit"
	IDMemoryTight   = "memory-tight"
	IDPrivileged    = "privileged"
	IDHostNetwork   = "host-network"
	IDContainerName = "container-name"
	IDFixedPort     = "fixed-port"
	IDStateless     = "stateless"
	IDNotJudged     = "not-judged"
)

// Catalogue lists every kind of finding, in the order in which they are looked for.
func Catalogue() []Kind {
	return []Kind{
		{IDHostMount, "pet; risk where no state is", "a directory or file of the host is mounted", "keep state on the instance's own disk; bring configuration in the image or by `configs` and `secrets`"},
		{IDDockerVolume, "pet; risk where no state is", "a Docker volume, with a name or without", "take it out; Drover restores the path"},
		{IDVolumeDriver, "pet", "a Docker volume of a driver, or one with `driver_opts`", "take it out; Drover restores the path"},
		{IDExternal, "pet", "a Docker volume that must exist before", "take it out; Drover restores the path"},
		{IDVolumesFrom, "pet", "`volumes_from`: the mounts of another container", "give each service its own state, or let them speak over the network"},
		{IDNetworkFS, "pet", "an instance's path is on NFS, CIFS, Ceph and the like", "keep state on the instance's own disk"},
		{IDOtherFS, "pet; note on a machine", "an instance's path is on a disk that is not the instance's", "keep state on the instance's own disk"},
		{IDPersistent, "pet", "an instance's path is a Kubernetes persistent volume", "use an emptyDir, or nothing"},
		{IDMemoryFS, "note", "a state path is in memory", "nothing, if it fits: what is lost is restored"},
		{IDStore, "pet or risk", "the store is lost with the instance or its host", "a bucket elsewhere"},
		{IDPinned, "pet", "a placement constraint names one host", "take it out, or constrain by a label that several hosts have"},
		{IDSecret, "risk; note if only referred to", "a secret in the environment", "a Compose secret, and the variable that names its file"},
		{IDStopGrace, "risk or note", "the last backup at a stop may not fit the time that the scheduler gives", "raise `stop_grace_period`"},
		{IDStopSignal, "risk", "the stop signal does not ask for an orderly end", "`stop_signal: SIGTERM`"},
		{IDShellEntry, "risk; note if the shell may step aside", "a shell stands in front and swallows signals", "the list form, or `exec`"},
		{IDNotEntry, "risk or note", "Drover is not the first process", "make `drover run` the entry point"},
		{IDNoHealthCheck, "risk if turned off, note if absent", "no health check", "a `healthcheck`"},
		{IDNoRestart, "risk if said, note if absent", "nothing starts the container again", "`restart: unless-stopped` or `on-failure`"},
		{IDNoMemoryLimit, "note", "no memory limit", "`mem_limit`, above the working set"},
		{IDMemoryTight, "risk", "the working set is near the memory limit", "raise the limit, or set `limits.memory`"},
		{IDPrivileged, "risk", "the container may do anything on its host", "name the capabilities that it needs"},
		{IDHostNetwork, "risk", "the host's network is used", "a network of the project, and published ports"},
		{IDContainerName, "risk", "a fixed container name: there can be no second instance", "take it out"},
		{IDFixedPort, "note", "a fixed port of the host: two instances cannot share a host", "publish the container's port only, or put a proxy in front"},
		{IDStateless, "note", "a service without a mount: not judged for mounts", "nothing, if it keeps no state"},
		{IDNotJudged, "note", "something that could not be read", "see the line"},
	}
}

// Judge names what the facts give cause for, gravest first.
func Judge(f Facts) []Finding {
	var all []Finding
	for _, rule := range []func(*Facts) []Finding{
		judgeMounts, judgeVolumesFrom, judgeStore, judgePins, judgeSecrets, judgeGrace, judgeSignal,
		judgeEntry, judgeHealth, judgeRestart, judgeMemory, judgeRights, judgeCopies, judgeLimitsOfSight,
	} {
		all = append(all, rule(&f)...)
	}
	for i := range all {
		all[i].Service, all[i].Instance = f.Service, f.Instance
	}
	slices.SortStableFunc(all, func(a, b Finding) int { return cmp.Compare(a.Severity.rank(), b.Severity.rank()) })
	return all
}

// Grave says whether any of the findings asks for something to be done.
func Grave(all []Finding) bool {
	return slices.ContainsFunc(all, func(f Finding) bool { return f.Severity != Note })
}
