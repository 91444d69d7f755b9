package doctor

import "time"

// Facts is what was observed of one service of a Compose file, or of one instance from
// inside. The zero value of a field means: not there, or not known; where the two
// differ, the field says so. Nothing in it is a secret.
type Facts struct {
	Service  string
	Instance string // set if it was looked at from inside
	Where    string // place of the service as a whole

	Container bool     // an instance that is a container, not a machine
	Drover    bool     // Drover runs it, as far as can be seen
	State     []string // state paths; none: not known
	Mounts    []Mount
	Borrowed  []Item // containers or services whose mounts are taken
	StoreOf   []string
	Store     *Store
	Pins      []Item // placement constraints that name one host
	Secrets   []Secret

	Command Command
	Entry   string // place of Command
	Init    bool   // the engine puts its own init process in front
	Signal  Item   // that asks for the end
	Deaf    bool   // an instance whose first process does not catch TERM
	Grace   Grace

	Health      Health
	HealthAt    string
	Restart     Restart
	RestartAt   string
	Memory      Memory
	Privileged  Item
	HostNetwork Item
	Name        Item
	Ports       []Item

	Unread []Item // what could not be read, in words
}

// inside says whether it was looked at from inside of an instance.
func (f *Facts) inside() bool { return f.Instance != "" }

// Item is a value and its place; without a place there is none.
type Item struct{ Value, Where string }

func (i Item) given() bool { return i.Where != "" }

// MountKind is where the files of a mount are kept.
type MountKind int

// The kinds of mounts.
const (
	HostMount  MountKind = iota + 1 // the host's files
	Volume                          // a Docker volume
	InMemory                        // tmpfs
	Network                         // NFS and the like
	Disk                            // another file system of a disk
	Persistent                      // a persistent volume of Kubernetes
	Scratch                         // goes with the instance
)

// Mount is one mount.
type Mount struct {
	Kind     MountKind
	Source   string // path on the host, name of the Docker volume ("": it has none), type of the file system
	Target   string // in the instance
	ReadOnly bool
	Driver   string // of a Docker volume, and its options: "" is the local one, without any
	External bool   // a Docker volume that must exist before
	Where    string
}

// Store is where the volume is kept, as far as its URL tells; see ParseStore.
type Store struct {
	Kind    string // file, s3, manta
	Dir     string // of a file store
	Host    string // of the endpoint; "": the vendor's own
	Service string // of the same Compose file, that Host is
	Where   string
}

// Origin is how a variable got its value.
type Origin int

// The origins.
const (
	Literal  Origin = iota // it stands there
	Fallback               // it stands there, for when another variable is not set
	Referred               // it is another variable's
)

// Secret is a variable that holds one.
type Secret struct {
	Name   string
	Origin Origin
	InURL  bool // a password in a URL
	Where  string
}

// Grace is the time from the signal to the kill.
type Grace struct {
	Given   time.Duration // what the scheduler gives; 0: its default
	Unclear bool          // given, in a way that cannot be read
	Took    time.Duration // the longest of the last backups; 0: not known
	Where   string
}

// Health is whether somebody looks.
type Health int

// The states of a health check.
const (
	HealthUnseen  Health = iota // it cannot be seen from here
	HealthAbsent                // none is given; the image may have one
	HealthOff                   // it is turned off
	HealthChecked               // there is one
)

// Restart is what happens at the end of a container.
type Restart int

// The policies.
const (
	RestartUnseen Restart = iota // it cannot be seen from here
	RestartAbsent                // nothing is said: it is not started again
	RestartNo                    // that is said
	RestartYes
)

// Memory is the bound on it and the use of it, in bytes.
type Memory struct {
	Seen    bool  // it can be seen whether there is a limit
	Limit   int64 // 0: none; of a service, 1 stands for any
	Working int64 // what cannot be given back; 0: not known
	Where   string
}
