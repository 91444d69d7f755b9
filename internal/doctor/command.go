package doctor

import (
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
)

// Command is what a command line tells of what is started.
type Command struct {
	Program string // the first one's name, without its directory; "": nothing is known
	Shell   bool   // a shell stands in front and stays there
	Simple  bool   // with Shell: it runs one plain command, for which some shells step aside
	Init    bool   // an init process such as tini stands in front
	Drover  bool   // drover run is in it
	First   bool   // and is the first program, an init process aside
}

// Flags are what a command line tells drover run.
type Flags struct {
	State  []string
	Store  string // a URL, which might hold what is no business of a fact
	Config string
	Socket string
}

// ReadCommand reads a command line.
func ReadCommand(argv []string) (c Command, flags Flags) {
	if len(argv) == 0 {
		return c, flags
	}
	if isInit(argv[0]) {
		c.Init = true
		argv = afterInit(argv)
	}
	if len(argv) > 0 && path.Base(argv[0]) == "env" {
		argv = afterEnv(argv)
	}
	if len(argv) == 0 {
		return c, flags
	}
	c.Program = path.Base(argv[0])
	switch {
	case c.Program == "drover":
		c.Drover, c.First = true, true
	case isShell(c.Program):
		argv = c.readShell(argv)
	default: // the image's entry point may be drover
		c.Drover = runsDrover(argv)
	}
	flags.read(argv)
	return c, flags
}

func isShell(name string) bool {
	return slices.Contains([]string{"sh", "bash", "dash", "ash", "zsh", "ksh", "mksh"}, name)
}

// isInit knows init processes that pass signals on.
func isInit(program string) bool {
	return slices.Contains([]string{"tini", "tini-static", "docker-init", "dumb-init", "catatonit", "init", "systemd", "s6-svscan", "pause"}, path.Base(program))
}

// afterInit is what an init process runs: what follows --, or its first operand.
func afterInit(argv []string) []string {
	if i := slices.Index(argv, "--"); i >= 0 {
		return argv[i+1:]
	}
	rest := argv[1:]
	for len(rest) > 0 && strings.HasPrefix(rest[0], "-") {
		rest = rest[1:]
	}
	return rest
}

func afterEnv(argv []string) []string {
	rest := argv[1:]
	for len(rest) > 0 && (strings.HasPrefix(rest[0], "-") || strings.Contains(rest[0], "=")) {
		rest = rest[1:]
	}
	return rest
}

// readShell looks at the script of sh -c, and returns its words. A script in a file is
// not seen: it may exec.
func (c *Command) readShell(argv []string) []string {
	i := slices.IndexFunc(argv, func(arg string) bool {
		return len(arg) > 1 && arg[0] == '-' && arg[1] != '-' && strings.HasSuffix(arg, "c")
	})
	if i < 0 || i+1 == len(argv) {
		c.Drover = runsDrover(argv)
		return argv
	}
	script := argv[i+1]
	words := strings.FieldsFunc(script, func(r rune) bool { return strings.ContainsRune(" \t\n;&|()\"'", r) })
	c.Drover = runsDrover(words)
	c.Shell = !execs(script)
	c.Simple = !strings.ContainsAny(strings.TrimSpace(script), ";&|<>\n(){}`$")
	if c.Drover && !c.Shell && len(words) > 1 && words[0] == "exec" {
		c.First = path.Base(words[1]) == "drover"
	}
	return words
}

// execs says whether the last command of a script takes the shell's place, or the script
// deals with signals itself.
func execs(script string) bool {
	last := ""
	for part := range strings.FieldsFuncSeq(script, func(r rune) bool { return strings.ContainsRune(";&|\n", r) }) {
		words := strings.Fields(part)
		if len(words) > 0 && words[0] == "trap" {
			return true
		}
		if len(words) > 0 && words[0] != "}" && words[0] != "fi" && words[0] != "done" {
			last = words[0]
		}
	}
	return last == "exec"
}

// runsDrover finds drover run among words.
func runsDrover(words []string) bool {
	for i, word := range words {
		if path.Base(word) == "drover" && i+1 < len(words) && words[i+1] == "run" {
			return true
		}
	}
	return false
}

// read takes what it knows of drover run's flags.
func (f *Flags) read(argv []string) {
	for i := 0; i < len(argv) && argv[i] != "--"; i++ {
		name, value, inside := strings.Cut(argv[i], "=")
		if !inside && i+1 < len(argv) {
			value = argv[i+1]
		}
		switch name {
		case "--state":
			f.State = append(f.State, value)
		case "--store":
			f.Store = value
		case "--socket":
			f.Socket = value
		case "-c", "--config":
			f.Config = value
		}
	}
}

// ParseStore takes a store's URL apart; ok is false if it is none.
func ParseStore(text string) (s Store, ok bool) {
	u, err := url.Parse(text)
	if err != nil {
		return Store{}, false
	}
	s.Kind = u.Scheme
	switch u.Scheme {
	case "file":
		s.Dir = path.Clean("/" + u.Path)
		return s, true
	case "s3", "manta":
		if endpoint, err := url.Parse(u.Query().Get("endpoint")); err == nil {
			s.Host = endpoint.Hostname()
		}
		return s, true
	}
	return Store{}, false
}

// local says whether a host's name stands for the machine, or the container, itself.
func local(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.IsLoopback() || addr.IsUnspecified()
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || host == "host.docker.internal" || host == "gateway.docker.internal"
}

// secretWords are what names of secrets have among their words; others look so and are not.
var (
	secretWords = []string{"PASSWORD", "PASSWD", "PASS", "PASSPHRASE", "PWD", "TOKEN", "SECRET", "SECRETS", "KEY", "APIKEY", "CREDENTIALS", "CREDENTIAL"}
	plainEnds   = []string{
		"FILE", "FILES", "PATH", "DIR", "ID", "NAME", "URL", "URI", "HOST", "PORT", "USER", "USERNAME", "COMMAND", "CMD", "TTL", "EXPIRY", "EXPIRATION",
		"EXPIRES", "TIMEOUT", "LENGTH", "SIZE", "TYPE", "ALGORITHM", "ALGO", "POLICY", "ENABLED", "REQUIRED", "VERSION", "FINGERPRINT", "BACKEND", "PREFIX", "HEADER", "ISSUER", "ROUNDS",
	}
	plainValues = []string{"", "true", "false", "yes", "no", "on", "off", "0", "1", "none", "null"}
)

// IsSecret says whether a variable holds a secret, and whether that is in a URL. It judges
// by the name, and by values that are plainly none.
func IsSecret(name, value string) (secret, inURL bool) {
	if slices.Contains(plainValues, strings.ToLower(value)) || strings.HasPrefix(value, "/run/secrets/") {
		return false, false
	}
	if secretName(name) {
		return true, false
	}
	if i := strings.Index(value, "://"); i > 0 {
		authority, _, _ := strings.Cut(value[i+3:], "/")
		if at := strings.LastIndexByte(authority, '@'); at > 0 {
			_, password, _ := strings.Cut(authority[:at], ":")
			return password != "", password != ""
		}
	}
	return false, false
}

func secretName(name string) bool {
	if name == "PWD" || name == "OLDPWD" {
		return false // the working directory
	}
	words := strings.FieldsFunc(strings.ToUpper(name), func(r rune) bool { return r == '_' || r == '-' || r == '.' })
	if len(words) == 0 || slices.Contains(plainEnds, words[len(words)-1]) {
		return false
	}
	for _, plain := range []string{"PUBLIC", "PUB", "GPG", "PGP"} { // GPG_KEY is whose signature is checked
		if slices.Contains(words, plain) {
			return false
		}
	}
	for _, end := range []string{"PASSWORD", "PASSWD", "TOKEN", "SECRET", "APIKEY", "SECRETKEY"} {
		if slices.ContainsFunc(words, func(w string) bool { return strings.HasSuffix(w, end) }) {
			return true
		}
	}
	if i := slices.Index(words, "KEY"); i >= 0 && i != len(words)-1 {
		words = slices.DeleteFunc(words, func(w string) bool { return w == "KEY" }) // KEY_SPACING is none
	}
	return slices.ContainsFunc(words, func(w string) bool { return slices.Contains(secretWords, w) })
}
