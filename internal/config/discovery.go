package config

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Coordinator says where leases, keys and the catalog of services live.
type Coordinator struct {
	URL          string   `yaml:"url" doc:"consul://host:8500, etcd://host:2379,host2:2379 or etcd://host:2379/team (all keys, Drover's own too, are below team/), store (the store itself), file:///catalog.yaml or dns://server:53/domain?type=SRV (both only catalogs, which can be read). Default: the store, if there is one."`
	Prefix       string   `yaml:"prefix" doc:"Drover's own keys are below this one. Default: drover/SERVICE."`
	Token        Secret   `yaml:"token" doc:"Consul's ACL token. A file keeps it out of this one."`
	TokenFile    string   `yaml:"token_file" doc:"File that holds the token; it is read again when it changes."`
	User         string   `yaml:"user" doc:"User of etcd."`
	PasswordFile string   `yaml:"password_file" doc:"File that holds that user's password."`
	Datacenter   string   `yaml:"datacenter" doc:"Consul's datacenter. Default: its agent's own."`
	TLS          bool     `yaml:"tls" doc:"Speak TLS, and verify the server's certificate."`
	CA           string   `yaml:"ca" doc:"File of the certificates to trust. Default: the system's."`
	Cert         string   `yaml:"cert" doc:"File of the certificate to show."`
	Key          string   `yaml:"key" doc:"File of that certificate's key."`
	SealFile     string   `yaml:"seal_file" doc:"Where the store is the coordinator: file with a secret of 16 random bytes or more that all agents share, and with which keys, leases and the catalog are sealed. Default: they are plain in the bucket."`
	Every        Duration `yaml:"every" doc:"How often the store is looked at for changes, where it is the coordinator."`
}

func (Coordinator) short() string { return "url" }

// Registration is what the catalog is told of a job.
type Registration struct {
	Name            string            `yaml:"name" doc:"Name of the service."`
	Port            int               `yaml:"port" doc:"Port, 1 to 65535. 0: none."`
	Address         Names             `yaml:"address" doc:"How its address is found; the first that fits: eth0, eth0:inet6, eth0[1], a network such as 10.1.0.0/16, inet, inet6, static:ADDRESS."`
	Tags            Names             `yaml:"tags" doc:"Tags of the service."`
	Meta            map[string]string `yaml:"meta" doc:"Whatever else is to be known of it, by name."`
	ID              string            `yaml:"id" doc:"Its name in the catalog, unique there. Default: NAME-ID, with the instance's id."`
	TTL             Duration          `yaml:"ttl" doc:"It is critical when nothing was heard of it for so long. It is told of every third of that."`
	Initial         CatalogStatus     `yaml:"initial" doc:"Register at once, with this status: passing, warning or critical. Default: register when it is healthy for the first time."`
	DeregisterAfter Duration          `yaml:"deregister_after" doc:"The catalog removes it when it was critical for so long. 0: never."`
	Drain           Duration          `yaml:"drain" doc:"How long the job runs on after it was taken out of the catalog, before it is asked to stop."`
}

func (Registration) short() string { return "name" }

// Watch is one thing in the coordinator whose changes are events.
type Watch struct {
	Service    string `yaml:"service" doc:"The passing instances of this service: their number, addresses, ports, tags and meta."`
	Tag        string `yaml:"tag" doc:"Only those with this tag."`
	Datacenter string `yaml:"datacenter" doc:"In this datacenter. Default: the coordinator's own."`
	Key        string `yaml:"key" doc:"The value of this key."`
	Prefix     string `yaml:"prefix" doc:"All keys that begin with this, and their values."`
}

func (Watch) short() string { return "service" }

// HeadPlace is where the head is.
type HeadPlace string

// Its values.
const (
	HeadStore       HeadPlace = "store"
	HeadCoordinator HeadPlace = "coordinator"
)

func (HeadPlace) choices() []string { return words(HeadStore, HeadCoordinator) }

// UnmarshalText takes one of the words.
func (h *HeadPlace) UnmarshalText(text []byte) error { return choose(h, text) }

// CatalogStatus is a status of the catalog.
type CatalogStatus string

// Its values.
const (
	CatalogPassing  CatalogStatus = "passing"
	CatalogWarning  CatalogStatus = "warning"
	CatalogCritical CatalogStatus = "critical"
)

func (CatalogStatus) choices() []string {
	return words(CatalogPassing, CatalogWarning, CatalogCritical)
}

// UnmarshalText takes one of the words.
func (s *CatalogStatus) UnmarshalText(text []byte) error { return choose(s, text) }

// Values that hold where nothing else is said.
const (
	DefaultCatalogTTL = Duration(30 * time.Second)
	DefaultPoll       = Duration(5 * time.Second)
)

// The kinds of coordinators.
const (
	CoordinatorConsul = "consul"
	CoordinatorEtcd   = "etcd"
	CoordinatorStore  = "store"
	CoordinatorFile   = "file"
	CoordinatorDNS    = "dns"
)

// CoordinatorKind says which backend is meant; "": there is none.
func (c *Config) CoordinatorKind() string {
	switch scheme, _, isURL := strings.Cut(c.Coordinator.URL, "://"); {
	case c.Coordinator.URL == "" && c.Store.URL == "":
		return ""
	case c.Coordinator.URL == "", c.Coordinator.URL == CoordinatorStore:
		return CoordinatorStore
	case isURL:
		return scheme
	}
	return ""
}

// CoordinatorHosts are the host:port pairs of the coordinator's URL.
func (c *Config) CoordinatorHosts() []string {
	_, rest, _ := strings.Cut(c.Coordinator.URL, "://")
	rest, _, _ = strings.Cut(rest, "/")
	return strings.Split(rest, ",")
}

// CoordinatorPath is what stands after them.
func (c *Config) CoordinatorPath() string {
	_, rest, _ := strings.Cut(c.Coordinator.URL, "://")
	if at := strings.IndexByte(rest, '/'); at >= 0 {
		return rest[at:]
	}
	return ""
}

// KeysBelow is what stands before every key of etcd, with a slash at its end; "": nothing.
func (c *Config) KeysBelow() string {
	if below := strings.Trim(c.CoordinatorPath(), "/"); below != "" {
		return below + "/"
	}
	return ""
}

// CoordinatorPrefix is where Drover's own keys are, without a slash at its end.
func (c *Config) CoordinatorPrefix() string {
	if c.Coordinator.Prefix != "" {
		return strings.Trim(c.Coordinator.Prefix, "/")
	}
	name := c.Service
	if name == "" {
		name = c.Volume
	}
	return "drover/" + name
}

const coordinatorKinds = "write consul://host:8500, etcd://host:2379, store, file:///catalog.yaml or dns://host:53/domain"

func (c *Config) checkCoordinator() error {
	at, k := "coordinator.url", c.Coordinator
	kind := c.CoordinatorKind()
	switch kind {
	case CoordinatorDNS:
		if u, err := url.Parse(k.URL); err != nil || u.User != nil || u.Opaque != "" {
			return c.origin.at(at, "the coordinator is not a DNS server and a domain", "write dns://10.0.0.2:53/example.org, or dns:///example.org for the system's server")
		}
	case CoordinatorConsul, CoordinatorEtcd:
		hosts := c.CoordinatorHosts()
		if kind != CoordinatorEtcd && len(hosts) > 1 {
			return c.origin.at(at, fmt.Sprintf("coordinator %q has several hosts", k.URL), "name one; its agents find the others")
		}
		for _, host := range hosts {
			if strings.Contains(host, "@") {
				return c.origin.at(at, "the coordinator's URL holds credentials", "take them out; they belong into token_file, or user and password_file")
			}
			if err := checkAddress(host); err != "" {
				return c.origin.at(at, err, coordinatorKinds)
			}
		}
		switch below := c.KeysBelow(); {
		case below != "" && kind == CoordinatorConsul:
			return c.origin.at(at, "nothing stands after the host of Consul", "take "+c.CoordinatorPath()+" out; keys are written whole")
		case below != "" && path.Clean("/"+below)+"/" != "/"+below:
			return c.origin.at(at, fmt.Sprintf("no keys can be below %q", below), "write etcd://host:2379/team")
		}
	case CoordinatorFile:
		if u, err := url.Parse(k.URL); err != nil || u.Host != "" || !filepath.IsAbs(u.Path) {
			return c.origin.at(at, fmt.Sprintf("file of coordinator %q is not absolute", k.URL), "write file:///catalog.yaml, with three slashes")
		}
	case CoordinatorStore:
		if c.Store.URL == "" {
			return c.origin.at(at, "the coordinator is the store, and there is none", "set --store, DROVER_STORE or store.url")
		}
	default:
		if k.URL != "" {
			return c.origin.at(at, fmt.Sprintf("no coordinator is written as %q", k.URL), coordinatorKinds)
		}
	}
	if c.Lease.Head == HeadCoordinator && kind != CoordinatorConsul && kind != CoordinatorEtcd {
		return c.origin.at("lease.head", "the head is to be in the coordinator, which is none that has keys of its own", "set coordinator.url to consul://… or etcd://…, or write head: store")
	}
	return c.checkCoordinatorAccess(kind)
}

func (c *Config) checkCoordinatorAccess(kind string) error {
	k := c.Coordinator
	for _, given := range []struct {
		key  string
		is   bool
		only string
	}{
		{"token", k.Token.Set(), CoordinatorConsul}, {"token_file", k.TokenFile != "", CoordinatorConsul}, {"datacenter", k.Datacenter != "", CoordinatorConsul},
		{"seal_file", k.SealFile != "", CoordinatorStore}, {"user", k.User != "", CoordinatorEtcd}, {"password_file", k.PasswordFile != "", CoordinatorEtcd},
	} {
		if given.is && kind != given.only {
			return c.origin.at("coordinator."+given.key, fmt.Sprintf("coordinator.%s is of %s only", given.key, given.only), "take it out")
		}
	}
	switch {
	case k.Token.Set() && k.TokenFile != "":
		return c.origin.at("coordinator.token_file", "the coordinator's token is given in two ways", "keep one")
	case (k.User != "") != (k.PasswordFile != ""):
		return c.origin.at("coordinator.user", "the coordinator's user and password_file belong together", "give both, or neither")
	case (k.Cert != "") != (k.Key != ""):
		return c.origin.at("coordinator.cert", "the coordinator's cert and key belong together", "give both, or neither")
	case (k.CA != "" || k.Cert != "") && !k.TLS:
		return c.origin.at("coordinator.tls", "the coordinator has certificates, and no TLS", "write tls: true, or take them out")
	case k.Every < MinTTL:
		return c.origin.at("coordinator.every", fmt.Sprintf("interval %s is too short", k.Every), "write 1s or more")
	}
	return nil
}

// needsCoordinator tells what is of no use without one; "": nothing.
func (c *Config) needsCoordinator() (at string) {
	for _, name := range slices.Sorted(maps.Keys(c.Jobs)) {
		if c.Jobs[name].Service.Name != "" {
			return "jobs." + name + ".service"
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Git)) {
		return "git." + name
	}
	for _, name := range slices.Sorted(maps.Keys(c.Templates)) {
		if c.Templates[name].Roll.Limit > 0 {
			return "templates." + name + ".roll"
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Watches)) {
		return "watches." + name
	}
	return ""
}

// serviceName is what Consul's DNS can ask for.
var serviceName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)

// selector is the shape of what finds an address; see register.Selector.
var selector = regexp.MustCompile(`^(static:[^\s/]+|[A-Za-z0-9_.@-]{1,15}(:inet6?|\[[0-9]{1,4}\])?)$`)

func (c *Config) checkRegistration(at, name string, job Job) error {
	r := job.Service
	at += ".service"
	if r.Name == "" {
		if r.Port != 0 || len(r.Tags)+len(r.Address)+len(r.Meta) > 0 {
			return c.origin.at(at, fmt.Sprintf("the service of job %q has no name", name), "add name: NAME")
		}
		return nil
	}
	switch {
	case !serviceName.MatchString(r.Name):
		return c.origin.at(at+".name", fmt.Sprintf("service name %q is not valid", r.Name), nameHint)
	case r.Port < 0 || r.Port > 65535:
		return c.origin.at(at+".port", fmt.Sprintf("port %d is out of range", r.Port), "write one from 1 to 65535")
	case r.TTL < Duration(3*time.Second):
		return c.origin.at(at+".ttl", fmt.Sprintf("TTL %s is too short", r.TTL), "write 3s or more")
	case job.hook():
		return c.origin.at(at, fmt.Sprintf("job %q runs only when others stop, and is a service", name), "take it out")
	}
	for i, a := range r.Address {
		_, err := netip.ParsePrefix(a)
		if err != nil && !selector.MatchString(a) {
			return c.origin.at(fmt.Sprintf("%s.address[%d]", at, i), fmt.Sprintf("%q finds no address", a), "write eth0, eth0:inet6, eth0[1], 10.1.0.0/16, inet, inet6 or static:ADDRESS")
		}
	}
	return nil
}

func (c *Config) checkWatches() error {
	for _, name := range slices.Sorted(maps.Keys(c.Watches)) {
		w, at := c.Watches[name], "watches."+name
		kinds := 0
		for _, given := range []bool{w.Service != "", w.Key != "", w.Prefix != ""} {
			if given {
				kinds++
			}
		}
		_, isJob := c.Jobs[name]
		switch {
		case !validName(name):
			return c.origin.at(at, fmt.Sprintf("watch name %q is not valid", name), nameHint)
		case isJob:
			return c.origin.at(at, fmt.Sprintf("%q is a watch and a job: events could be of both", name), "give one another name")
		case kinds != 1:
			return c.origin.at(at, fmt.Sprintf("watch %q is of %d things", name, kinds), "give it one of service, key and prefix")
		case w.Service == "" && (w.Tag != "" || w.Datacenter != ""):
			return c.origin.at(at, fmt.Sprintf("watch %q is of keys, and has a tag or a datacenter", name), "take it out")
		}
		if kind := c.CoordinatorKind(); w.Service == "" && (kind == CoordinatorFile || kind == CoordinatorDNS) {
			return c.origin.at(at, fmt.Sprintf("watch %q is of keys, and the coordinator is only a catalog", name), "watch a service, or use another coordinator")
		}
	}
	if at := c.needsCoordinator(); at != "" {
		switch kind := c.CoordinatorKind(); {
		case kind == "":
			return c.origin.at(at, "there is no coordinator, and no store that could be it", "set coordinator.url")
		case !strings.HasPrefix(at, "watches.") && (kind == CoordinatorFile || kind == CoordinatorDNS):
			return c.origin.at(at, "nothing can be written to a coordinator that is only a catalog", "use another coordinator, or take it out")
		}
	}
	return nil
}
