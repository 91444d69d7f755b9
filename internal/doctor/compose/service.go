package compose

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"drover/internal/doctor"
)

// service is one that is being read.
type service struct {
	r     *reader
	p     *project
	n     *node
	f     *doctor.Facts
	env   []variable
	flags doctor.Flags
	img   image // what its Dockerfile says, if there is one here
}

// facts reads one service; names are those by which it is found on networks.
func (r *reader) facts(p *project, e entry) (f doctor.Facts, names []string) {
	f = doctor.Facts{Service: e.key, Where: e.at, HealthAt: e.at, RestartAt: e.at, Entry: e.at}
	f.Grace.Where, f.Grace.Took, f.Memory.Where = e.at, r.opt.Took, e.at
	s := &service{r: r, p: p, n: e.value, f: &f}
	s.readImage()
	s.readEnv()
	s.readCommand()
	s.readDrover()
	s.readMounts()
	s.readLife()
	s.readHealth()
	s.readLimits()
	s.readHost()
	return f, s.hostNames()
}

// text is a single value with its variables filled in; ok is false if there is none.
func (s *service) text(keys ...string) (doctor.Item, value, bool) {
	n := s.n.path(keys...)
	if n == nil || n.kind != scalar {
		return doctor.Item{}, value{}, false
	}
	v := s.r.x.expand(n.text)
	return doctor.Item{Value: v.text, Where: n.at}, v, true
}

// words are a list's texts, or those of a single value.
func (s *service) words(n *node) []doctor.Item {
	var all []doctor.Item
	for _, item := range n.each() {
		if item.kind == scalar {
			all = append(all, doctor.Item{Value: s.r.x.expand(item.text).text, Where: item.at})
		}
	}
	return all
}

func (s *service) unread(what, where string) {
	s.f.Unread = append(s.f.Unread, doctor.Item{Value: what, Where: where})
}

// readEnv collects the variables: the image's, those of env_file, and above them those
// of environment.
func (s *service) readEnv() {
	s.env = append(s.env, s.img.env...)
	for _, item := range s.n.get("env_file").each() {
		path, required := item, true
		if item.kind == mapping {
			path = item.get("path")
			required = path != nil && (item.get("required") == nil || item.get("required").text != "false")
		}
		if path == nil || path.kind != scalar {
			continue
		}
		name := beside(s.p.name, s.r.x.expand(path.text).text)
		data, err := s.r.open(name)
		switch {
		case err == nil && len(data) > maxFile:
			s.unread("the environment file "+name+" is too large", path.at)
		case err == nil:
			s.env = append(s.env, parseEnv(name, data, s.r.x)...)
		case required:
			s.unread("the environment file "+name+" cannot be read: "+reason(err), path.at)
		}
	}
	if n := s.n.get("environment"); n != nil {
		for _, e := range asMapping(n).keys {
			v := variable{name: e.key, at: e.at}
			if e.value.kind == scalar {
				v.value, v.set = s.r.x.expand(e.value.text), true
			}
			s.env = append(s.env, v)
		}
	}
	last := map[string]int{}
	for i, v := range s.env {
		last[v.name] = i
	}
	for i, v := range s.env {
		if last[v.name] != i {
			continue
		}
		s.readSecret(v)
		if strings.HasPrefix(v.name, "DROVER_") {
			s.f.Drover = true
		}
	}
}

func (s *service) readSecret(v variable) {
	text, origin := v.value.text, v.value.origin
	if !v.set || !v.value.whole { // it comes from elsewhere, and is not known here
		text, origin = "?", doctor.Referred
	}
	if secret, inURL := doctor.IsSecret(v.name, text); secret {
		s.f.Secrets = append(s.f.Secrets, doctor.Secret{Name: v.name, Origin: origin, InURL: inURL, Where: v.at})
	}
}

// variable returns the value that counts.
func (s *service) variable(name string) (variable, bool) {
	for _, v := range slices.Backward(s.env) {
		if v.name == name {
			return v, v.set && v.value.text != ""
		}
	}
	return variable{}, false
}

// readCommand reads what is started: the entry point and its arguments. What stands in
// neither the file nor a Dockerfile is the image's, and not known.
func (s *service) readCommand() {
	entry, entryAt, given := s.argv("entrypoint")
	command, commandAt, hasCommand := s.argv("command")
	if !given {
		entry, entryAt = s.img.entry.argv, s.img.entry.at
	}
	if !hasCommand && !given {
		command, commandAt = s.img.command.argv, s.img.command.at
	}
	switch {
	case entryAt != "":
		s.f.Entry = entryAt
	case commandAt != "":
		s.f.Entry = commandAt
	}
	s.f.Command, s.flags = doctor.ReadCommand(append(entry[:len(entry):len(entry)], command...))
	s.f.Drover = s.f.Drover || s.f.Command.Drover
	if init := s.n.get("init"); init != nil {
		s.f.Init = init.text == "true"
	}
}

// argv is the command line of a key. Compose splits a text as a shell would, without one.
func (s *service) argv(key string) (words []string, at string, given bool) {
	n := s.n.get(key)
	if n == nil || n.kind == null {
		return nil, "", false
	}
	if n.kind == scalar {
		return split(s.r.x.expand(n.text).text), n.at, true
	}
	for _, item := range s.words(n) {
		words = append(words, item.Value)
	}
	return words, n.at, true
}

// split takes a command line apart as a shell does: blanks, quotes, backslashes.
func split(line string) []string {
	var words []string
	var word strings.Builder
	var quote rune
	in, escaped := false, false
	for _, c := range line {
		switch {
		case escaped:
			word.WriteRune(c)
			escaped = false
		case c == '\\' && quote != '\'':
			in, escaped = true, true
		case quote != 0:
			if c == quote {
				quote = 0
			} else {
				word.WriteRune(c)
			}
		case c == '\'' || c == '"':
			in, quote = true, c
		case c == ' ' || c == '\t' || c == '\n':
			if in {
				words = append(words, word.String())
			}
			word.Reset()
			in = false
		default:
			in = true
			word.WriteRune(c)
		}
	}
	if in {
		words = append(words, word.String())
	}
	return words
}

// readDrover finds where state and store are, for a service that Drover runs.
func (s *service) readDrover() {
	if !s.f.Drover {
		return
	}
	state := s.flags.State
	if v, ok := s.variable("DROVER_STATE"); ok && len(state) == 0 {
		state = strings.FieldsFunc(v.value.text, func(r rune) bool { return strings.ContainsRune(",:\n", r) })
	}
	if len(state) == 0 {
		state = s.r.opt.State
	}
	for _, p := range state {
		if strings.HasPrefix(p, "/") {
			s.f.State = append(s.f.State, clean(p))
		}
	}
	url, at := s.flags.Store, s.f.Entry
	if v, ok := s.variable("DROVER_STORE"); ok && url == "" {
		url, at = v.value.text, v.at
	}
	if url == "" {
		url, at = s.r.opt.Store, s.f.Where
	}
	if store, ok := doctor.ParseStore(url); ok {
		store.Where = at
		s.f.Store = &store
	}
}

// readLife reads how it ends, and what happens then.
func (s *service) readLife() {
	if signal, v, ok := s.text("stop_signal"); ok && v.whole {
		s.f.Signal = signal
	} else if s.img.signal.Where != "" && !ok {
		s.f.Signal = s.img.signal
	}
	if grace, v, ok := s.text("stop_grace_period"); ok {
		s.f.Grace.Where = grace.Where
		d, err := time.ParseDuration(strings.ReplaceAll(v.text, " ", ""))
		s.f.Grace.Given, s.f.Grace.Unclear = d, err != nil || d <= 0
	}
	restart, v, ok := s.text("restart")
	condition, _, hasPolicy := s.text("deploy", "restart_policy", "condition")
	policy := s.n.path("deploy", "restart_policy")
	switch {
	case hasPolicy && condition.Value == "none":
		s.f.Restart, s.f.RestartAt = doctor.RestartNo, condition.Where
	case policy != nil:
		s.f.Restart = doctor.RestartYes
	case ok && v.whole && (v.text == "no" || v.text == "false"):
		s.f.Restart, s.f.RestartAt = doctor.RestartNo, restart.Where
	case ok:
		s.f.Restart = doctor.RestartYes
	default:
		s.f.Restart = doctor.RestartAbsent
	}
}

func (s *service) readHealth() {
	check := s.n.get("healthcheck")
	test := check.get("test").each()
	switch {
	case check.get("disable") != nil && check.get("disable").text == "true":
		s.f.Health, s.f.HealthAt = doctor.HealthOff, check.get("disable").at
	case len(test) > 0 && test[0].text == "NONE":
		s.f.Health, s.f.HealthAt = doctor.HealthOff, test[0].at
	case len(test) > 0 || s.img.health == doctor.HealthChecked:
		s.f.Health = doctor.HealthChecked
	case s.img.health == doctor.HealthOff:
		s.f.Health, s.f.HealthAt = doctor.HealthOff, s.img.healthAt
	default:
		s.f.Health = doctor.HealthAbsent
	}
}

func (s *service) readLimits() {
	s.f.Memory.Seen = true
	for _, keys := range [][]string{{"mem_limit"}, {"deploy", "resources", "limits", "memory"}} {
		if limit, _, ok := s.text(keys...); ok && limit.Value != "0" {
			s.f.Memory.Limit = 1 // some
		}
	}
}

// readHost reads what ties it to its host.
func (s *service) readHost() {
	if on, v, ok := s.text("privileged"); ok && v.text == "true" {
		s.f.Privileged = on
	}
	if mode, _, ok := s.text("network_mode"); ok && mode.Value == "host" {
		s.f.HostNetwork = mode
	}
	if name, v, ok := s.text("container_name"); ok && v.text != "" {
		s.f.Name = name
	}
	for _, c := range s.words(s.n.path("deploy", "placement", "constraints")) {
		plain := strings.ReplaceAll(c.Value, " ", "")
		if strings.HasPrefix(plain, "node.hostname==") || strings.HasPrefix(plain, "node.id==") || strings.HasPrefix(plain, "node.ip==") {
			s.f.Pins = append(s.f.Pins, c)
		}
	}
	for _, n := range s.n.get("ports").each() {
		if port, ok := s.fixedPort(n); ok {
			s.f.Ports = append(s.f.Ports, port)
		}
	}
}

// fixedPort reads one of ports: fixed if the host's side of it is, and no wider range.
func (s *service) fixedPort(n *node) (doctor.Item, bool) {
	if n.kind == mapping {
		published := n.get("published")
		if published == nil || published.kind != scalar {
			return doctor.Item{}, false
		}
		host := s.r.x.expand(published.text).text
		return doctor.Item{Value: host, Where: published.at}, host != "" && host != "0" && width(host) < 2
	}
	if n.kind != scalar {
		return doctor.Item{}, false
	}
	text := s.r.x.expand(n.text).text
	plain, _, _ := strings.Cut(text, "/")
	i := lastColon(plain)
	if i < 0 {
		return doctor.Item{}, false
	}
	host, container := plain[:i], plain[i+1:]
	if j := lastColon(host); j >= 0 {
		host = host[j+1:]
	}
	return doctor.Item{Value: text, Where: n.at}, host != "" && host != "0" && width(host) <= width(container)
}

// lastColon finds the last colon that is not within a variable's braces.
func lastColon(text string) int {
	depth := 0
	for i := len(text) - 1; i >= 0; i-- {
		switch text[i] {
		case '}', ']':
			depth++
		case '{', '[':
			depth--
		case ':':
			if depth == 0 {
				return i
			}
		}
	}
	return -1
}

// width is how many ports a range has; 1 for what is none.
func width(ports string) int {
	from, to, _ := strings.Cut(ports, "-")
	first, err := strconv.Atoi(from)
	last, err2 := strconv.Atoi(to)
	if err != nil || err2 != nil || last < first {
		return 1
	}
	return last - first + 1
}

// linkStores finds out whose store a service of the same file is.
func linkStores(all []doctor.Facts, hosts map[string]string) {
	index := map[string]int{}
	for i, f := range all {
		index[f.Service] = i
	}
	for i := range all {
		store := all[i].Store
		if store == nil || store.Host == "" {
			continue
		}
		j, ok := index[hosts[store.Host]]
		if ok && i != j {
			store.Service = all[j].Service
			all[j].StoreOf = append(all[j].StoreOf, all[i].Service)
		}
	}
}

// hostNames are the names by which a service is found on the project's networks.
func (s *service) hostNames() []string {
	names := []string{s.f.Service}
	for _, key := range []string{"container_name", "hostname"} {
		if name, _, ok := s.text(key); ok {
			names = append(names, name.Value)
		}
	}
	for _, network := range keysOf(s.n.get("networks")) {
		for _, alias := range s.words(network.value.get("aliases")) {
			names = append(names, alias.Value)
		}
	}
	return names
}
