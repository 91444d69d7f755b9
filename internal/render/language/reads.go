package language

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"text/template"
)

// What a prefix or a key that is known to be missing is told as.
const (
	noKey   = "there is no such key"
	noneYet = "there is nothing below it"
)

// reads are the functions that make dependencies.
func (t *Template) reads() template.FuncMap {
	return template.FuncMap{
		"key": t.key, "keyExists": t.keyExists, "keyOrDefault": t.keyOrDefault,
		"ls":       func(prefix string) ([]*KeyPair, error) { return t.tree(prefix, onTop, true) },
		"safeLs":   func(prefix string) ([]*KeyPair, error) { return t.tree(prefix, onTop, false) },
		"tree":     func(prefix string) ([]*KeyPair, error) { return t.tree(prefix, named, true) },
		"safeTree": func(prefix string) ([]*KeyPair, error) { return t.tree(prefix, named, false) },
		"service":  t.service, "services": t.services,
		"node": t.node, "nodes": t.nodes, "datacenters": t.datacenters,
		"secret": t.secret, "secrets": t.secrets, "pkiCert": t.pkiCert,
		"file": t.file,
	}
}

func (t *Template) keyState(text string) (d Dependency, state KeyState, known bool, err error) {
	d, err = parseKey(Key, text)
	if err != nil {
		return d, KeyState{}, false, err
	}
	v, known := t.run.value(d)
	if known {
		state = v.(KeyState)
	}
	return d, state, known, nil
}

func (t *Template) key(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	d, state, known, err := t.keyState(text)
	if known && !state.Seen {
		t.run.miss(d, noKey)
	}
	return state.Value, err
}

func (t *Template) keyExists(text string) (bool, error) {
	if text == "" {
		return false, nil
	}
	_, state, _, err := t.keyState(text)
	return state.Exists, err
}

func (t *Template) keyOrDefault(text, otherwise string) (string, error) {
	if text == "" {
		return otherwise, nil
	}
	_, state, _, err := t.keyState(text)
	if err != nil {
		return "", err
	}
	if !state.Exists || state.Value == "" {
		return otherwise, nil
	}
	return state.Value, nil
}

// onTop are the keys directly below the prefix.
func onTop(key string) bool { return key != "" && !strings.Contains(key, "/") }

// named are all but folders.
func named(key string) bool { return key != "" && !strings.HasSuffix(key, "/") }

func (t *Template) tree(text string, want func(key string) bool, mayBeEmpty bool) ([]*KeyPair, error) {
	pairs := []*KeyPair{}
	if text == "" {
		return pairs, nil
	}
	d, err := parseKey(Tree, text)
	if err != nil {
		return nil, err
	}
	v, known := t.run.value(d)
	if !known {
		return pairs, nil
	}
	for _, pair := range v.([]*KeyPair) {
		if want(pair.Key) {
			pairs = append(pairs, pair)
		}
	}
	if len(pairs) == 0 && !mayBeEmpty {
		t.run.miss(d, noneYet)
	}
	return pairs, nil
}

// valueOf returns the value of d, or none of its type.
func valueOf[T any](t *Template, d Dependency, err error) (T, error) {
	var none T
	if err != nil {
		return none, err
	}
	if v, ok := t.run.value(d); ok {
		return v.(T), nil
	}
	return none, nil
}

func (t *Template) service(query ...string) ([]*Service, error) {
	if len(query) == 0 || query[0] == "" {
		return []*Service{}, nil
	}
	d, err := parseService(strings.Join(query, "|"))
	return valueOf[[]*Service](t, d, err)
}

func (t *Template) services(query ...string) ([]*ServiceName, error) {
	d, err := parseCatalog(Services, strings.Join(query, ""), "?@", false)
	return valueOf[[]*ServiceName](t, d, err)
}

// node returns no pointer that is nil, as "with" would take it for something.
func (t *Template) node(query ...string) (any, error) {
	d, err := parseCatalog(NodeOf, strings.Join(query, ""), "?@", true)
	if v, err := valueOf[*NodeServices](t, d, err); v != nil || err != nil {
		return v, err
	}
	return nil, nil
}

func (t *Template) nodes(query ...string) ([]*Node, error) {
	d, err := parseCatalog(Nodes, strings.Join(query, ""), "?@~", false)
	return valueOf[[]*Node](t, d, err)
}

func (t *Template) datacenters(reachable ...bool) ([]string, error) {
	d := Dependency{Kind: Datacenters}
	switch len(reachable) {
	case 0:
	case 1:
		d.Reachable = reachable[0]
	default:
		return nil, errors.New("datacenters takes one argument at most")
	}
	return valueOf[[]string](t, d, nil)
}

func (t *Template) secret(args ...string) (any, error) {
	if len(args) == 0 {
		return nil, nil
	}
	d, err := parseSecret(Secret, args)
	if v, err := valueOf[*SecretValue](t, d, err); v != nil || err != nil {
		return v, err
	}
	return nil, nil
}

func (t *Template) secrets(path string) ([]string, error) {
	if path == "" {
		return nil, nil
	}
	d, err := parseSecret(SecretNames, []string{path})
	return valueOf[[]string](t, d, err)
}

func (t *Template) pkiCert(args ...string) (any, error) {
	if len(args) == 0 {
		return nil, nil
	}
	d, err := parseSecret(Certificate, args)
	if err != nil {
		return nil, err
	}
	d.Beside = t.opt.Destination
	if v, ok := t.run.value(d); ok {
		return v, nil
	}
	return nil, nil
}

func (t *Template) file(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	if err := inside(t.opt.Sandbox, path); err != nil {
		return "", err
	}
	path = strings.TrimSpace(path)
	if path == "" {
		return "", errors.New("the path of a file is only spaces")
	}
	return valueOf[string](t, Dependency{Kind: FileContent, Name: path}, nil)
}

// inside refuses what is not below sandbox once its links are followed.
func inside(sandbox, path string) error {
	if sandbox == "" {
		return nil
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	relative, err := filepath.Rel(sandbox, real)
	if err != nil {
		return err
	}
	if !filepath.IsLocal(relative) {
		return fmt.Errorf("%s is outside of %s", path, sandbox)
	}
	return nil
}

// environment are the functions that read variables.
func (t *Template) environment() template.FuncMap {
	env := t.opt.Env
	return template.FuncMap{
		"env": func(name string) string { v, _ := env(name); return v },
		"mustEnv": func(name string) (string, error) {
			v, _ := env(name)
			if v == "" {
				return "", fmt.Errorf("variable %s is not set, or empty", name)
			}
			return v, nil
		},
		"envOrDefault": func(name, otherwise string) string {
			if v, ok := env(name); ok {
				return v
			}
			return otherwise
		},
	}
}
