// Package instance looks at the instance that it runs in: what is mounted, which
// process is the first and which one the agent, what is in their environment, how much
// memory there is.
//
// It promises: it reads /proc and /sys alone, starts nothing and asks nobody; what
// cannot be read is left open; no value of the environment leaves it except settings of
// Drover that are no secrets.
//
// It leaves to others: what the agent says of itself (package client), and what the
// facts mean (package doctor).
package instance

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"drover/internal/doctor"
)

// Sight is what was seen of an instance.
type Sight struct {
	root      string // of the file system that is looked at
	container bool
	mounts    []doctor.Mount
	pid       int            // of the agent, 0 if none was found
	environ   []string       // of the agent, else of a container's first process, else of this one
	environAt string         // "" if it is the environment of a machine's user, who is no instance
	first     doctor.Command // of PID 1
	agent     doctor.Flags
	cwd       string // the agent's
	deaf      bool
	powers    bool
	memory    doctor.Memory
	unread    []doctor.Item
}

// capSysModule is the capability to load kernel modules (capabilities(7)), which only
// a privileged container has.
const capSysModule = 16

// sigTerm is TERM's bit in the masks of /proc/PID/status.
const sigTerm = 1 << (15 - 1)

// Look looks around, below root: "/" but for tests. env is this process's environment.
func Look(root string, env []string) (*Sight, error) {
	s := &Sight{root: root, environ: env}
	text, err := s.read("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("look at the mounts: %w", err)
	}
	mounts := parseMounts(text)
	for _, m := range mounts {
		if known, ok := m.classify(); ok {
			s.mounts = append(s.mounts, known)
		}
	}
	if s.container = s.inContainer(mounts); s.container {
		s.environAt = "this process's environment"
	}
	s.findAgent()
	s.readFirst()
	s.readEnviron()
	s.memory = s.readMemory()
	return s, nil
}

func (s *Sight) read(name string) (string, error) {
	data, err := os.ReadFile(filepath.Join(s.root, name))
	return string(data), err
}

func (s *Sight) exists(name string) bool {
	_, err := os.Lstat(filepath.Join(s.root, name))
	return err == nil
}

// inContainer goes by what engines leave: a file, a variable, a root of layers.
func (s *Sight) inContainer(mounts []mount) bool {
	if s.exists("/.dockerenv") || s.exists("/run/.containerenv") {
		return true
	}
	for _, v := range s.environ {
		if strings.HasPrefix(v, "KUBERNETES_SERVICE_HOST=") || strings.HasPrefix(v, "container=") {
			return true
		}
	}
	return slices.ContainsFunc(mounts, func(m mount) bool { return m.point == "/" && strings.HasSuffix(m.fstype, "overlay") })
}

// argv is a process's command line.
func (s *Sight) argv(pid int) []string {
	text, err := s.read(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || text == "" {
		return nil
	}
	return strings.Split(strings.TrimRight(text, "\x00"), "\x00")
}

// findAgent finds the shim or, if that cannot be seen, the worker: the first of them.
func (s *Sight) findAgent() {
	entries, err := os.ReadDir(filepath.Join(s.root, "/proc"))
	if err != nil {
		return
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	for _, pid := range pids {
		argv := s.argv(pid)
		if len(argv) > 1 && path.Base(argv[0]) == "drover" && slices.Contains(argv[1:], "run") {
			s.pid = pid
			_, s.agent = doctor.ReadCommand(argv)
			s.cwd, _ = os.Readlink(filepath.Join(s.root, fmt.Sprintf("/proc/%d/cwd", pid)))
			return
		}
	}
}

// readFirst looks at PID 1: what it is, whether it hears TERM, what it may do.
func (s *Sight) readFirst() {
	s.first, _ = doctor.ReadCommand(s.argv(1))
	status, err := s.read("/proc/1/status")
	if err != nil {
		return
	}
	mask := func(name string) (uint64, bool) {
		for line := range strings.Lines(status) {
			if text, ok := strings.CutPrefix(line, name+":"); ok {
				n, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
				return n, err == nil
			}
		}
		return 0, false
	}
	caught, known := mask("SigCgt")
	blocked, _ := mask("SigBlk") // and then waited for: tini's way
	s.deaf = known && (caught|blocked)&sigTerm == 0
	powers, known := mask("CapEff")
	s.powers = known && powers&(1<<capSysModule) != 0
}

// readEnviron reads the agent's environment, else the first process's, else keeps ours.
func (s *Sight) readEnviron() {
	pid := s.pid
	if pid == 0 && s.container {
		pid = 1
	}
	if pid == 0 {
		return
	}
	name := fmt.Sprintf("/proc/%d/environ", pid)
	text, err := s.read(name)
	if err != nil {
		why := err.Error()
		var at *fs.PathError
		if errors.As(err, &at) {
			why = at.Err.Error()
		}
		s.unread = append(s.unread, doctor.Item{Value: "the environment of process " + strconv.Itoa(pid) + " cannot be read (" + why + ")", Where: name})
		return
	}
	s.environ, s.environAt = strings.Split(strings.TrimRight(text, "\x00"), "\x00"), name
}

// Env is the environment that was seen.
func (s *Sight) Env(name string) (string, bool) {
	for _, v := range slices.Backward(s.environ) {
		if text, ok := strings.CutPrefix(v, name+"="); ok {
			return text, true
		}
	}
	return "", false
}

// Settings are what the agent's command line says, by flag, and its configuration file.
func (s *Sight) Settings() (flags map[string][]string, config string) {
	flags = map[string][]string{}
	if len(s.agent.State) > 0 {
		flags["state"] = s.agent.State
	}
	if s.agent.Store != "" {
		flags["store"] = []string{s.agent.Store}
	}
	if s.agent.Socket != "" {
		flags["socket"] = []string{s.agent.Socket}
	}
	if config = s.agent.Config; config != "" && !path.IsAbs(config) && s.cwd != "" {
		config = path.Join(s.cwd, config)
	}
	return flags, config
}

// Facts are the facts of the instance. known has what is not seen but told: service,
// instance, state, store and the times of Grace.
func (s *Sight) Facts(known doctor.Facts) doctor.Facts {
	f := known
	f.Where = "/proc/1"
	f.Container, f.Mounts, f.Command, f.Entry = s.container, s.mounts, s.first, "/proc/1/cmdline"
	f.Drover = f.Drover || s.pid != 0
	f.Grace.Where = "/proc/1"
	f.Memory = s.memory
	f.Deaf = s.deaf && s.container
	f.Unread = append(f.Unread, s.unread...)
	if s.container && s.powers {
		f.Privileged = doctor.Item{Value: "true", Where: "/proc/1/status"}
	}
	for _, p := range known.State { // the kernel knows the place behind a symbolic link alone
		if real, err := filepath.EvalSymlinks(filepath.Join(s.root, p)); err == nil {
			if rel, err := filepath.Rel(s.root, real); err == nil && !slices.Contains(f.State, "/"+rel) && rel != "." {
				f.State = append(f.State[:len(f.State):len(f.State)], "/"+rel)
			}
		}
	}
	f.Secrets = s.secrets()
	if !s.container && len(f.State) == 0 {
		f.Unread = append(f.Unread, doctor.Item{Value: "no state path is known: give --state, or -c", Where: "/proc/self/mountinfo"})
	}
	return f
}

// secrets are the variables that hold one; of two of one name the last one counts.
func (s *Sight) secrets() []doctor.Secret {
	if s.environAt == "" {
		return nil
	}
	last := map[string]string{}
	for _, v := range s.environ {
		name, value, _ := strings.Cut(v, "=")
		last[name] = value
	}
	var all []doctor.Secret
	for _, v := range s.environ {
		name, _, _ := strings.Cut(v, "=")
		value, ok := last[name]
		delete(last, name)
		if secret, inURL := doctor.IsSecret(name, value); ok && secret {
			all = append(all, doctor.Secret{Name: name, InURL: inURL, Where: s.environAt})
		}
	}
	return all
}
