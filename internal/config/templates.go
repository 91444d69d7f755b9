package config

import (
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// Template is one file that is made of keys, services and secrets.
type Template struct {
	Source      string    `yaml:"source" doc:"File of the template."`
	Content     string    `yaml:"content" doc:"The template itself. Its delimiters are [[ and ]], since {{ and }} are those of this file."`
	Destination string    `yaml:"destination" doc:"File to write, an absolute path outside of the state paths."`
	User        string    `yaml:"user" doc:"Owner of the file, name or number. Default: that of the file in place, else the agent's."`
	Group       string    `yaml:"group" doc:"Group of the file, name or number."`
	Mode        FileMode  `yaml:"mode" doc:"Its permissions, octal."`
	Backup      bool      `yaml:"backup" doc:"Keep the file that is replaced, with .bak behind its name."`
	MakeDirs    bool      `yaml:"make_dirs" doc:"Make its directories where they are missing."`
	OnDisk      bool      `yaml:"on_disk" doc:"Allow a template that reads secrets to be written to a disk. Else its file must be on a tmpfs."`
	Delimiters  Names     `yaml:"delimiters" doc:"The left and the right delimiter. Default: {{ and }} with source, [[ and ]] with content."`
	Strict      bool      `yaml:"error_on_missing" doc:"It is an error to read a field of a map that the map does not have."`
	Deny        Names     `yaml:"deny" doc:"Functions that may not be called; * stands for anything."`
	Sandbox     string    `yaml:"sandbox" doc:"Directory that the function file must not leave."`
	Wait        WaitTimes `yaml:"wait" doc:"How long it must have been quiet before it is rendered: a time, or a mapping."`
	Deadline    Duration  `yaml:"deadline" doc:"After how long it is told that something is missing. 0: never."`
	Check       Hook      `yaml:"check" doc:"Command that must succeed before the file is replaced. {file} in its arguments is the new file, and $DROVER_FILE is, too."`
	OnChange    OnChange  `yaml:"on_change" doc:"What follows when the file has changed; at most one."`
	Roll        RollOf    `yaml:"roll" doc:"Change so many instances at a time, and stop when one turns unhealthy: a number, or a mapping."`
}

// WaitTimes is a quiescence.
type WaitTimes struct {
	Min Duration `yaml:"min" doc:"It must have been quiet for so long."`
	Max Duration `yaml:"max" doc:"It is rendered after so long however unquiet it was. Default: four times min."`
}

func (WaitTimes) short() string { return "min" }

// OnChange is what follows a new file; one of the first four is given.
type OnChange struct {
	Signal  string   `yaml:"signal" doc:"Job that gets the signal of with."`
	With    Signal   `yaml:"with" doc:"The signal. Default: HUP."`
	Restart string   `yaml:"restart" doc:"Job that is restarted."`
	Reload  Command  `yaml:"reload" doc:"Command that is run: a list, or a string for /bin/sh."`
	Run     string   `yaml:"run" doc:"Job that is run."`
	Timeout Duration `yaml:"timeout" doc:"Of the command."`
}

// RollOf says how many instances may change at a time.
type RollOf struct {
	Limit   int      `yaml:"limit" doc:"At most so many change at a time. 0: all, whenever they like."`
	Name    string   `yaml:"name" doc:"Templates with the same name take turns together. Default: the template's name."`
	Settle  Duration `yaml:"settle" doc:"An instance must have been healthy for so long after its change before the next one begins."`
	Timeout Duration `yaml:"timeout" doc:"It has failed when it is not healthy after so long."`
}

func (RollOf) short() string { return "limit" }

// FileMode is the permissions of a file.
type FileMode fs.FileMode

// String is octal.
func (m FileMode) String() string { return fmt.Sprintf("%#o", uint32(m)) }

// MarshalText writes what UnmarshalText reads.
func (m FileMode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads an octal number.
func (m *FileMode) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 8, 32)
	if err != nil || n == 0 || n > 0o777 {
		return valueError{fmt.Sprintf("%q are no permissions", text), "write them as 0640"}
	}
	*m = FileMode(n)
	return nil
}

// DefaultTemplate is a template that only has a name.
func DefaultTemplate() Template {
	return Template{
		Mode: 0o600, MakeDirs: true, Check: Hook{Timeout: Duration(30 * time.Second)},
		OnChange: OnChange{With: "HUP", Timeout: Duration(30 * time.Second)},
		Roll:     RollOf{Settle: Duration(10 * time.Second), Timeout: Duration(5 * time.Minute)},
	}
}

func (c *Config) checkTemplates() error {
	for _, name := range slices.Sorted(maps.Keys(c.Templates)) {
		t, at := c.Templates[name], "templates."+name
		if !validName(name) {
			return c.origin.at(at, fmt.Sprintf("template name %q is not valid", name), nameHint)
		}
		if err := c.checkTemplate(at, name, t); err != nil {
			return err
		}
		if err := c.checkOnChange(at+".on_change", name, t.OnChange); err != nil {
			return err
		}
		for other, o := range c.Templates {
			if other < name && filepath.Clean(o.Destination) == filepath.Clean(t.Destination) {
				return c.origin.at(at+".destination", fmt.Sprintf("templates %q and %q write the same file", other, name), "give each its own")
			}
		}
	}
	return nil
}

// checkWait checks what holds for all templates.
func (c *Config) checkWait() error {
	if c.Wait.Max != 0 && c.Wait.Max < c.Wait.Min {
		return c.origin.at("wait.max", "max is less than min", "")
	}
	return nil
}

func (c *Config) checkTemplate(at, name string, t Template) error {
	switch {
	case (t.Source == "") == (t.Content == ""):
		return c.origin.at(at, fmt.Sprintf("template %q has no text, or two", name), "give it one of source and content")
	case t.Source != "" && !filepath.IsAbs(t.Source):
		return c.origin.at(at+".source", fmt.Sprintf("source %q is not absolute", t.Source), "begin it with a slash")
	case !filepath.IsAbs(t.Destination):
		return c.origin.at(at+".destination", fmt.Sprintf("destination %q is not absolute", t.Destination), "begin it with a slash")
	case len(t.Delimiters) != 0 && (len(t.Delimiters) != 2 || t.Delimiters[0] == "" || t.Delimiters[1] == ""):
		return c.origin.at(at+".delimiters", fmt.Sprintf("template %q has %d delimiters", name, len(t.Delimiters)), `write two, as ["[[", "]]"]`)
	case t.Wait.Max != 0 && t.Wait.Max < t.Wait.Min:
		return c.origin.at(at+".wait.max", "max is less than min", "")
	case t.Check.Timeout <= 0:
		return c.origin.at(at+".check.timeout", "the check has no time", "write a timeout such as 30s")
	case t.Roll.Limit < 0:
		return c.origin.at(at+".roll.limit", fmt.Sprintf("limit %d is negative", t.Roll.Limit), "write 1 or more, or 0 for no turns")
	case t.Roll.Limit > 0 && (t.Roll.Settle <= 0 || t.Roll.Timeout < t.Roll.Settle):
		return c.origin.at(at+".roll", "settle and timeout do not fit", "write a settle above 0, and a timeout above that")
	case t.Roll.Name != "" && !validName(t.Roll.Name):
		return c.origin.at(at+".roll.name", fmt.Sprintf("roll name %q is not valid", t.Roll.Name), nameHint)
	}
	for _, s := range c.State {
		if overlap(s.Path, filepath.Clean(t.Destination)) {
			return c.origin.at(at+".destination", fmt.Sprintf("destination %q is inside state path %q, and a restore would remove it", t.Destination, s.Path), "write it elsewhere")
		}
	}
	return nil
}

func (c *Config) checkOnChange(at, name string, o OnChange) error {
	given := 0
	for _, job := range []string{o.Signal, o.Restart, o.Run} {
		if job == "" {
			continue
		}
		given++
		if _, ok := c.Jobs[job]; !ok {
			return c.origin.at(at, fmt.Sprintf("template %q changes %q, which is no job", name, job), c.meantJob(job))
		}
	}
	if len(o.Reload) > 0 {
		given++
	}
	switch {
	case given > 1:
		return c.origin.at(at, fmt.Sprintf("%d things follow a change of template %q", given, name), "keep one of signal, restart, reload and run")
	case o.Timeout <= 0:
		return c.origin.at(at+".timeout", "the command has no time", "write a timeout such as 30s")
	}
	return nil
}
