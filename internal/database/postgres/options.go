package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Options of a member. They do not change while the driver lives; passwords are asked for each time.
type Options struct {
	// Data is the database's directory. It must not be a mount point: it is exchanged for another one, in its
	// parent, which must therefore be writable; what stands there beside it has its name and a suffix.
	Data string
	// Run is a directory of the agent's for sockets, generated configuration and password files. The
	// system limits a socket's path to 107 bytes.
	Run string
	// Bin has PostgreSQL's programs. Empty: that of the files' version under /usr/lib/postgresql, or the newest.
	Bin string
	// Listen is listen_addresses; empty: all.
	Listen string
	Port   int // 0: 5432
	// User runs the server and its programs, which refuse to be root. Nil: as the agent.
	User *syscall.Credential

	Superuser   Role // the agent's own
	Replication Role
	Rewind      Role // may read files, and make a checkpoint

	// TLS is how members reach one another. Nil: in the clear, unless Parameters say otherwise.
	TLS *TLS

	// Parameters of the server, as the user wants them.
	Parameters map[string]string
	// HBA are lines of pg_hba.conf, after those for the agent and replicas. Nil: host all all all scram-sha-256.
	HBA []string
	// ArchiveCommand and RestoreCommand, as PostgreSQL runs them. Empty: none.
	ArchiveCommand string
	RestoreCommand string
	// SourceCommand is the restore command of a server that applies another cluster's archive. Empty: there is none to apply.
	SourceCommand string
	// ArchivePending stores what an ended server left unarchived, before Rewind throws it away. Nil: nothing is done.
	ArchivePending func(ctx context.Context) error
	// Taken tells of the timelines that follow one which is known, and are taken elsewhere, the texts of their histories. It is asked
	// before a promotion. Nil: nobody is asked.
	Taken func(ctx context.Context, known uint32) (map[uint32]string, error)
	// Delay is how long after their commit a replica applies transactions.
	Delay time.Duration
	// InitArgs are further arguments of initdb.
	InitArgs []string
	// Nice is the nice value of the programs that the driver itself runs.
	Nice int
	// DiskTimeout is after how long a write counts as hung, and a replica that says nothing as gone; 0: 5 s.
	DiskTimeout time.Duration
}

// Role is a user of the database.
type Role struct {
	Name     string
	Password func() string
}

const defaultHBA = "host all all all scram-sha-256"

var (
	roleName      = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)
	parameterName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_$]*)?$`)
	// memberID is what PostgreSQL's application_name holds unchanged, and what may be a part of a file's name. "-" alone
	// is nobody's: it stands for the replica that a strict primary without replicas waits for.
	memberID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$`)
	// keywords of pg_hba.conf that a role's name would be taken for.
	keywords = []string{"all", "replication", "sameuser", "samerole", "samegroup"}
)

// check says what is wrong with the options, and fills in what is not given.
func (o *Options) check() error {
	if o.Port == 0 {
		o.Port = 5432
	}
	if o.Listen == "" {
		o.Listen = "*"
	}
	if o.HBA == nil {
		o.HBA = []string{defaultHBA}
	}
	if o.DiskTimeout == 0 {
		o.DiskTimeout = 5 * time.Second
	}
	for what, dir := range map[string]string{"data": o.Data, "run": o.Run} {
		if !filepath.IsAbs(dir) || filepath.Clean(dir) != dir || dir == "/" || unprintable(dir) {
			return fmt.Errorf("the %s directory %q is no absolute, clean path", what, dir)
		}
	}
	if socket := filepath.Join(o.Run, fmt.Sprintf(".s.PGSQL.%d.lock", o.Port)); len(socket) > 107 {
		return fmt.Errorf("the path of the socket %s has %d bytes, more than the system's 107", socket, len(socket))
	}
	if strings.ContainsAny(o.Run, `,"`) {
		return fmt.Errorf("the run directory %q has a comma or quotes in its name, which PostgreSQL takes for two", o.Run)
	}
	return errors.Join(o.checkRoles(), o.checkParameters(), o.checkHBA())
}

func (o *Options) checkRoles() error {
	if o.TLS != nil && o.TLS.Certificates == nil {
		return errors.New("TLS has no certificates")
	}
	names := []string{}
	for _, r := range []Role{o.Superuser, o.Replication, o.Rewind} {
		switch {
		case !roleName.MatchString(r.Name), strings.HasPrefix(r.Name, "pg_"), slices.Contains(keywords, r.Name):
			return fmt.Errorf("%q cannot be the name of a role here: lower-case letters, digits and _, not beginning with pg_, and no keyword of pg_hba.conf", r.Name)
		case r.Password == nil:
			return fmt.Errorf("the role %s has no password", r.Name)
		case slices.Contains(names, r.Name):
			return fmt.Errorf("the role %s has two purposes", r.Name)
		}
		names = append(names, r.Name)
	}
	return nil
}

func (o *Options) checkParameters() error {
	for _, name := range slices.Sorted(maps.Keys(o.Parameters)) {
		switch lower := strings.ToLower(name); {
		case !parameterName.MatchString(name):
			return badParameter(name, "%q is no name of a parameter", name)
		case strings.HasPrefix(lower, "include"): // a directive, with or without an equals sign
			return badParameter(name, "%s is no parameter: files are included by postgresql.conf in the data directory", name)
		case lower == "recovery_min_apply_delay":
			return badParameter(name, "the parameter %s is the tag delayed", name)
		case o.forced(lower) || strings.HasPrefix(lower, namespace):
			return badParameter(name, "the parameter %s is set by the agent", name)
		case strings.ContainsAny(o.Parameters[name], "\x00"):
			return badParameter(name, "the value of %s has a NUL in it", name)
		}
	}
	if err := o.checkTogether(); err != nil {
		return err
	}
	for what, command := range map[string]string{"archive": o.ArchiveCommand, "restore": o.RestoreCommand, "source": o.SourceCommand} {
		if strings.ContainsAny(command, "\x00") {
			return fmt.Errorf("the %s command has a NUL in it", what)
		}
	}
	return nil
}

func (o *Options) checkHBA() error {
	for i, line := range o.HBA {
		if strings.ContainsAny(line, "\n\r\x00") || strings.HasSuffix(strings.TrimRight(line, " \t"), `\`) {
			return &SettingError{fmt.Sprintf("hba[%d]", i), fmt.Sprintf("%q is not one line of pg_hba.conf", line)}
		}
	}
	return nil
}

// host is an address that a connection string can name.
func checkHost(host string) error {
	if host == "" || unprintable(host) || strings.ContainsAny(host, ", '\\/@") {
		return fmt.Errorf("%q is no host", host)
	}
	if ip := net.ParseIP(strings.Trim(host, "[]")); ip == nil && strings.Contains(host, ":") {
		return fmt.Errorf("%q is no host", host)
	}
	return nil
}

func unprintable(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}
