package supervise

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"os"
	"strconv"
	"strings"
)

// Variables that every job gets. All processes that a job starts inherit them,
// which is how those are recognised that left the job's session.
const (
	jobVar = "DROVER_JOB" // the job's name
	runVar = "DROVER_RUN" // random, one for each life of the agent's jobs
)

// secretVars lead to the repository's key. Jobs never get them. The variables of
// the store's credentials (AWS_*) do pass: the application may need its own.
var secretVars = [...]string{"DROVER_PASSWORD", "DROVER_PASSWORD_FILE", "DROVER_PASSWORD_COMMAND"}

// JobEnv returns the environment for a job: environ without what leads to the
// repository's key, and with extra ("NAME=value"), which wins over environ.
func JobEnv(environ, extra []string) []string {
	drop := make(map[string]bool, len(extra)+len(secretVars))
	for _, name := range secretVars {
		drop[name] = true
	}
	for _, e := range extra {
		name, _, _ := strings.Cut(e, "=")
		drop[name] = true
	}
	env := make([]string, 0, len(environ)+len(extra))
	for _, e := range environ {
		if name, _, _ := strings.Cut(e, "="); !drop[name] {
			env = append(env, e)
		}
	}
	for _, e := range extra {
		name, _, _ := strings.Cut(e, "=")
		if !isSecret(name) {
			env = append(env, e)
		}
	}
	return env
}

func isSecret(name string) bool {
	for _, secret := range secretVars {
		if name == secret {
			return true
		}
	}
	return false
}

func (s *Supervisor) environment(j *Job) []string {
	return JobEnv(j.Env, marks(j.Name, s.run))
}

// PutEnv sets what is changed in the environment of runs that start from now on: by
// name, nil takes a variable out. Drover's own names are left alone.
func (s *Supervisor) PutEnv(change map[string]*string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.putEnv = change
}

// put returns a new list: env with what PutEnv changed.
func (s *Supervisor) put(env []string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]string, 0, len(env)+len(s.putEnv)+1)
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		if _, changed := s.putEnv[name]; !changed || strings.HasPrefix(name, "DROVER_") {
			list = append(list, e)
		}
	}
	for name, value := range s.putEnv {
		if value != nil && !strings.HasPrefix(name, "DROVER_") {
			list = append(list, name+"="+*value)
		}
	}
	return list
}

func marks(name, run string) []string {
	return []string{jobVar + "=" + name, runVar + "=" + run}
}

func newRunID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// jobOf is the job that the process was started by, in this life of the agent's jobs;
// "": none. blank: it has no environment, or none that can be read (another user's, or
// it is ending, or in the middle of an exec).
func jobOf(pid int, run string) (job string, blank bool) {
	environ, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil || len(environ) == 0 {
		return "", true
	}
	ours := false
	for e := range bytes.SplitSeq(environ, []byte{0}) {
		if name, ok := bytes.CutPrefix(e, []byte(jobVar+"=")); ok {
			job = string(name)
		}
		ours = ours || string(e) == runVar+"="+run
	}
	if !ours {
		return "", false
	}
	return job, false
}

// hasEnvironment tells whether the process was started with all of these
// variables. A process that cannot be read (another user's) was not.
func hasEnvironment(pid int, want []string) bool {
	environ, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return false
	}
	environ = append([]byte{0}, environ...)
	for _, w := range want {
		if !bytes.Contains(environ, []byte("\x00"+w+"\x00")) {
			return false
		}
	}
	return true
}
