package language

import (
	"slices"
	"strings"
)

// KeyState is a key. One that was there and is gone keeps its last value for key, as with
// consul-template: what is rendered stays, and does not wait for it to come back.
type KeyState struct {
	Value  string // the last that was seen
	Exists bool
	Seen   bool // it was there since it is watched
}

// KeyPair is a key below a prefix, and its value.
type KeyPair struct {
	Path  string // the whole key
	Key   string // without the prefix
	Value string

	// ModifyIndex is the revision where that is a number. The others are nothing that all
	// coordinators have, and 0.
	CreateIndex, ModifyIndex, LockIndex, Flags uint64
	Session                                    string
}

// Service is an instance of a service.
type Service struct {
	Node                   string
	NodeID                 string
	NodeAddress            string
	NodeTaggedAddresses    map[string]string
	NodeMeta               map[string]string
	ServiceMeta            map[string]string
	Address                string
	ServiceTaggedAddresses map[string]TaggedAddress
	ID                     string
	Name                   string
	Tags                   Tags
	Checks                 Checks
	Status                 string
	Port                   int
	Weights                Weights
}

// TaggedAddress is a further address of a service.
type TaggedAddress struct {
	Address string
	Port    int
}

// Weights of a service, in answers over DNS.
type Weights struct{ Passing, Warning int }

// Tags are sorted.
type Tags []string

// Check of a service's instance or of its node.
type Check struct {
	Node        string
	CheckID     string
	Name        string
	Status      string
	Notes       string
	Output      string
	ServiceID   string
	ServiceName string
	ServiceTags []string
}

// Checks of an instance.
type Checks []*Check

// AggregatedStatus is the worst of them; of none it is passing.
func (c Checks) AggregatedStatus() string {
	worst := 0
	order := []string{passing, "warning", "critical", "maintenance"}
	for _, check := range c {
		status := check.Status
		if check.CheckID == "_node_maintenance" || strings.HasPrefix(check.CheckID, "_service_maintenance:") {
			status = "maintenance"
		}
		worst = max(worst, slices.Index(order, status))
	}
	return order[worst]
}

// ServiceName is a service of the catalog and the tags that its instances have, sorted.
type ServiceName struct {
	Name string
	Tags Tags
}

// Node is a machine.
type Node struct {
	ID              string
	Node            string
	Address         string
	Datacenter      string
	TaggedAddresses map[string]string
	Meta            map[string]string
}

// NodeServices is a machine and what is on it, sorted by service and ID. Node is nil if there
// is no such machine.
type NodeServices struct {
	Node     *Node
	Services []*NodeService
}

// NodeService is an instance on a machine.
type NodeService struct {
	ID                string
	Service           string
	Tags              Tags
	Meta              map[string]string
	Port              int
	Address           string
	EnableTagOverride bool
}

// SecretValue is a secret as its source gave it.
type SecretValue struct {
	RequestID     string
	LeaseID       string
	LeaseDuration int // seconds
	Renewable     bool
	Data          map[string]any
	Warnings      []string
}

// PEM is a certificate with its key and the authorities above it.
type PEM struct {
	Cert, Key, CA string
	CAChain       []string
}

// Data is there because that is how secrets are read.
func (p PEM) Data() PEM { return p }
