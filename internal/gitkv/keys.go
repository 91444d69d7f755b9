package gitkv

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"drover/internal/gitkv/remote"
)

// pairs are keys, without their prefix, and values.
type pairs map[string][]byte

// mapping makes keys of files. It is Repo's, as far as it says which keys a commit has.
type mapping struct {
	SourceRoot       string   `json:",omitempty"`
	Expand           bool     `json:",omitempty"`
	Arrays           Arrays   `json:",omitempty"`
	OmitExtension    bool     `json:",omitempty"`
	CommonProperties string   `json:",omitempty"`
	KeepSpace        bool     `json:",omitempty"`
	Exclude          []string `json:",omitempty"`
}

func (r Repo) mapping() mapping {
	m := mapping{
		SourceRoot: r.SourceRoot, Expand: r.Expand, KeepSpace: r.KeepSpace, Exclude: r.Exclude,
	}
	if r.Expand {
		m.Arrays, m.OmitExtension, m.CommonProperties = r.Arrays, r.OmitExtension, r.CommonProperties
	}
	return m
}

// expandVersion changes whenever other keys are made of the same file.
const expandVersion = 1

// tree names the tree of a commit: the commit, and, if its keys are not its files as they are, what was
// made of them. The same name always has the same keys.
func (m mapping) tree(commit string) string {
	text, err := json.Marshal(m)
	if err != nil || string(text) == "{}" {
		return commit
	}
	sum := sha256.Sum256(fmt.Appendf(text, "%d", expandVersion))
	return commit + "-" + hex.EncodeToString(sum[:4])
}

// within returns a path below the source root.
func (m mapping) within(file string) (string, bool) {
	if m.SourceRoot == "" {
		return file, true
	}
	return strings.CutPrefix(file, m.SourceRoot+"/")
}

// wants says whether a file is needed.
func (m mapping) wants(file string) bool {
	if m.common(file) {
		return true
	}
	rel, ok := m.within(file)
	return ok && !m.excluded(rel)
}

func (m mapping) common(file string) bool {
	return m.CommonProperties != "" && file == m.CommonProperties
}

// excluded says whether a pattern meets the path, its last part, or a directory above it.
func (m mapping) excluded(rel string) bool {
	for _, p := range m.Exclude {
		for at := rel; at != "."; at = path.Dir(at) {
			whole, _ := path.Match(p, at)
			last, _ := path.Match(p, path.Base(at))
			if whole || last {
				return true
			}
		}
	}
	return false
}

// keys makes the keys of a commit, which will be below base. If one cannot be, there are none: a commit is
// whole. Notes are for people: files that were not expanded though they should have been.
func (m mapping) keys(files []remote.File, base string) (made pairs, notes []string, err error) {
	shared := properties{}
	for _, f := range files {
		if m.common(f.Path) {
			if shared, err = parseProperties(f.Data, nil); err != nil {
				notes = append(notes, fmt.Sprintf("%s: %v", f.Path, err))
			}
		}
	}
	made = pairs{}
	from := map[string]string{}
	for _, f := range files {
		rel, ok := m.within(f.Path)
		if !ok || m.excluded(rel) {
			continue
		}
		own, note := m.expand(base, rel, f.Data, shared)
		if note != nil {
			notes = append(notes, fmt.Sprintf("%s is one key: %v", f.Path, note))
		}
		for _, p := range own {
			if err := checkKey(base + p.key); err != nil {
				return nil, nil, fmt.Errorf("file %q: %w", f.Path, err)
			}
			if other, ok := from[p.key]; ok {
				return nil, nil, fmt.Errorf("files %q and %q both make key %q", other, f.Path, p.key)
			}
			from[p.key], made[p.key] = f.Path, p.value
		}
	}
	if len(made) == 0 {
		return nil, nil, fmt.Errorf("the commit has no file below %q", "/"+m.SourceRoot)
	}
	return made, notes, nil
}

// pair is one key that a file makes.
type pair struct {
	key   string
	value []byte
}

// expand makes the keys of a file. The error says why it became one key and not several.
func (m mapping) expand(base, rel string, data []byte, shared properties) ([]pair, error) {
	key := rel
	kind := path.Ext(rel)
	parse := map[string]func([]byte, properties) ([]pair, error){
		".json": m.expandJSON, ".yaml": m.expandYAML, ".yml": m.expandYAML, ".properties": m.expandProperties,
	}[kind]
	if !m.Expand || parse == nil {
		return []pair{{key, m.text(data)}}, nil
	}
	if m.OmitExtension && path.Base(rel) != kind {
		key = strings.TrimSuffix(rel, kind)
	}
	all, err := parse(data, shared)
	for i := range all {
		all[i].key = key + "/" + all[i].key
		if err == nil {
			err = checkKey(base + all[i].key)
		}
	}
	if err != nil {
		return []pair{{key, m.text(data)}}, err
	}
	return all, nil
}

// text is a file's content as one value. What is not text stays as it is.
func (m mapping) text(data []byte) []byte {
	if m.KeepSpace || !utf8.Valid(data) {
		return data
	}
	return bytes.TrimFunc(data, func(r rune) bool { return unicode.IsSpace(r) || r == '\ufeff' })
}

// escape writes a name as a part of a key: what is not a letter, a digit or one of -_.!~*'() becomes %XX, as git2consul
// has it.
func escape(name string) string {
	const plain = "-_.!~*'()"
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(plain, c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
