package config

import (
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Database says that this instance is a member of a replicated database.
type Database struct {
	Engine  Engine `yaml:"engine" doc:"postgres. Its server is the main job, under that name."`
	Cluster string `yaml:"cluster" doc:"Name of the cluster, below the coordinator's prefix. Default: main."`
	Data    string `yaml:"data" doc:"Absolute path of the database's directory. It is made; it must not be a mount point, since copies of it are exchanged for it."`
	Bin     string `yaml:"bin" doc:"Directory of the engine's programs. Default: where Debian has them."`
	User    string `yaml:"user" doc:"User that the server runs as. Default: postgres, if the agent is root."`
	Listen  string `yaml:"listen" doc:"TCP address, host:port, where the server takes connections."`
	API     string `yaml:"api" doc:"TCP address, host:port, where load balancers ask (Patroni's paths) and members talk to one another."`
	Address Names  `yaml:"address" doc:"How the address is found that others reach this member at; as a service's."`

	Service string `yaml:"service" doc:"Name of the service that this member is in the coordinator's catalog: with the tag primary, replica or standby (of another cluster) while it is one, and epoch and timeline as meta. Default: none."`

	PasswordFile string `yaml:"password_file" doc:"File with the cluster's secret: the superuser's password. Those of replication and of the members' talk are derived from it."`
	Superuser    string `yaml:"superuser" doc:"Name of the superuser."`

	Synchronous      Synchronous `yaml:"synchronous" doc:"on: commits wait for replicas, while there are any. strict: always; without replicas nothing is committed. off: they never wait, and the last ones can be lost with their primary."`
	Acknowledgements int         `yaml:"acknowledgements" doc:"How many replicas must have a commit."`
	TTL              Duration    `yaml:"ttl" doc:"How long the primary may be silent before another member is elected. At least 1s."`
	Missing          Duration    `yaml:"missing" doc:"How long commits wait for a replica that has gone, before they wait for it no more. Default: ttl."`
	Forget           Duration    `yaml:"forget" doc:"After how long a member that does not answer is taken off the list."`
	RestoreAfter     Duration    `yaml:"restore_after" doc:"When no member with data was heard of for so long, the newest backup is restored. 0: never."`

	TLS DatabaseTLS `yaml:"tls" doc:"TLS between the members, and for clients. Default: none."`

	Backup DatabaseBackup `yaml:"backup" doc:"Backups of the database into the store, if there is one with a password: its log, all the time, and base backups."`

	RestoreTest DatabaseRestoreTest `yaml:"restore_test" doc:"Restoring the newest base backup and the log on a schedule: a backup counts only after a restore."`

	CopyFrom CopyFrom `yaml:"copy_from" doc:"Where a new replica's files come from. peer: from the primary. store: from the newest base backup and the log, if that leads to the primary, else as peer. auto: as store if the database has 1 GiB or more and there is at most half as much log since the backup, else as peer."`

	StandbyOf StandbyOf `yaml:"standby_of" doc:"Another cluster that this one follows, by what that one backs up, and no other way. It is read-only until drover failover makes it one of its own; from then on this is ignored."`

	Parameters map[string]string `yaml:"parameters" doc:"Parameters of the server."`
	HBA        Names             `yaml:"hba" doc:"Lines of pg_hba.conf, for clients. Default: all of them, by password."`
	Restart    RestartMode       `yaml:"restart" doc:"What becomes of parameters that need a restart of the server. manual: drover members shows them, and drover restart postgres --pending restarts. roll: the primary's agent restarts one member after another, itself by a switchover, as long as all are well."`
	Tags       DatabaseTags      `yaml:"tags" doc:"What this member is for."`
}

// StandbyOf says where the backups and the log of another cluster are.
type StandbyOf struct {
	Store  Store  `yaml:"store" doc:"The store of that cluster, as store. It is only read. Credentials of its own: credentials=FILE and profile=NAME in an S3 URL."`
	Volume string `yaml:"volume" doc:"Name of that cluster's volume there. Default: as this one's."`
}

// SourceConfig is the configuration of the volume of the cluster that this one follows; nil: it follows none.
func (c *Config) SourceConfig() *Config {
	m := c.elsewhere("database.standby_of.", c.Database.StandbyOf.Store, c.Database.StandbyOf.Volume)
	if m != nil {
		m.Lease.Head = HeadStore // that one's coordinator is not this one's
	}
	return m
}

// checkSource says whether another cluster can be followed.
func (c *Config) checkSource() error {
	m := c.SourceConfig()
	if m == nil {
		return nil
	}
	for _, check := range []func() error{m.checkNames, m.checkURL, m.checkPassword} {
		if err := check(); err != nil {
			return err
		}
	}
	switch {
	case m.Store.hasNoPassword():
		return c.origin.at("database.standby_of.store", "no password given for the store of the cluster that is followed", "write database.standby_of.store.password_file")
	case m.Store.URL == c.Store.URL && m.Volume == c.Volume:
		return c.origin.at("database.standby_of", "the cluster would follow itself", "give its own backups another store or volume")
	}
	return nil
}

// DatabaseTags say what a member is for.
type DatabaseTags struct {
	NoFailover    bool `yaml:"nofailover" doc:"It is never elected."`
	NoSync        bool `yaml:"nosync" doc:"No commit waits for it."`
	NoLoadBalance bool `yaml:"noloadbalance" doc:"It answers /replica with 503."`
	Priority      int  `yaml:"failover_priority" doc:"Of members that are equally far the one with the highest is elected."`
	CloneFrom     bool `yaml:"clonefrom" doc:"Other members are copied from it rather than from the primary, while it is a replica that receives."`
	// ReplicateFrom is a member's name.
	ReplicateFrom string   `yaml:"replicatefrom" doc:"Name of the member that it takes the log from while that one is a replica that receives, instead of from the primary. Implies nosync."`
	Delayed       Duration `yaml:"delayed" doc:"How long after their commit it applies transactions. Implies nofailover, nosync and noloadbalance."`
}

// DatabaseRestoreTest says when and how a database's backup is restored into scratch space.
type DatabaseRestoreTest struct {
	Every    Duration `yaml:"every" doc:"How often one member, a replica if there is one, restores the newest base backup and all of the log into scratch space, has a server recover them, reads every page, and removes all of it again. 0: never."`
	Dir      string   `yaml:"dir" doc:"Directory of the scratch space, with room for the database and its log since the base backup. Default: beside database.data."`
	Query    string   `yaml:"query" doc:"Query that the restored database is asked, by somebody who may read everything. The test fails if it gives no row, or if the first value of the first row is false or null."`
	Database string   `yaml:"database" doc:"Database that the query is asked in."`
	Timeout  Duration `yaml:"timeout" doc:"After this long the test is given up."`
}

// From says whose files base backups are made of.
type From string

// Its values.
const (
	FromAny     From = "any"
	FromReplica From = "replica"
	FromPrimary From = "primary"
)

func (From) choices() []string { return words(FromAny, FromReplica, FromPrimary) }

// UnmarshalText takes one of the words.
func (f *From) UnmarshalText(text []byte) error { return choose(f, text) }

// DatabaseBackup says what is kept of a database.
type DatabaseBackup struct {
	Every Duration `yaml:"every" doc:"How often a base backup is made. 0: never, and the log is not archived either."`
	From  From     `yaml:"from" doc:"Who makes base backups. any: a replica that receives, or the primary while there is none. replica: only a replica. primary: only the primary."`
	Keep  Duration `yaml:"keep" doc:"How far back each moment can be restored; older backups and log are removed after a base backup. 0: all stay."`
}

// BacksUpDatabase says whether the database's log and base backups go to the store.
func (c *Config) BacksUpDatabase() bool {
	return c.HasDatabase() && c.Store.URL != "" && !c.Store.hasNoPassword() && c.Database.Backup.Every > 0
}

// Engine is a kind of database.
type Engine string

// Its values.
const EnginePostgres Engine = "postgres"

func (Engine) choices() []string { return words(EnginePostgres) }

// UnmarshalText takes one of the words.
func (e *Engine) UnmarshalText(text []byte) error { return choose(e, text) }

// Synchronous says when commits wait for replicas.
type Synchronous string

// Its values.
const (
	SynchronousOn     Synchronous = "on"
	SynchronousStrict Synchronous = "strict"
	SynchronousOff    Synchronous = "off"
)

func (Synchronous) choices() []string {
	return words(SynchronousOn, SynchronousStrict, SynchronousOff)
}

// UnmarshalText takes one of the words.
func (s *Synchronous) UnmarshalText(text []byte) error { return choose(s, text) }

// RestartMode says who restarts servers whose parameters wait for it.
type RestartMode string

// Its values.
const (
	RestartManual RestartMode = "manual"
	RestartRoll   RestartMode = "roll"
)

func (RestartMode) choices() []string { return words(RestartManual, RestartRoll) }

// UnmarshalText takes one of the words.
func (r *RestartMode) UnmarshalText(text []byte) error { return choose(r, text) }

// CopyFrom says where the files of a new replica come from.
type CopyFrom string

// Its values.
const (
	CopyFromAuto  CopyFrom = "auto"
	CopyFromStore CopyFrom = "store"
	CopyFromPeer  CopyFrom = "peer"
)

func (CopyFrom) choices() []string { return words(CopyFromAuto, CopyFromStore, CopyFromPeer) }

// UnmarshalText takes one of the words.
func (f *CopyFrom) UnmarshalText(text []byte) error { return choose(f, text) }

// DefaultDatabase is a member that nothing is said of but its engine.
func DefaultDatabase() Database {
	return Database{
		Cluster: "main", Data: "/var/lib/postgresql/drover/data", Listen: "0.0.0.0:5432", API: "0.0.0.0:8008", Superuser: "postgres", TLS: DatabaseTLS{Verify: VerifyCA},
		Synchronous: SynchronousOn, Acknowledgements: 1, Restart: RestartManual, CopyFrom: CopyFromAuto,
		Backup:      DatabaseBackup{Every: Duration(24 * time.Hour), From: FromAny, Keep: Duration(7 * 24 * time.Hour)},
		RestoreTest: DatabaseRestoreTest{Database: "postgres", Timeout: Duration(6 * time.Hour)},
		TTL:         Duration(5 * time.Second), Forget: Duration(10 * time.Minute), RestoreAfter: Duration(5 * time.Minute),
	}
}

// HasDatabase says whether the instance is a member of a replicated database.
func (c *Config) HasDatabase() bool { return c.Database.Engine != "" }

// DatabaseJob is the name of the job that the server is.
func (c *Config) DatabaseJob() string { return string(c.Database.Engine) }

// maxDelay is PostgreSQL's.
const maxDelay = Duration(24 * 24 * time.Hour)

var roleForm = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)

func (c *Config) checkDatabase() error {
	d := c.Database
	if !c.HasDatabase() {
		if c.Given("database.data") || c.Given("database.cluster") {
			return c.origin.at("database", "database names no engine", "write engine: postgres")
		}
		return nil
	}
	at := func(key, what, hint string) error { return c.origin.at("database."+key, what, hint) }
	switch {
	case !validName(d.Cluster):
		return at("cluster", fmt.Sprintf("cluster name %q is not valid", d.Cluster), nameHint)
	case !filepath.IsAbs(d.Data) || filepath.Clean(d.Data) != d.Data || d.Data == "/":
		return at("data", fmt.Sprintf("database directory %q is no absolute, plain path", d.Data), "write one such as /var/lib/postgresql/drover/data")
	case overlap(d.Data, c.DataDir):
		return at("data", fmt.Sprintf("database directory %q and data directory %q overlap", d.Data, c.DataDir), "keep them apart")
	case d.Service != "" && !serviceName.MatchString(d.Service):
		return at("service", fmt.Sprintf("service name %q is not valid", d.Service), "use letters, digits, - and _")
	case d.PasswordFile == "":
		return at("password_file", "the cluster has no secret", "write password_file: a file that all members have, with a long random password")
	case !roleForm.MatchString(d.Superuser):
		return at("superuser", fmt.Sprintf("superuser %q is not valid", d.Superuser), "use lower-case letters, digits and _")
	case d.Acknowledgements < 1 || d.Acknowledgements > 16:
		return at("acknowledgements", fmt.Sprintf("%d acknowledgements are out of range", d.Acknowledgements), "write one from 1 to 16")
	case d.Tags.ReplicateFrom != "" && (!validName(d.Tags.ReplicateFrom) || d.Tags.ReplicateFrom == c.ID):
		return at("tags.replicatefrom", fmt.Sprintf("%q is no other member", d.Tags.ReplicateFrom), "write the name (id) of one, or take it out")
	case d.Tags.Delayed < 0 || d.Tags.Delayed > maxDelay:
		return at("tags.delayed", fmt.Sprintf("delay %s is out of range", d.Tags.Delayed), fmt.Sprintf("write one up to %s, or 0 for none", maxDelay))
	case d.TTL < MinTTL || d.TTL > MaxTTL:
		return at("ttl", fmt.Sprintf("TTL %s is out of range", d.TTL), fmt.Sprintf("write one from %s to %s", MinTTL, MaxTTL))
	case c.CoordinatorKind() == "" || c.CoordinatorKind() == CoordinatorFile || c.CoordinatorKind() == CoordinatorDNS:
		return at("engine", "a database needs a coordinator that can be written to", "set store.url, or coordinator to Consul or etcd")
	}
	if err := c.checkDatabaseTest(at); err != nil {
		return err
	}
	for key, address := range map[string]string{"listen": d.Listen, "api": d.API} {
		if _, port, err := net.SplitHostPort(address); err != nil || !isPort(port) {
			return at(key, fmt.Sprintf("address %q is not host:port", address), "write one such as 0.0.0.0:5432")
		}
	}
	for name, job := range c.Jobs {
		if name == c.DatabaseJob() || job.Main {
			return c.origin.at("jobs."+name, fmt.Sprintf("job %s stands in the place of the database's server", name), "the server is the main job, and named as its engine")
		}
	}
	if err := c.checkDatabaseTLS(); err != nil {
		return err
	}
	return c.checkSource()
}

func (c *Config) checkDatabaseTest(at func(key, what, hint string) error) error {
	t := c.Database.RestoreTest
	switch {
	case t.Every != 0 && t.Every < MinTTL:
		return at("restore_test.every", fmt.Sprintf("restore test interval %s is too short", t.Every), "write 1s or more, or 0 for none")
	case t.Dir != "" && (!filepath.IsAbs(t.Dir) || overlap(t.Dir, c.Database.Data)):
		return at("restore_test.dir", fmt.Sprintf("scratch directory %q is not absolute, or overlaps the database", t.Dir), "keep it outside of "+c.Database.Data)
	case t.Timeout <= 0:
		return at("restore_test.timeout", "restore_test has no time", "write a timeout such as 6h")
	case t.Database == "" || strings.ContainsRune(t.Database+t.Query, 0):
		return at("restore_test.database", "restore_test names no database", "write the name of one")
	case c.RestoreTest.Every != 0:
		return c.origin.at("restore_test.every", "restore_test is of a volume's files, and the instance is a member of a database", "write it under database")
	}
	return nil
}

// checkDatabaseRun says whether an agent can run a member.
func (c *Config) checkDatabaseRun() error {
	switch {
	case c.Ownership != OwnershipSingle:
		return c.origin.at("ownership", fmt.Sprintf("ownership is %s, and the instance is a member of a database", c.Ownership), "take one of them out: the cluster's record says who is the primary")
	case len(c.State) > 0:
		return c.origin.at("state", "state paths beside a database", "run them as another instance: a database's volume holds its base backups")
	case c.Store.URL != "" && c.Coordinator.URL != CoordinatorStore:
		return c.CheckStore()
	}
	return nil
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0 && !strings.HasPrefix(s, "0")
}
