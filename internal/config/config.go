// Package config turns drover.yaml, the environment and the flags of the command
// line into one typed, checked Config.
//
// It promises: a flag wins over the environment, the environment over the file; an
// unknown key, a wrong type or a wrong value is exactly one Error that says where it
// stands (file:line:column, the flag or the variable), what is wrong and how to mend
// it; nothing secret is in an error, in a printed Config or in a log line. The table
// of settings is the only list of flags and variables; the JSON Schema and the key
// reference are made from the types.
//
// It leaves to others: what the values do, whether the store can be reached, and
// which options of a store's URL its backend knows.
package config

import "time"

// Config is everything that one agent is told. The zero value is not useful: Default
// is the start, Load the way.
type Config struct {
	Service     string              `yaml:"service" doc:"Name of the application as a whole, for people and for discovery."`
	Store       Store               `yaml:"store" doc:"Where the volume is kept, and the password that opens it."`
	Volume      string              `yaml:"volume" doc:"Name of the volume in the store. The name drover is reserved."`
	Ownership   Ownership           `yaml:"ownership" doc:"Who holds what. single: one instance holds the volume, the others stand by. slot: there are slots volumes, NAME-0 and so on, and each instance holds one of them or waits for one. each: every instance has a volume of its own, NAME-ID."`
	Slots       int                 `yaml:"slots" doc:"With ownership: slot. How many slots there are, 1 to 1000."`
	State       []StatePath         `yaml:"state" doc:"The paths whose content is the volume. Each is a path, or a mapping with path and exclude."`
	Exclude     []string            `yaml:"exclude" doc:"Patterns (restic's rules) of what is left out below every path."`
	RestoreTest RestoreTest         `yaml:"restore_test" doc:"Restoring the newest commit on a schedule: a backup counts only after a restore."`
	Mirror      Mirror              `yaml:"mirror" doc:"A second store, to which the holder copies every commit in the background."`
	Upkeep      Upkeep              `yaml:"upkeep" doc:"What the holder removes from the store while the jobs run: old snapshots, and data that no snapshot needs."`
	Backup      Backup              `yaml:"backup" doc:"When backups are made, and what is refused."`
	Lease       Lease               `yaml:"lease" doc:"How the claim on the volume is kept alive."`
	Fence       Fence               `yaml:"fence" doc:"history: a holder that cannot reach the store lets its jobs run until the store names another holder. strict: it kills them before another one can have claimed."`
	FirstStart  FirstStart          `yaml:"first_start" doc:"What to do when the volume has no history and the paths hold files: refuse to start, or adopt them as the first state."`
	ImageFiles  ImageFiles          `yaml:"image_files" doc:"What to do with files that came with the image and differ from the volume: keep them as a diverged snapshot, or discard them."`
	Init        Init                `yaml:"init" doc:"auto: an empty prefix is initialised. never: that is an error."`
	DataDir     string              `yaml:"data_dir" doc:"Directory of Drover's own files: the record beside the data, and caches. Must not overlap the state paths."`
	ID          string              `yaml:"id" doc:"Name of this instance. Default: the host name."`
	Coordinator Coordinator         `yaml:"coordinator" doc:"Where leases, keys and the catalog of services live: a URL, or a mapping."`
	Watches     map[string]Watch    `yaml:"watches" doc:"What is watched in the coordinator, by name. A change is the event changed:NAME; of a service, its first instance is healthy:NAME, and the loss of its last is unhealthy:NAME."`
	Templates   map[string]Template `yaml:"templates" doc:"Files that are made of keys, services and secrets, by name. The jobs start when all of them have been written."`
	Wait        WaitTimes           `yaml:"wait" doc:"How long it must have been quiet before a template is rendered that says nothing itself, variables of jobs included: a time, or a mapping."`
	Secrets     Secrets             `yaml:"secrets" doc:"Where secrets come from."`
	Git         map[string]GitRepo  `yaml:"git" doc:"Git repositories whose files become keys of the coordinator, by name. One of all instances writes."`
	GitListen   string              `yaml:"git_listen" doc:"TCP address, host:port, where web hooks come in. Each call is checked against its secret."`
	Database    Database            `yaml:"database" doc:"This instance is a member of a replicated database."`
	Jobs        map[string]Job      `yaml:"jobs" doc:"The processes to supervise, by name. At most one is main; a single job is, unless it runs by turns."`
	Metrics     map[string]Metric   `yaml:"metrics" doc:"Metrics of the application, by name, beside Drover's own."`
	Limits      Limits              `yaml:"limits" doc:"Bounds on what Drover itself uses."`
	Listen      string              `yaml:"listen" doc:"TCP address, host:port, that answers /metrics, /v1/ping and /v1/health to anyone. Default: none, only the socket answers."`
	Socket      string              `yaml:"socket" doc:"Path of the control socket. Default for root: /run/drover/drover.sock, else $XDG_RUNTIME_DIR/drover/drover.sock."`
	Log         Log                 `yaml:"log" doc:"The agent's own log, on stderr."`

	origin origins
	made   *made // nil if the file is no template
}

// Store says where the volume is kept. The password is given in at most one way.
type Store struct {
	URL             string  `yaml:"url" doc:"file:///directory, s3://bucket/prefix?endpoint=http://host:9000&region=name or manta://account/stor/prefix. Credentials come from the environment, not from the URL."`
	Password        Secret  `yaml:"password" doc:"The repository's password itself. A file or a command keeps it out of this file."`
	PasswordFile    string  `yaml:"password_file" doc:"File that holds the password; a line break at its end is not part of it."`
	PasswordCommand Command `yaml:"password_command" doc:"Command that prints the password: a list, or a string for /bin/sh."`
}

// Mirror says where the history is copied to, with a password and a key of its own.
type Mirror struct {
	Store  Store    `yaml:"store" doc:"The second store, as store. Without a URL there is no mirror. Credentials of its own: credentials=FILE and profile=NAME in an S3 URL."`
	Volume string   `yaml:"volume" doc:"Name of the volume there. Default: this volume's."`
	Every  Duration `yaml:"every" doc:"How often it is looked for new commits to copy. At least 1s. Of a database the default is 1m."`
	MaxLag Duration `yaml:"max_lag" doc:"The agent is degraded when the mirror is behind for longer."`
	Upkeep Duration `yaml:"upkeep" doc:"How often it is looked for what may go from the mirror, after upkeep.grace, and small index objects are merged there. At least 1s. 0: never, as for credentials that may not delete."`
	Keep   Keep     `yaml:"keep" doc:"Which snapshots stay in the mirror, as upkeep.keep, whatever stays in the store. No rule: all."`
}

// StatePath is one path of the volume.
type StatePath struct {
	Path    string   `yaml:"path" jsonschema:"required" doc:"Absolute path of a directory or a file."`
	Exclude []string `yaml:"exclude" doc:"Patterns (restic's rules) of what is left out below this path."`
}

func (StatePath) short() string { return "path" }

// Backup says when backups are made and what is refused.
type Backup struct {
	OnChange     Duration     `yaml:"on_change" doc:"Back up when files changed and then nothing more did for this long. 0: not on change."`
	Every        Duration     `yaml:"every" doc:"Back up at this interval. 0: no schedule."`
	OnStop       bool         `yaml:"on_stop" doc:"Back up when the instance is told to stop."`
	OnUnreadable OnUnreadable `yaml:"on_unreadable" doc:"fail: a file that cannot be read means no commit. skip: commit without it and say so each time."`
	AllowShrink  bool         `yaml:"allow_shrink" doc:"Allow a commit that drops more than half of the files of a volume with over 100."`
	Consistency  Consistency  `yaml:"consistency" doc:"What makes the files of a backup one moment's while jobs run. freeze: the jobs are stopped while changed files are copied. hook: the quiesce and resume commands. live: nothing, each file is read by itself."`
	FreezeLimit  Duration     `yaml:"freeze_limit" doc:"The longest that a freeze may hold the jobs. If it is over they go on, and the freeze is tried again."`
	Quiesce      Hook         `yaml:"quiesce" doc:"With consistency: hook. Makes the application hold still; the backup fails if this does."`
	Resume       Hook         `yaml:"resume" doc:"With consistency: hook. Lets it go on. It runs after every quiesce, also after one that failed."`
}

// Upkeep says what the holder removes from the store, and when.
type Upkeep struct {
	Every    Duration     `yaml:"every" doc:"How often it is looked for what may go. At least 1s. 0: never."`
	Grace    Duration     `yaml:"grace" doc:"How long data that no snapshot needs stays after it was marked for deletion. At least 1m."`
	Keep     Keep         `yaml:"keep" doc:"Which committed snapshots stay: those that any rule keeps, and always the newest. No rule: all."`
	Diverged KeepDiverged `yaml:"diverged" doc:"Which snapshots stay that were kept beside the history. No rule: all."`
}

// Keep says which snapshots of the history stay; a rule that is 0 keeps none.
type Keep struct {
	Last    int      `yaml:"last" doc:"The newest so many."`
	Hourly  int      `yaml:"hourly" doc:"The newest of each of so many hours that have any."`
	Daily   int      `yaml:"daily" doc:"The newest of each of so many days."`
	Weekly  int      `yaml:"weekly" doc:"The newest of each of so many weeks."`
	Monthly int      `yaml:"monthly" doc:"The newest of each of so many months."`
	Yearly  int      `yaml:"yearly" doc:"The newest of each of so many years."`
	Within  Duration `yaml:"within" doc:"What is at most so much older than the newest."`
}

// KeepDiverged says which snapshots beside the history stay.
type KeepDiverged struct {
	Last   int      `yaml:"last" doc:"The newest so many."`
	Within Duration `yaml:"within" doc:"What is at most so much older than the newest of them."`
}

// RestoreTest says when and how the newest commit is restored into scratch space.
type RestoreTest struct {
	Every Duration `yaml:"every" doc:"How often the holder restores the newest commit into scratch space, reads it back, and removes it again. 0: never."`
	Dir   string   `yaml:"dir" doc:"Directory of the scratch space, with room for the whole volume. Default: data_dir."`
	Check Hook     `yaml:"check" doc:"Command that looks at the restored files; the test fails if it does. They are below its working directory, which is $DROVER_RESTORED as well, each at its absolute path."`
}

// Hook is a command that the agent runs, in the environment and as the user of the main job.
type Hook struct {
	Command Command  `yaml:"command" doc:"What to run: a list, or a string for /bin/sh."`
	Timeout Duration `yaml:"timeout" doc:"After this long it is killed, and counts as failed."`
}

// Lease says how the claim is kept alive.
type Lease struct {
	Head HeadPlace `yaml:"head" doc:"Where the head is, whose compare-and-swap decides who holds the volume. store: in the store. coordinator: it is a key there, for a store that has no conditional writes."`
	TTL  Duration  `yaml:"ttl" doc:"How long a holder may be silent before a standby may claim. It renews every third of it. At least 1s."`
}

// Limits bounds what Drover itself uses.
type Limits struct {
	Upload      Size `yaml:"upload" doc:"Bytes per second to the store. 0: no limit."`
	Download    Size `yaml:"download" doc:"Bytes per second from the store. 0: no limit."`
	Connections int  `yaml:"connections" doc:"Concurrent requests to the store. 0: the store's default."`
	Memory      Size `yaml:"memory" doc:"Memory that Drover aims to stay below. 0: no limit."`
}

// Log says how the agent logs.
type Log struct {
	Level  LogLevel  `yaml:"level" doc:"debug, info, warn or error."`
	Format LogFormat `yaml:"format" doc:"text or json."`
}

// MainJob is the name of the job that stands after -- on the command line.
const MainJob = "main"

// Values that hold where nothing else is said.
const (
	DefaultVolume  = "data"
	DefaultTTL     = Duration(10 * time.Second)
	DefaultGrace   = Duration(10 * time.Second)
	DefaultDataDir = "/var/lib/drover"
	DefaultSignal  = Signal("TERM")
	// DefaultFreeze is what most applications' own timeouts do not notice.
	DefaultFreeze = Duration(time.Second)
	DefaultHook   = Duration(10 * time.Second)
	// DefaultCheck is for a check that reads all of a large volume.
	DefaultCheck = Duration(time.Hour)
	// DefaultMirrorEvery: each look that finds something reads both indexes.
	DefaultMirrorEvery = Duration(10 * time.Second)
	DefaultMaxLag      = Duration(15 * time.Minute)
	DefaultUpkeep      = Duration(time.Hour)
	DefaultUpkeepGrace = Duration(time.Hour)
	// MinTTL keeps the renewals, a third of it apart, well above a slow store's latency.
	MinTTL = Duration(time.Second)
	// MaxTTL is the longest that anybody should wait for a takeover.
	MaxTTL = Duration(time.Hour)
)

// Default is the configuration that nobody has said anything about. What depends on
// the machine (ID, DataDir and Socket of another user than root) Load fills in.
func Default() *Config {
	return &Config{
		Volume: DefaultVolume,
		Mirror: Mirror{Every: DefaultMirrorEvery, MaxLag: DefaultMaxLag, Upkeep: DefaultUpkeep},
		Backup: Backup{
			OnStop: true, OnUnreadable: UnreadableFail, Consistency: ConsistencyFreeze, FreezeLimit: DefaultFreeze,
			Quiesce: Hook{Timeout: DefaultHook}, Resume: Hook{Timeout: DefaultHook},
		},
		RestoreTest: RestoreTest{Check: Hook{Timeout: DefaultCheck}},
		Upkeep:      Upkeep{Every: DefaultUpkeep, Grace: DefaultUpkeepGrace},
		Lease:       Lease{TTL: DefaultTTL, Head: HeadStore},
		Coordinator: Coordinator{Every: DefaultPoll},
		Secrets:     Secrets{Vault: Vault{Poll: DefaultVaultPoll}},
		Database:    DefaultDatabase(),
		Ownership:   OwnershipSingle,
		Fence:       FenceHistory,
		FirstStart:  FirstStartRefuse,
		ImageFiles:  ImageFilesKeep,
		Init:        InitAuto,
		Log:         Log{Level: LogInfo, Format: LogText},
		origin:      origins{},
	}
}

// Paths lists the state paths.
func (c *Config) Paths() []string {
	paths := make([]string, len(c.State))
	for i, s := range c.State {
		paths[i] = s.Path
	}
	return paths
}

// SurvivorsFile is where an agent notes its jobs, for a next life that finds them
// alive. It is beside the socket: who has taken the socket knows that its writer is dead.
func (c *Config) SurvivorsFile() string { return c.Socket + ".jobs" }

// Where says which source gave the value of path, as in "drover.yaml:3:5"; "" if none.
func (c *Config) Where(path string) string { return c.origin[path] }

// At is an Error about the value of path, which only a part that uses it could find.
func (c *Config) At(path, what string) *Error { return c.origin.at(path, what, "") }

// Given says whether any source gave the value of path, as in "log.level".
func (c *Config) Given(path string) bool {
	_, ok := c.origin[path]
	return ok
}
