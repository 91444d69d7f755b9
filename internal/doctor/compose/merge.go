package compose

import "strings"

// merge lays one value over another, by Compose's rules: mappings key by key, lists one
// after the other, all else replaced. key is what the values are of. Values that share
// others could be merged without end: they are counted.
func (r *reader) merge(base, own *node, key string) *node {
	if r.nodes++; r.nodes > maxNodes {
		return own
	}
	switch {
	case own == nil || own.kind == null && own.tag == "":
		return base
	case own.tag == "!reset":
		return &node{at: own.at}
	case base == nil || own.tag == "!override":
		return own
	}
	if key == "environment" {
		base, own = asMapping(base), asMapping(own)
	}
	switch {
	case base.kind == mapping && own.kind == mapping:
		return r.mergeKeys(base, own)
	case key == "build" && base.kind == scalar && own.kind == mapping:
		return r.mergeKeys(&node{kind: mapping, at: base.at, keys: []entry{{"context", base.at, base}}}, own)
	case added(key) && base.kind != mapping && own.kind != mapping:
		return &node{kind: list, at: own.at, items: append(base.each()[:len(base.each()):len(base.each())], own.each()...)}
	}
	return own
}

func (r *reader) mergeKeys(base, own *node) *node {
	out := &node{kind: mapping, at: own.at}
	index := map[string]int{}
	for _, e := range base.keys {
		index[e.key] = len(out.keys)
		out.keys = append(out.keys, e)
	}
	for _, e := range own.keys {
		i, ok := index[e.key]
		if !ok {
			out.keys = append(out.keys, e)
			continue
		}
		out.keys[i] = entry{e.key, e.at, r.merge(out.keys[i].value, e.value, e.key)}
	}
	return out
}

// added are keys whose lists become longer, and may be a single value.
func added(key string) bool {
	switch key {
	case "volumes", "ports", "env_file", "tmpfs", "volumes_from", "constraints", "expose", "secrets", "configs", "dns", "devices", "cap_add", "profiles":
		return true
	}
	return false
}

// asMapping makes a mapping of a list of NAME=VALUE.
func asMapping(n *node) *node {
	if n.kind != list {
		return n
	}
	out := &node{kind: mapping, at: n.at}
	index := map[string]int{}
	for _, item := range n.items {
		if item.kind != scalar {
			continue
		}
		name, text, set := strings.Cut(item.text, "=")
		value := &node{at: item.at}
		if set {
			value.kind, value.text = scalar, text
		}
		e := entry{strings.TrimSpace(name), item.at, value}
		if i, ok := index[e.key]; ok {
			out.keys[i] = e
			continue
		}
		index[e.key] = len(out.keys)
		out.keys = append(out.keys, e)
	}
	return out
}
