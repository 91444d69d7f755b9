// Package compose reads the facts about the services of a Compose file.
//
// It promises: every fact has the place where it stands (file:line:column); anchors,
// aliases, merge keys, extends, include, override files, env_file and Dockerfiles are
// followed as Compose follows them; variables are filled in from the environment, the
// file .env and their defaults, and what is still open then is not taken for a value.
// What it does not follow (other machines' files, say) it says. Bounds hold for
// everything that it reads. A secret's value goes nowhere.
//
// It leaves to others: what the facts mean (package doctor), and to Compose whether the
// file is right in everything else.
package compose

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"drover/internal/doctor"
)

// Options are what is known besides the file.
type Options struct {
	// Env is the environment that Compose would be started in.
	Env func(name string) (string, bool)
	// State and Store are those of services that run Drover and do not say.
	State []string
	Store string
	// Took is the longest of the last backups; 0: not known.
	Took time.Duration
}

// Bounds on the files that a Compose file names.
const (
	maxFiles   = 64
	maxExtends = 16
)

// defaultNames are looked for in a directory, in Compose's order.
func defaultNames() []string {
	return []string{"compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"}
}

// Read reads a Compose file, or that of a directory, and what it names. The error is an
// *Error, which says where.
func Read(name string, opt Options) ([]doctor.Facts, error) {
	return newReader(opt, readFile).read(name)
}

// reader reads one project.
type reader struct {
	opt   Options
	open  func(name string) ([]byte, error)
	files map[string]*project // read already, by name
	nodes int
	x     expander

	unread []doctor.Item // what was not followed
}

// project is one file's top level, with its includes.
type project struct {
	name     string
	services []entry
	volumes  map[string]*node
}

func newReader(opt Options, open func(string) ([]byte, error)) *reader {
	if opt.Env == nil {
		opt.Env = os.LookupEnv
	}
	return &reader{opt: opt, open: open, files: map[string]*project{}}
}

// readFile reads a file that is one, up to a little more than it may have.
func readFile(name string) ([]byte, error) {
	info, err := os.Stat(name) // opening a pipe would wait for its other end
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("is a directory")}
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("is not a file")}
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}

func (r *reader) read(name string) ([]doctor.Facts, error) {
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		if name, err = inDirectory(name); err != nil {
			return nil, err
		}
	}
	r.x = expander{r.lookup(filepath.Join(filepath.Dir(name), ".env"))}
	p, err := r.load(name, nil)
	if err != nil {
		return nil, err
	}
	if err := r.override(p); err != nil {
		return nil, err
	}
	if len(p.services) == 0 {
		return nil, &Error{Where: name + ":1:1", What: "there are no services in it", Hint: "is it a Compose file?"}
	}
	var all []doctor.Facts
	hosts := map[string]string{} // service by the names that it has on networks
	for _, e := range p.services {
		own, err := r.extended(p, e.key, nil)
		if err != nil {
			return nil, err
		}
		f, names := r.facts(p, entry{e.key, e.at, own})
		for _, host := range names {
			hosts[host] = e.key
		}
		f.Unread = append(f.Unread, r.unread...) // that of the whole is told with the first
		r.unread = nil
		all = append(all, f)
	}
	if r.nodes > maxNodes {
		return nil, &Error{Where: name, What: "has too many values", Hint: "aliases that repeat aliases make them"}
	}
	linkStores(all, hosts)
	return all, nil
}

func inDirectory(dir string) (string, error) {
	for _, name := range defaultNames() {
		name = filepath.Join(dir, name)
		if _, err := os.Stat(name); err == nil {
			return name, nil
		}
	}
	return "", &Error{Where: dir, What: "holds no Compose file", Hint: "name one"}
}

// lookup is the environment, and below it the file .env beside the Compose file.
func (r *reader) lookup(envFile string) func(string) (string, bool) {
	beside := map[string]string{}
	if data, err := r.open(envFile); err == nil {
		for _, v := range parseEnv(envFile, data, expander{r.opt.Env}) {
			beside[v.name] = v.value.text
		}
	}
	return func(name string) (string, bool) {
		if v, ok := r.opt.Env(name); ok {
			return v, true
		}
		v, ok := beside[name]
		return v, ok
	}
}

// load reads a file and what it includes. The trail names the files that lead to it.
func (r *reader) load(name string, trail []string) (*project, error) {
	if slices.Contains(trail, name) {
		return nil, &Error{Where: trail[len(trail)-1], What: name + " is included by what it includes"}
	}
	if p := r.files[name]; p != nil {
		return p, nil
	}
	if len(r.files) >= maxFiles {
		return nil, &Error{Where: name, What: fmt.Sprintf("more than %d files are named", maxFiles)}
	}
	data, err := r.open(name)
	if err != nil {
		return nil, &Error{Where: name, What: "cannot be read: " + reason(err)}
	}
	top, err := parse(name, data, &r.nodes)
	if err != nil {
		return nil, err
	}
	if top != nil && top.kind != mapping && top.kind != null {
		return nil, &Error{Where: top.at, What: "a Compose file is a mapping", Hint: "with services"}
	}
	p := &project{name: name, volumes: map[string]*node{}}
	r.files[name] = p
	return p, r.fill(p, top, append(trail[:len(trail):len(trail)], name))
}

// fill takes the services and volumes of a file's top level, its own before the included.
func (r *reader) fill(p *project, top *node, trail []string) error {
	for _, e := range keysOf(top.get("services")) {
		if e.value.kind != mapping && e.value.kind != null {
			return &Error{Where: e.value.at, What: fmt.Sprintf("service %q must be a mapping", e.key)}
		}
		p.services = append(p.services, e)
	}
	if s := top.get("services"); s != nil && s.kind != mapping && s.kind != null {
		return &Error{Where: s.at, What: "services must be a mapping of names"}
	}
	for _, e := range keysOf(top.get("volumes")) {
		p.volumes[e.key] = e.value
	}
	for _, item := range top.get("include").each() {
		paths := item.each()
		if item.kind == mapping {
			paths = item.get("path").each()
		}
		for _, n := range paths {
			if err := r.include(p, n, trail); err != nil {
				return err
			}
		}
	}
	return nil
}

func keysOf(n *node) []entry {
	if n == nil {
		return nil
	}
	return n.keys
}

func (r *reader) include(p *project, n *node, trail []string) error {
	v := r.x.expand(n.text)
	if n.kind != scalar || !v.whole || remote(v.text) {
		r.unread = append(r.unread, doctor.Item{Value: "what is included here is not read: " + v.text, Where: n.at})
		return nil
	}
	name := beside(p.name, v.text)
	if _, err := r.open(name); err != nil {
		return &Error{Where: n.at, What: "cannot include " + name + ": " + reason(err)}
	}
	other, err := r.load(name, trail)
	if err != nil {
		return err
	}
	for _, e := range other.services {
		if !slices.ContainsFunc(p.services, func(own entry) bool { return own.key == e.key }) {
			whole, err := r.extended(other, e.key, nil)
			if err != nil {
				return err
			}
			p.services = append(p.services, entry{e.key, e.at, whole})
		}
	}
	for key, volume := range other.volumes {
		if p.volumes[key] == nil {
			p.volumes[key] = volume
		}
	}
	return nil
}

// remote says whether a name is of a repository or a registry.
func remote(name string) bool {
	return strings.Contains(name, "://") || strings.HasPrefix(name, "git@") || strings.HasPrefix(name, "oci:")
}

// beside is a path as a file names it.
func beside(file, name string) string {
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(filepath.Dir(file), name)
}

// override merges the file that Compose reads of itself beside one of a default name.
func (r *reader) override(p *project) error {
	base := filepath.Base(p.name)
	if !slices.Contains(defaultNames(), base) {
		return nil
	}
	stem := strings.TrimSuffix(base, filepath.Ext(base))
	for _, ext := range []string{".yaml", ".yml"} {
		name := beside(p.name, stem+".override"+ext)
		if _, err := r.open(name); err != nil {
			continue
		}
		other, err := r.load(name, nil)
		if err != nil {
			return err
		}
		for _, e := range other.services {
			i := slices.IndexFunc(p.services, func(own entry) bool { return own.key == e.key })
			if i < 0 {
				p.services = append(p.services, e)
			} else {
				p.services[i].value = r.merge(p.services[i].value, e.value, "")
			}
		}
		for key, volume := range other.volumes {
			p.volumes[key] = r.merge(p.volumes[key], volume, "")
		}
		return nil
	}
	return nil
}

// extended returns a service with what it extends merged in.
func (r *reader) extended(p *project, name string, trail []string) (*node, error) {
	i := slices.IndexFunc(p.services, func(e entry) bool { return e.key == name })
	own := p.services[i].value
	from := own.get("extends")
	if from == nil {
		return own, nil
	}
	step := p.name + "#" + name
	if slices.Contains(trail, step) || len(trail) > maxExtends {
		return nil, &Error{Where: from.at, What: fmt.Sprintf("service %q extends itself in the end", name)}
	}
	base, service := p, from
	if from.kind == mapping {
		service = from.get("service")
		if file := from.get("file"); file != nil {
			v := r.x.expand(file.text)
			if !v.whole || remote(v.text) {
				r.unread = append(r.unread, doctor.Item{Value: "what is extended here is not read: " + v.text, Where: file.at})
				return without(own, "extends"), nil
			}
			other := beside(p.name, v.text)
			if _, err := r.open(other); err != nil {
				return nil, &Error{Where: file.at, What: "cannot extend " + other + ": " + reason(err)}
			}
			var err error
			if base, err = r.load(other, nil); err != nil {
				return nil, err
			}
		}
	}
	if service == nil || service.kind != scalar {
		return nil, &Error{Where: from.at, What: fmt.Sprintf("extends of %q names no service", name)}
	}
	if !slices.ContainsFunc(base.services, func(e entry) bool { return e.key == service.text }) {
		return nil, &Error{Where: service.at, What: fmt.Sprintf("no service %q to extend in %s", service.text, base.name)}
	}
	parent, err := r.extended(base, service.text, append(trail[:len(trail):len(trail)], step))
	if err != nil {
		return nil, err
	}
	return without(r.merge(parent, own, ""), "extends"), nil
}

// without is a mapping without one key.
func without(n *node, key string) *node {
	if n == nil {
		return nil
	}
	out := *n
	out.keys = slices.DeleteFunc(slices.Clone(n.keys), func(e entry) bool { return e.key == key })
	return &out
}

// reason is what the system says about a file, without the system call.
func reason(err error) string {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err.Error()
	}
	return err.Error()
}
