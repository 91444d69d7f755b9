package language

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"dario.cat/mergo"
)

// collections are the functions on lists and maps.
func collections() template.FuncMap {
	return template.FuncMap{
		"byKey": byKey, "byMeta": byMeta, "byPort": byPort, "byTag": byTag,
		"explode": explode, "explodeMap": explodeMap,
		"mergeMap":             func(into, from map[string]any) (map[string]any, error) { return merge(into, from) },
		"mergeMapWithOverride": func(into, from map[string]any) (map[string]any, error) { return merge(into, from, mergo.WithOverride) },
		"in":                   in,
		"contains":             func(v, list any) bool { return in(list, v) },
		"containsAll":          func(vs []any, list any) bool { return !slices.ContainsFunc(vs, notIn(list)) },
		"containsNotAll":       func(vs []any, list any) bool { return slices.ContainsFunc(vs, notIn(list)) },
		"containsAny":          func(vs []any, list any) bool { return slices.ContainsFunc(vs, func(v any) bool { return in(list, v) }) },
		"containsNone": func(vs []any, list any) bool {
			return !slices.ContainsFunc(vs, func(v any) bool { return in(list, v) })
		},
	}
}

func notIn(list any) func(any) bool { return func(v any) bool { return !in(list, v) } }

// in says whether v is in a list, or a string in a string. Numbers are equal if they are
// of one kind (signed, or floating), whatever their size.
func in(list, v any) bool {
	lv, vv := reflect.ValueOf(list), reflect.ValueOf(v)
	switch lv.Kind() {
	case reflect.String:
		return vv.IsValid() && vv.Type() == lv.Type() && strings.Contains(lv.String(), vv.String())
	case reflect.Array, reflect.Slice:
		for i := range lv.Len() {
			element := lv.Index(i)
			if element.Kind() == reflect.Interface {
				element = element.Elem()
			}
			if alike(element, vv) {
				return true
			}
		}
	}
	return false
}

func alike(a, b reflect.Value) bool {
	switch {
	case !a.IsValid() || !b.IsValid():
		return false
	case a.CanInt() && b.CanInt():
		return a.Int() == b.Int()
	case a.CanFloat() && b.CanFloat():
		return a.Float() == b.Float()
	case a.Kind() == reflect.String:
		return a.Type() == b.Type() && a.String() == b.String()
	}
	return false
}

// byKey groups pairs by the first part of their keys, which is cut off.
func byKey(pairs []*KeyPair) map[string]map[string]*KeyPair {
	groups := map[string]map[string]*KeyPair{}
	for _, pair := range pairs {
		top, rest, _ := strings.Cut(pair.Key, "/")
		if rest == "" {
			continue
		}
		if groups[top] == nil {
			groups[top] = map[string]*KeyPair{}
		}
		cut := *pair
		cut.Key = rest
		groups[top][rest] = &cut
	}
	return groups
}

// byPort groups instances.
func byPort(list any) (map[int][]any, error) {
	groups := map[int][]any{}
	switch list := list.(type) {
	case nil:
	case []*Service:
		for _, s := range list {
			groups[s.Port] = append(groups[s.Port], s)
		}
	default:
		return nil, fmt.Errorf("byPort takes what service returns, not %T", list)
	}
	return groups, nil
}

// byTag groups instances, or services, under each of their tags.
func byTag(list any) (map[string][]any, error) {
	groups := map[string][]any{}
	add := func(tags Tags, v any) {
		for _, tag := range tags {
			groups[tag] = append(groups[tag], v)
		}
	}
	switch list := list.(type) {
	case nil:
	case []*Service:
		for _, s := range list {
			add(s.Tags, s)
		}
	case []*ServiceName:
		for _, s := range list {
			add(s.Tags, s)
		}
	default:
		return nil, fmt.Errorf("byTag takes what service or services returns, not %T", list)
	}
	return groups, nil
}

// byMeta groups instances by the values of some of their metadata, joined with _. One that
// ends in |int is a number, of five digits at least, so that groups sort.
func byMeta(names string, list []*Service) (map[string][]*Service, error) {
	other := regexp.MustCompile(`[^a-zA-Z0-9_-]`)
	groups := map[string][]*Service{}
	for _, s := range list {
		var parts []string
		for _, name := range strings.Split(names, ",") {
			value, err := metaOf(s, name)
			if err != nil {
				return nil, err
			}
			parts = append(parts, other.ReplaceAllString(value, "_"))
		}
		group := strings.Join(parts, "_")
		groups[group] = append(groups[group], s)
	}
	return groups, nil
}

func metaOf(s *Service, name string) (string, error) {
	name, number := strings.CutSuffix(name, "|int")
	value := s.ServiceMeta[name]
	switch {
	case !number && value == "":
		return "_no_" + name + "_", nil
	case !number:
		return value, nil
	case value == "":
		value = "0"
	}
	n, err := strconv.Atoi(value)
	if err != nil {
		return "", fmt.Errorf("metadata %s of %s is no number: %q", name, s.ID, value)
	}
	return fmt.Sprintf("%05d", n), nil
}

// explode makes a tree of pairs.
func explode(pairs []*KeyPair) (map[string]any, error) {
	tree := map[string]any{}
	for _, pair := range pairs {
		if err := plant(tree, pair.Key, pair.Value); err != nil {
			return nil, err
		}
	}
	return tree, nil
}

// explodeMap makes a tree of a map whose keys are paths.
func explodeMap(flat map[string]any) (map[string]any, error) {
	tree := map[string]any{}
	for _, key := range slices.Sorted(maps.Keys(flat)) {
		if err := plant(tree, key, flat[key]); err != nil {
			return nil, err
		}
	}
	return tree, nil
}

// plant puts a value where its path says. A path that ends in a slash is a folder.
func plant(tree map[string]any, path string, value any) error {
	parts := strings.Split(path, "/")
	for _, part := range parts[:len(parts)-1] {
		if _, ok := tree[part]; !ok {
			tree[part] = map[string]any{}
		}
		below, ok := tree[part].(map[string]any)
		if !ok {
			return fmt.Errorf("%q cannot be below %q, which has a value", path, part)
		}
		tree = below
	}
	if last := parts[len(parts)-1]; last != "" {
		tree[last] = value
	}
	return nil
}

// merge changes into, and returns it.
func merge(into, from map[string]any, how ...func(*mergo.Config)) (map[string]any, error) {
	if err := mergo.Map(&into, from, how...); err != nil {
		return nil, fmt.Errorf("merge maps: %w", err)
	}
	return into, nil
}
