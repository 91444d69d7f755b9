package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// FileEnv is the variable that names the configuration file.
const FileEnv = "DROVER_CONFIG"

// DefaultFiles are looked for, in this order, when no file is named.
func DefaultFiles() []string { return []string{"drover.yaml", "/etc/drover/drover.yaml"} }

// Sources is where a configuration comes from. Nil functions mean the process's own.
type Sources struct {
	File     string                      // named by -c; "": DROVER_CONFIG, else the first of Files that exists
	Files    []string                    // nil: DefaultFiles
	Env      func(string) (string, bool) // nil: os.LookupEnv
	Flags    map[string][]string         // values of the flags that were given, by name
	Command  []string                    // what stands after --: becomes the main job
	UID      func() int                  // nil: os.Getuid
	Hostname func() (string, error)      // nil: os.Hostname
}

func (s Sources) withDefaults() Sources {
	if s.Files == nil {
		s.Files = DefaultFiles()
	}
	if s.Env == nil {
		s.Env = os.LookupEnv
	}
	if s.UID == nil {
		s.UID = os.Getuid
	}
	if s.Hostname == nil {
		s.Hostname = os.Hostname
	}
	return s
}

// Load reads and checks a configuration. What any use of it needs beyond that,
// CheckStore and CheckRun say.
func Load(src Sources) (*Config, error) {
	c, err := src.withDefaults().read()
	if err == nil {
		err = c.check()
	}
	if err != nil {
		return nil, c.made.hide(err)
	}
	return c, nil
}

// read takes all sources together, unchecked. The Config is never nil.
func (s Sources) read() (*Config, error) {
	c := Default()
	for _, step := range []func(*Config) error{s.readFile, s.applySettings, s.addCommand, s.fillIn} {
		if err := step(c); err != nil {
			return c, err
		}
	}
	return c, nil
}

// Problems is what keeps an agent from running with a configuration, each an Error: of
// what cannot be read the first, of what was read every one that no other hides.
func Problems(src Sources) []error {
	c, err := src.withDefaults().read()
	if err != nil {
		return []error{c.made.hide(err)}
	}
	var problems []error
	for _, check := range append(c.checks(), c.CheckRun) {
		if err := check(); err != nil {
			problems = append(problems, c.made.hide(err))
		}
	}
	return problems
}

// readFile decodes the file, if there is one.
func (s Sources) readFile(c *Config) error {
	name, data, err := s.findFile()
	if err != nil || name == "" {
		return err
	}
	return s.decode(c, name, data)
}

// findFile reads the file; without one, name is "".
func (s Sources) findFile() (name string, data []byte, err error) {
	name, named := s.File, "-c"
	if name == "" {
		name, _ = s.Env(FileEnv)
		named = FileEnv
	}
	if name != "" {
		data, err := readBounded(name)
		if err != nil {
			return "", nil, &Error{Where: named, What: "cannot read " + reason(err)}
		}
		return name, data, nil
	}
	for _, name := range s.Files {
		data, err := readBounded(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", nil, &Error{Where: name, What: "cannot read " + reason(err)}
		}
		return name, data, nil
	}
	return "", nil, nil
}

// readBounded reads at most a little more than a configuration may be.
func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}

// reason is the file and what the system says about it, without the system call.
func reason(err error) string {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Path + ": " + at.Err.Error()
	}
	return err.Error()
}

// applySettings puts the environment and then the flags over what the file says.
func (s Sources) applySettings(c *Config) error {
	settings := Settings()
	var given []string
	for _, setting := range settings {
		value, ok := s.Env(setting.Env)
		if !ok || value == "" {
			continue
		}
		given = append(given, setting.Path)
		if err := setting.apply(c, setting.Env, setting.split(value)); err != nil {
			return err
		}
	}
	c.supersedePassword(given)
	given = nil
	for _, setting := range settings {
		values := s.Flags[setting.Flag]
		if setting.Flag == "" || len(values) == 0 {
			continue
		}
		given = append(given, setting.Path)
		if err := setting.apply(c, "--"+setting.Flag, values); err != nil {
			return err
		}
	}
	c.supersedePassword(given)
	return nil
}

// supersedePassword forgets the ways to a password of lower sources once a higher one
// gave any of them.
func (c *Config) supersedePassword(given []string) {
	higher := map[string]bool{}
	for _, path := range given {
		higher[path] = true
	}
	if !higher["store.password"] && !higher["store.password_file"] && !higher["store.password_command"] {
		return
	}
	if !higher["store.password"] {
		c.Store.Password = Secret{}
	}
	if !higher["store.password_file"] {
		c.Store.PasswordFile = ""
	}
	if !higher["store.password_command"] {
		c.Store.PasswordCommand = nil
	}
}

// addCommand makes the command after -- the main job.
func (s Sources) addCommand(c *Config) error {
	if len(s.Command) == 0 {
		if len(c.Jobs) == 1 {
			for name, job := range c.Jobs {
				// The first end of one that runs by turns would be the instance's.
				job.Main = job.Main || !job.Every.Set()
				c.Jobs[name] = job
			}
		}
		return nil
	}
	if name, _, ok := c.Main(); ok {
		return c.origin.at("jobs."+name, fmt.Sprintf("job %q is main already", name), "take it out, or the command after --")
	}
	if _, ok := c.Jobs[MainJob]; ok {
		return c.origin.at("jobs."+MainJob, fmt.Sprintf("job %q has the name of the command after --", MainJob), "rename it")
	}
	if c.Jobs == nil {
		c.Jobs = map[string]Job{}
	}
	job := DefaultJob()
	job.Command, job.Main = s.Command, true
	c.Jobs[MainJob] = job
	c.origin["jobs."+MainJob] = "--"
	return nil
}

// fillIn sets what depends on the machine and the user.
func (s Sources) fillIn(c *Config) error {
	if c.ID == "" {
		id, err := s.Hostname()
		if err != nil {
			return fmt.Errorf("read host name: %w", err)
		}
		c.ID = strings.ToValidUTF8(id, "_")
	}
	if c.Socket == "" {
		c.Socket = s.directory("/run", "XDG_RUNTIME_DIR", "", "drover", "drover.sock")
	}
	if c.DataDir == "" {
		c.DataDir = s.directory("/var/lib", "XDG_STATE_HOME", ".local/state", "drover")
	}
	c.DataDir = filepath.Clean(c.DataDir)
	for i, path := range c.State {
		if path.Path != "" {
			c.State[i].Path = filepath.Clean(path.Path)
		}
	}
	return nil
}

// directory is below root's directory for root, for others below the one that the
// variable names, else that in their home, else one of their own below the temporary
// directory.
func (s Sources) directory(root, variable, inHome string, elements ...string) string {
	base := root
	if uid := s.UID(); uid != 0 {
		xdg, _ := s.Env(variable)
		home, _ := s.Env("HOME")
		switch {
		case filepath.IsAbs(xdg):
			base = xdg
		case inHome != "" && filepath.IsAbs(home):
			base = filepath.Join(home, inHome)
		default:
			base = filepath.Join(os.TempDir(), fmt.Sprintf("drover-%d", uid))
		}
	}
	return filepath.Join(append([]string{base}, elements...)...)
}
