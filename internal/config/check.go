package config

import (
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// maxSocket is the longest path that a unix socket's address holds (sun_path, less
// the byte that ends it).
const maxSocket = 107

// reservedVolume is the prefix of a store that is not a volume's.
const reservedVolume = "drover"

var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// validName: the length is not the expression's affair, which every start compiles.
func validName(s string) bool { return len(s) <= 63 && nameForm.MatchString(s) }

// IsVolumeName says whether a volume may have that name.
func IsVolumeName(s string) bool { return validName(s) && s != reservedVolume }

const nameHint = "use 1 to 63 letters, digits, '.', '_' or '-', and begin with a letter or a digit"

// checks are those that hold whatever the configuration is used for. Each tells the
// first thing that is wrong.
func (c *Config) checks() []func() error {
	return []func() error{
		c.checkNames, c.checkOwnership, c.checkURL, c.checkPassword, c.checkState, c.checkDataDir, c.checkNumbers, c.checkConsistency, c.checkRestoreTest, c.checkSocket, c.checkJobs, c.checkMirror, c.checkUpkeep, c.checkMetrics, c.checkListen, c.checkCoordinator, c.checkWatches, c.checkWait, c.checkTemplates, c.checkSecrets, c.checkGit, c.checkDatabase,
	}
}

// check holds everything that is wrong whatever the configuration is used for.
func (c *Config) check() error {
	for _, check := range c.checks() {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// HasVolume says whether there is a volume in the store: one that is named as the coordinator
// may be nothing else.
func (c *Config) HasVolume() bool {
	return c.Store.URL != "" && (len(c.State) > 0 || c.Coordinator.URL != CoordinatorStore)
}

// CheckStoreURL says whether there is a store.
func (c *Config) CheckStoreURL() error {
	if c.Store.URL == "" {
		return &Error{What: "no store given", Hint: "set --store, DROVER_STORE or store.url"}
	}
	return nil
}

// CheckStore says whether there is a store, with a way to its password.
func (c *Config) CheckStore() error {
	if err := c.CheckStoreURL(); err != nil {
		return err
	}
	if c.Store.hasNoPassword() {
		return &Error{What: "no password given for the store", Hint: "set DROVER_PASSWORD, --password-file, --password-command or store.password_file"}
	}
	return nil
}

// CheckRun says whether an agent can run with it.
func (c *Config) CheckRun() error {
	if c.HasDatabase() {
		return c.checkDatabaseRun()
	}
	if len(c.Jobs) == 0 {
		return &Error{What: "nothing to run", Hint: "put the command after --, or jobs into the configuration file"}
	}
	if c.Store.URL == "" {
		if c.Ownership != OwnershipSingle {
			return c.origin.at("ownership", fmt.Sprintf("ownership is %s, and there is no store to own anything in", c.Ownership), "set --store, DROVER_STORE or store.url")
		}
		if len(c.State) > 0 {
			return c.origin.at("state", "state paths without a store to keep them in", "set --store, DROVER_STORE or store.url")
		}
		return nil
	}
	if !c.HasVolume() {
		return nil // only the coordinator is in it
	}
	if len(c.State) == 0 {
		return c.origin.at("store.url", "a store without a state path to keep in it", "set --state PATH, DROVER_STATE or state")
	}
	return c.CheckStore()
}

func (c *Config) checkNames() error {
	if !validName(c.Volume) {
		return c.origin.at("volume", fmt.Sprintf("volume name %q is not valid", c.Volume), nameHint)
	}
	if c.Volume == reservedVolume {
		return c.origin.at("volume", fmt.Sprintf("volume name %q is reserved", c.Volume), "choose another")
	}
	if c.Service != "" && !validName(c.Service) {
		return c.origin.at("service", fmt.Sprintf("service name %q is not valid", c.Service), nameHint)
	}
	if len(c.ID) > 255 || strings.ContainsFunc(c.ID, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '\uFFFD' }) {
		return c.origin.at("id", fmt.Sprintf("instance name %q is not valid", c.ID), "use at most 255 characters, no blanks")
	}
	return nil
}

// checkURL looks at what every backend's URL has in common.
// storeKinds is the hint where a URL names no store.
const storeKinds = "write file:///dir, s3://bucket/prefix or manta://account/stor/prefix"

func (c *Config) checkURL() error {
	if c.Store.URL == "" {
		return nil
	}
	u, err := url.Parse(c.Store.URL)
	if err != nil {
		// The parser's error repeats the URL, which may hold what should not be there.
		return c.origin.at("store.url", "store is not a URL", storeKinds)
	}
	if u.User != nil {
		return c.origin.at("store.url", "the store's URL holds credentials", "take them out; they come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or MANTA_KEY_PATH")
	}
	switch u.Scheme {
	case "file":
		if u.Host != "" || !strings.HasPrefix(u.Path, "/") {
			return c.origin.at("store.url", fmt.Sprintf("directory of store %q is not absolute", c.Store.URL), "write file:///dir, with three slashes")
		}
	case "s3":
		if u.Host == "" {
			return c.origin.at("store.url", fmt.Sprintf("store %q names no bucket", c.Store.URL), "write s3://bucket/prefix")
		}
	case "manta":
		if u.Host == "" {
			return c.origin.at("store.url", fmt.Sprintf("store %q names no account", c.Store.URL), "write manta://account/stor/prefix")
		}
	case "":
		return c.origin.at("store.url", "store is not a URL", storeKinds)
	default:
		return c.origin.at("store.url", fmt.Sprintf("no store of kind %q", u.Scheme), storeKinds)
	}
	return nil
}

// storeDir is the directory of a file store, else "".
func (c *Config) storeDir() string {
	u, err := url.Parse(c.Store.URL)
	if err != nil || u.Scheme != "file" {
		return ""
	}
	return filepath.Clean(u.Path)
}

func (s Store) hasNoPassword() bool {
	return !s.Password.Set() && s.PasswordFile == "" && len(s.PasswordCommand) == 0
}

func (c *Config) checkPassword() error {
	var ways []string
	if c.Store.Password.Set() {
		ways = append(ways, "store.password")
	}
	if c.Store.PasswordFile != "" {
		ways = append(ways, "store.password_file")
	}
	if len(c.Store.PasswordCommand) > 0 {
		ways = append(ways, "store.password_command")
	}
	if len(ways) > 1 {
		return c.origin.at(ways[1], fmt.Sprintf("the password is given in more than one way (also by %s)", c.origin.of(ways[0])), "keep one")
	}
	return nil
}

func (c *Config) checkState() error {
	for i, s := range c.State {
		at := fmt.Sprintf("state[%d]", i)
		switch {
		case s.Path == "":
			return c.origin.at(at, "a state path is empty", "write an absolute path")
		case !filepath.IsAbs(s.Path):
			return c.origin.at(at, fmt.Sprintf("state path %q is not absolute", s.Path), "begin it with a slash")
		case s.Path == "/":
			return c.origin.at(at, "the root directory cannot be a state path", "name the application's own directories")
		case strings.ContainsRune(s.Path, 0):
			return c.origin.at(at, fmt.Sprintf("state path %q holds a zero byte", s.Path), "")
		}
		for _, other := range c.State[:i] {
			if overlap(s.Path, other.Path) {
				return c.origin.at(at, fmt.Sprintf("state paths %q and %q overlap", other.Path, s.Path), "keep the outer one")
			}
		}
		if dir := c.storeDir(); dir != "" && overlap(s.Path, dir) {
			return c.origin.at(at, fmt.Sprintf("state path %q and the store's directory %q overlap", s.Path, dir), "keep the store elsewhere")
		}
		if err := c.checkPatterns(at+".exclude", s.Exclude); err != nil {
			return err
		}
	}
	return c.checkPatterns("exclude", c.Exclude)
}

func (c *Config) checkPatterns(path string, patterns []string) error {
	for i, pattern := range patterns {
		at := fmt.Sprintf("%s[%d]", path, i)
		if pattern == "" {
			return c.origin.at(at, "an exclude pattern is empty", "take it out")
		}
		for part := range strings.SplitSeq(pattern, "/") {
			if _, err := filepath.Match(part, ""); err != nil {
				return c.origin.at(at, fmt.Sprintf("exclude pattern %q is not valid", pattern), "close its brackets, or put a backslash before a bracket that is meant")
			}
		}
	}
	return nil
}

// overlap says whether one path is the other or below it.
func overlap(a, b string) bool {
	return a == b || strings.HasPrefix(b, strings.TrimSuffix(a, "/")+"/") || strings.HasPrefix(a, strings.TrimSuffix(b, "/")+"/")
}

func (c *Config) checkDataDir() error {
	if !filepath.IsAbs(c.DataDir) {
		return c.origin.at("data_dir", fmt.Sprintf("data directory %q is not absolute", c.DataDir), "begin it with a slash")
	}
	for _, s := range c.State {
		if overlap(s.Path, c.DataDir) {
			return c.origin.at("data_dir", fmt.Sprintf("data directory %q and state path %q overlap", c.DataDir, s.Path), "set --data-dir to a directory outside of the volume")
		}
	}
	return nil
}

func (c *Config) checkNumbers() error {
	if c.Lease.TTL < MinTTL || c.Lease.TTL > MaxTTL {
		return c.origin.at("lease.ttl", fmt.Sprintf("lease TTL %s is out of range", c.Lease.TTL), fmt.Sprintf("write one from %s to %s", MinTTL, MaxTTL))
	}
	if every := c.Backup.Every; every != 0 && every < MinTTL {
		return c.origin.at("backup.every", fmt.Sprintf("backup interval %s is too short", every), "write 1s or more, or 0 for no schedule")
	}
	if c.Limits.Connections < 0 || c.Limits.Connections > 1024 {
		return c.origin.at("limits.connections", fmt.Sprintf("%d connections are out of range", c.Limits.Connections), "write one from 0 to 1024")
	}
	return nil
}

// The bounds of a freeze: what a process needs to stop at all, and what an
// application's clients may just bear.
const (
	minFreeze = Duration(time.Millisecond)
	maxFreeze = Duration(time.Minute)
)

func (c *Config) checkConsistency() error {
	b := c.Backup
	if b.FreezeLimit < minFreeze || b.FreezeLimit > maxFreeze {
		return c.origin.at("backup.freeze_limit", fmt.Sprintf("freeze limit %s is out of range", b.FreezeLimit), fmt.Sprintf("write one from %s to %s", minFreeze, maxFreeze))
	}
	for _, h := range []struct {
		path string
		Hook
	}{{"backup.quiesce", b.Quiesce}, {"backup.resume", b.Resume}} {
		given := len(h.Command) > 0
		switch {
		case b.Consistency == ConsistencyHook && (!given || h.Command[0] == ""):
			return c.origin.at("backup.consistency", fmt.Sprintf("consistency is hook, and %s has no command", h.path), "write quiesce and resume, each with a command")
		case b.Consistency != ConsistencyHook && given:
			return c.origin.at(h.path, fmt.Sprintf("%s has a command, and consistency is %s", h.path, b.Consistency), "write consistency: hook, or take the command out")
		case h.Timeout <= 0:
			return c.origin.at(h.path+".timeout", fmt.Sprintf("%s has no time", h.path), "write a timeout such as 10s")
		}
		for _, arg := range h.Command {
			if strings.ContainsRune(arg, 0) {
				return c.origin.at(h.path+".command", fmt.Sprintf("an argument of %s holds a zero byte", h.path), "")
			}
		}
	}
	return nil
}

func (c *Config) checkRestoreTest() error {
	t := c.RestoreTest
	switch {
	case t.Every != 0 && t.Every < MinTTL:
		return c.origin.at("restore_test.every", fmt.Sprintf("restore test interval %s is too short", t.Every), "write 1s or more, or 0 for none")
	case t.Dir != "" && !filepath.IsAbs(t.Dir):
		return c.origin.at("restore_test.dir", fmt.Sprintf("directory %q is not absolute", t.Dir), "begin it with a slash")
	case t.Check.Timeout <= 0:
		return c.origin.at("restore_test.check.timeout", "restore_test.check has no time", "write a timeout such as 1h")
	case len(t.Check.Command) > 0 && t.Check.Command[0] == "":
		return c.origin.at("restore_test.check.command", "restore_test.check.command is empty", "")
	}
	for _, arg := range t.Check.Command {
		if strings.ContainsRune(arg, 0) {
			return c.origin.at("restore_test.check.command", "an argument of restore_test.check holds a zero byte", "")
		}
	}
	for _, s := range c.State {
		if t.Dir != "" && overlap(s.Path, t.Dir) {
			return c.origin.at("restore_test.dir", fmt.Sprintf("scratch directory %q and state path %q overlap", t.Dir, s.Path), "keep it outside of the volume")
		}
	}
	return nil
}

func (c *Config) checkSocket() error {
	if !filepath.IsAbs(c.Socket) {
		return c.origin.at("socket", fmt.Sprintf("socket path %q is not absolute", c.Socket), "begin it with a slash")
	}
	if len(c.Socket) > maxSocket {
		return c.origin.at("socket", fmt.Sprintf("socket path of %d bytes is too long", len(c.Socket)), fmt.Sprintf("use at most %d, with --socket", maxSocket))
	}
	for _, s := range c.State {
		if overlap(s.Path, c.Socket) {
			return c.origin.at("socket", fmt.Sprintf("socket %q is inside state path %q", c.Socket, s.Path), "set --socket to a path outside of the volume")
		}
	}
	return nil
}
