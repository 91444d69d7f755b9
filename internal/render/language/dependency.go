package language

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// Kind says what a dependency is, and of which type its value is.
type Kind string

// The kinds.
const (
	Key         Kind = "key"         // KeyState
	Tree        Kind = "tree"        // []*KeyPair: all that is below a prefix
	Health      Kind = "service"     // []*Service
	Services    Kind = "services"    // []*ServiceName
	NodeOf      Kind = "node"        // *NodeServices
	Nodes       Kind = "nodes"       // []*Node
	Datacenters Kind = "datacenters" // []string
	FileContent Kind = "file"        // string
	Secret      Kind = "secret"      // *SecretValue
	SecretNames Kind = "secrets"     // []string
	Certificate Kind = "pkiCert"     // PEM
)

// Dependency names something that a template reads. Equal ones are one.
type Dependency struct {
	Kind Kind
	Name string // the key, prefix, service, node or path
	Tag  string // of a service

	Datacenter, Near string // where a coordinator has such things; empty: its own, none

	Filter string // the statuses of a service's instances that are wanted, sorted, with commas
	Params string // what is written to a secret's path, as a JSON object; empty: it is read
	Beside string // the file that may hold the certificate already
	// Reachable leaves away datacenters that do not answer.
	Reachable bool
}

// String is for people: what is written to a secret's path is not in it.
func (d Dependency) String() string {
	var b strings.Builder
	if d.Tag != "" {
		b.WriteString(d.Tag + ".")
	}
	b.WriteString(d.Name)
	if d.Datacenter != "" {
		b.WriteString("@" + d.Datacenter)
	}
	if d.Near != "" {
		b.WriteString("~" + d.Near)
	}
	if d.Filter != "" && d.Filter != passing {
		b.WriteString("|" + d.Filter)
	}
	if d.Params != "" {
		b.WriteString(" with " + strings.Join(slices.Sorted(maps.Keys(d.Written())), ", "))
	}
	return fmt.Sprintf("%s(%s)", d.Kind, b.String())
}

// Written is what is written to the secret's path; nil: it is read.
func (d Dependency) Written() map[string]any {
	if d.Params == "" {
		return nil
	}
	var params map[string]any
	if err := json.Unmarshal([]byte(d.Params), &params); err != nil {
		return nil // this package made it
	}
	return params
}

// The statuses that a query may ask for.
const (
	anyStatus = "any"
	passing   = "passing"
)

// query is what stands behind a name: ?key=value@datacenter~near|filter, each at most
// once and in this order.
type query struct {
	name, datacenter, near, filter string
}

// part is one of a query's, by the byte that it begins with.
type part struct {
	mark  byte
	into  *string
	chars string // beside letters, digits and _
}

// parseQuery takes text apart. marks says which parts may stand in it.
func parseQuery(text, marks string) (query, error) {
	var q query
	var parameters string
	parts := []part{
		{'?', &parameters, "-=&"}, {'@', &q.datacenter, ".-"}, {'~', &q.near, ".-"}, {'|', &q.filter, ","},
	}
	end := strings.IndexAny(text, marks)
	if end < 0 {
		end = len(text)
	}
	q.name = text[:end]
	rest := text[end:]
	for _, p := range parts {
		if rest == "" || rest[0] != p.mark {
			continue
		}
		next := strings.IndexAny(rest[1:], marks) + 1
		if next == 0 {
			next = len(rest)
		}
		if next == 1 || !made(rest[1:next], p.chars) {
			return query{}, fmt.Errorf("%q is no query: what follows %q", text, rest[:1])
		}
		*p.into, rest = rest[1:next], rest[next:]
	}
	if rest != "" {
		return query{}, fmt.Errorf("%q is no query: %q is out of place", text, rest)
	}
	return q, checkParameters(parameters)
}

// checkParameters refuses what belongs to Consul Enterprise, but for its defaults.
func checkParameters(text string) error {
	values, err := url.ParseQuery(text)
	if err != nil {
		return fmt.Errorf("read the parameters %q: %w", text, err)
	}
	for name, all := range values {
		known := slices.Contains([]string{"ns", "partition", "peer", "sameness-group"}, name)
		defaults := (name == "ns" || name == "partition") && all[0] == "default"
		switch {
		case !known:
			return fmt.Errorf("there is no parameter %q", name)
		case !defaults:
			return fmt.Errorf("parameter %q: namespaces, partitions and peers are not supported", name)
		}
	}
	return nil
}

// made says whether text is of ASCII letters, digits, _ and extra.
func made(text, extra string) bool {
	for _, c := range []byte(text) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
		if !letter && strings.IndexByte(extra, c) < 0 {
			return false
		}
	}
	return true
}

// parseKey reads path?parameters@datacenter, of a key or a prefix.
func parseKey(kind Kind, text string) (Dependency, error) {
	q, err := parseQuery(text, "?@")
	if err != nil {
		return Dependency{}, err
	}
	if q.name == "" {
		return Dependency{}, fmt.Errorf("%q is no query: it has no name", text)
	}
	name := strings.TrimLeft(q.name, "/")
	if name == "" && kind == Key {
		return Dependency{}, fmt.Errorf("%q is no key", text)
	}
	return Dependency{Kind: kind, Name: name, Datacenter: q.datacenter}, nil
}

// parseService reads tag.name?parameters@datacenter~near|filter.
func parseService(text string) (Dependency, error) {
	q, err := parseQuery(text, "?@~|")
	if err != nil {
		return Dependency{}, err
	}
	tag, name := "", q.name
	if dot := strings.LastIndexByte(q.name, '.'); dot >= 0 {
		tag, name = q.name[:dot], q.name[dot+1:]
		if tag == "" {
			return Dependency{}, fmt.Errorf("%q is no query: the tag is empty", text)
		}
	}
	if name == "" || !made(name, "-") || !made(tag, "=:.-") {
		return Dependency{}, fmt.Errorf("%q is no query: it has no service's name", text)
	}
	filter, err := parseFilter(q.filter)
	if err != nil {
		return Dependency{}, err
	}
	return Dependency{Kind: Health, Name: name, Tag: tag, Datacenter: q.datacenter, Near: q.near, Filter: filter}, nil
}

// parseFilter sorts the statuses; none are passing. Commas alone let nothing through.
func parseFilter(text string) (string, error) {
	if text == "" {
		return passing, nil
	}
	var statuses []string
	for _, s := range strings.Split(text, ",") {
		switch s {
		case "":
		case anyStatus, passing, "warning", "critical", "maintenance":
			statuses = append(statuses, s)
		default:
			return "", fmt.Errorf("%q is no status: any, passing, warning, critical or maintenance", s)
		}
	}
	slices.Sort(statuses)
	statuses = slices.Compact(statuses)
	if len(statuses) == 0 {
		return "none", nil
	}
	return strings.Join(statuses, ","), nil
}

// parseCatalog reads what stands for a whole catalog: ?parameters@datacenter~near. With
// names, a node's name may stand before it.
func parseCatalog(kind Kind, text, marks string, names bool) (Dependency, error) {
	q, err := parseQuery(text, marks)
	if err != nil {
		return Dependency{}, err
	}
	if q.name != "" && !names || !made(q.name, ".-") || q.name == "" && names && text != "" {
		return Dependency{}, fmt.Errorf("%q is no query: it begins with %q", text, q.name)
	}
	return Dependency{Kind: kind, Name: q.name, Datacenter: q.datacenter, Near: q.near}, nil
}

// parseSecret reads a path and the k=v that are written to it.
func parseSecret(kind Kind, args []string) (Dependency, error) {
	path := strings.Trim(strings.TrimSpace(args[0]), "/")
	if path == "" {
		return Dependency{}, fmt.Errorf("%q is no path of a secret", args[0])
	}
	d := Dependency{Kind: kind, Name: path}
	if len(args) == 1 && kind != Certificate {
		return d, nil
	}
	params := map[string]string{}
	for _, arg := range args[1:] {
		if arg == "" {
			continue
		}
		key, value, found := strings.Cut(arg, "=")
		if !found {
			return Dependency{}, fmt.Errorf("what is written to %s is not all key=value", path)
		}
		params[strings.TrimSpace(key)] = strings.TrimSpace(value)
	}
	text, err := json.Marshal(params)
	if err != nil {
		return Dependency{}, err
	}
	d.Params = string(text)
	return d, nil
}
