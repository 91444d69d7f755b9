package config

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// Setting is one key that a flag and a variable can give as well.
type Setting struct {
	Flag   string // without dashes; "" if there is only the variable
	Env    string
	Path   string // of the key in the file
	Value  string // what stands for the value in help: "URL"; "" for a switch
	Repeat bool   // may be given several times
	Group  Group  // which commands it concerns
	Help   string
}

// Group is a set of settings that a command takes as a whole.
type Group string

// The groups.
const (
	GroupAgent Group = "agent" // every command
	GroupStore Group = "store" // commands that open the store
	GroupClaim Group = "claim" // commands that hold the volume meanwhile
	GroupTree  Group = "tree"  // commands that read the files
	GroupTest  Group = "test"  // the agent and restore-test
	GroupRun   Group = "run"   // the agent alone
)

// Settings lists every flag and variable that fills a Config, in the order of help.
func Settings() []Setting {
	all := []Setting{
		{Flag: "store", Group: GroupStore, Path: "store.url", Value: "URL", Help: "where the volume is kept: file:///dir, s3://bucket/prefix?endpoint=…&region=… or manta://account/stor/prefix"},
		{Flag: "volume", Group: GroupStore, Path: "volume", Value: "NAME", Help: "name of the volume in the store (default data)"},
		{Flag: "ownership", Group: GroupRun, Path: "ownership", Value: "single|slot|each", Help: "one holder and standbys, one volume for each of a number of slots, or one for each instance (default single)"},
		{Flag: "slots", Group: GroupRun, Path: "slots", Value: "N", Help: "how many slots there are, with --ownership slot"},
		{Env: "DROVER_PASSWORD", Group: GroupStore, Path: "store.password", Help: "password of the repository"},
		{Flag: "password-file", Group: GroupStore, Path: "store.password_file", Value: "FILE", Help: "file that holds the repository's password"},
		{Flag: "password-command", Group: GroupStore, Path: "store.password_command", Value: "COMMAND", Help: "shell command that prints the repository's password"},
		{Flag: "mirror-store", Group: GroupRun, Path: "mirror.store.url", Value: "URL", Help: "second store, to which every commit is copied in the background"},
		{Env: "DROVER_MIRROR_PASSWORD", Group: GroupRun, Path: "mirror.store.password", Value: "", Help: "password of the repository there"},
		{Flag: "mirror-password-file", Group: GroupRun, Path: "mirror.store.password_file", Value: "FILE", Help: "file that holds the password of the repository there"},
		{Flag: "mirror-volume", Group: GroupRun, Path: "mirror.volume", Value: "NAME", Help: "name of the volume there (default this volume's)"},
		{Flag: "restore-test-every", Group: GroupRun, Path: "restore_test.every", Value: "TIME", Help: "restore the newest commit into scratch space at this interval, and check it"},
		{Flag: "restore-test-dir", Group: GroupTest, Path: "restore_test.dir", Value: "DIR", Help: "directory of the scratch space of restore tests (default data_dir)"},
		{Flag: "restore-test-check", Group: GroupTest, Path: "restore_test.check.command", Value: "COMMAND", Help: "shell command that looks at the files of a restore test, in $DROVER_RESTORED"},
		{Flag: "service", Group: GroupRun, Path: "service", Value: "NAME", Help: "name of the application as a whole"},
		{Flag: "state", Group: GroupRun, Path: "state", Value: "PATH", Repeat: true, Help: "absolute path whose content is the volume (repeatable)"},
		{Flag: "exclude", Group: GroupTree, Path: "exclude", Value: "PATTERN", Repeat: true, Help: "leave out what matches, by restic's rules (repeatable)"},
		{Flag: "on-change", Group: GroupRun, Path: "backup.on_change", Value: "TIME", Help: "back up when files changed and then nothing did for this long"},
		{Flag: "every", Group: GroupRun, Path: "backup.every", Value: "TIME", Help: "back up at this interval"},
		{Flag: "on-stop", Group: GroupRun, Path: "backup.on_stop", Help: "back up when told to stop (default true)"},
		{Flag: "on-unreadable", Group: GroupTree, Path: "backup.on_unreadable", Value: "fail|skip", Help: "a file that cannot be read: no commit, or commit without it (default fail)"},
		{Flag: "consistency", Group: GroupRun, Path: "backup.consistency", Value: "freeze|hook|live", Help: "what makes the files of a backup one moment's (default freeze)"},
		{Flag: "allow-shrink", Group: GroupTree, Path: "backup.allow_shrink", Help: "allow a commit that drops more than half of the files"},
		{Flag: "ttl", Group: GroupClaim, Path: "lease.ttl", Value: "TIME", Help: "how long a holder may be silent before another may claim (default 10s)"},
		{Flag: "fence", Group: GroupRun, Path: "fence", Value: "history|strict", Help: "what a holder does that cannot reach the store (default history)"},
		{Flag: "first-start", Group: GroupRun, Path: "first_start", Value: "refuse|adopt", Help: "files in the paths of a volume without history (default refuse)"},
		{Flag: "image-files", Group: GroupRun, Path: "image_files", Value: "keep|discard", Help: "files that came with the image and differ from the volume (default keep)"},
		{Flag: "init", Group: GroupRun, Path: "init", Value: "auto|never", Help: "whether an empty prefix is initialised (default auto)"},
		{Flag: "data-dir", Group: GroupRun, Path: "data_dir", Value: "DIR", Help: "directory of Drover's own files (default /var/lib/drover)"},
		{Flag: "id", Group: GroupClaim, Path: "id", Value: "NAME", Help: "name of this instance (default the host name)"},
		{Flag: "limit-upload", Group: GroupStore, Path: "limits.upload", Value: "SIZE", Help: "bytes per second to the store, such as 10MiB"},
		{Flag: "limit-download", Group: GroupStore, Path: "limits.download", Value: "SIZE", Help: "bytes per second from the store"},
		{Flag: "connections", Group: GroupStore, Path: "limits.connections", Value: "N", Help: "concurrent requests to the store"},
		{Flag: "limit-memory", Group: GroupStore, Path: "limits.memory", Value: "SIZE", Help: "memory to stay below, such as 256MiB"},
		{Flag: "socket", Group: GroupAgent, Path: "socket", Value: "PATH", Help: "control socket (default /run/drover/drover.sock; not root: below $XDG_RUNTIME_DIR)"},
		{Flag: "log-level", Group: GroupAgent, Path: "log.level", Value: "LEVEL", Help: "debug, info, warn or error (default info)"},
		{Flag: "log-format", Group: GroupAgent, Path: "log.format", Value: "text|json", Help: "how the log is written (default text)"},
	}
	for i := range all {
		if all[i].Env == "" {
			all[i].Env = "DROVER_" + strings.ToUpper(strings.ReplaceAll(all[i].Flag, "-", "_"))
		}
	}
	return all
}

// apply sets the key to values that stand at where: a flag or a variable.
func (s Setting) apply(c *Config, where string, values []string) error {
	v := reflect.ValueOf(c).Elem()
	for key := range strings.SplitSeq(s.Path, ".") {
		field, ok := fieldByKey(v, key)
		if !ok {
			return fmt.Errorf("set %s: no key %q", s.Path, key)
		}
		v = field
	}
	c.origin.replace(s.Path, where)
	switch list := v.Addr().Interface().(type) {
	case *[]StatePath:
		*list = nil
		for _, path := range values {
			*list = append(*list, StatePath{Path: path})
		}
		return nil
	case *[]string:
		*list = values
		return nil
	}
	value := values[len(values)-1]
	if b, err := strconv.ParseBool(value); err == nil && v.Kind() == reflect.Bool {
		v.SetBool(b)
		return nil
	}
	err := setText(v, value)
	var bad valueError
	if errors.As(err, &bad) {
		return &Error{Where: where, What: bad.what, Hint: bad.hint}
	}
	return err
}

// split takes a variable's value apart. Line breaks separate; without one, commas do,
// and colons for paths.
func (s Setting) split(value string) []string {
	if !s.Repeat {
		return []string{value}
	}
	separators := ","
	switch {
	case strings.Contains(value, "\n"):
		separators = "\n"
	case s.Path == "state":
		separators = ",:"
	}
	return strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune(separators, r) })
}
