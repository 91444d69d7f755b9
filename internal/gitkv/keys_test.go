package gitkv

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"drover/internal/gitkv/remote"
)

// made makes keys of one file, or several, and shows them and the notes.
func made(t *testing.T, m mapping, f files) string {
	t.Helper()
	var all []remote.File
	for _, path := range slices.Sorted(maps.Keys(f)) {
		all = append(all, remote.File{Path: path, Data: []byte(f[path])})
	}
	keys, notes, err := m.keys(all, "app/main/")
	if err != nil {
		return "error: " + err.Error()
	}
	text := map[string]string{}
	for key, v := range keys {
		text[key] = string(v)
	}
	out := line(text)
	for _, n := range notes {
		out += " " + n
	}
	return out
}

func TestFilesBecomeKeys(t *testing.T) {
	for _, c := range []struct {
		m    mapping
		f    files
		want string
	}{
		{mapping{}, files{"foo/log_level": " trace\n\n", "a.json": `{"x": 1}`}, `{a.json="{\"x\": 1}" foo/log_level="trace"}`},
		{mapping{KeepSpace: true}, files{"a": " x\n"}, `{a=" x\n"}`},
		{mapping{}, files{"bin": " \xff\x00 "}, `{bin=" \xff\x00 "}`},
		{mapping{}, files{"bom": "\ufeffx\u00a0"}, `{bom="x"}`},
		{mapping{}, files{"empty": ""}, `{empty=""}`},
		{mapping{SourceRoot: "conf/dc1"}, files{"conf/dc1/web/a": "1", "conf/dc10/a": "2", "b": "3"}, `{web/a="1"}`},
		{mapping{Exclude: []string{"*.md", "docs", "a/b*"}}, files{"x": "1", "R.md": "", "d/R.md": "", "docs/a/b": "", "a/bc": "", "a/c/b": "2"}, `{a/c/b="2" x="1"}`},
		{mapping{Expand: true, OmitExtension: true}, files{"u.properties": "a=1", "v.txt": "2", ".json": `{"j":1}`, "w.d/x.yml": "k: v"}, `{.json/j="1" u/a="1" v.txt="2" w.d/x/k="v"}`},
		{mapping{Expand: true, OmitExtension: true}, files{"a.json": `{"x":1}`, "a.yaml": "y: 2"}, `{a/x="1" a/y="2"}`},
		{mapping{Expand: true, OmitExtension: true}, files{"bad.json": `{`}, `{bad="{"} bad.json is one key: EOF`},
	} {
		if got := made(t, c.m, c.f); got != c.want {
			t.Errorf("%+v %v:\n got %s\nwant %s", c.m, c.f, got, c.want)
		}
	}
}

func TestExpandJSON(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`{"first": {"second": {"you get the picture": "right?"}}}`, `{f.json/first/second/you%20get%20the%20picture="right?"}`},
		{`{"a/b": 1, "ä": 2, "-_.!~*'()": 3}`, `{f.json/%C3%A4="2" f.json/-_.!~*'()="3" f.json/a%2Fb="1"}`},
		{`{"t": true, "n": null, "f": 1.0, "big": 12345678901234567890, "e": 1e3}`, `{f.json/big="12345678901234567890" f.json/e="1e3" f.json/f="1.0" f.json/n="" f.json/t="true"}`},
		{`{"a": 1, "a": 2}`, `{f.json/a="2"}`},
		{`{"o": {}, "x": 1}`, `{f.json/x="1"}`},
		{"\ufeff{\"a\": 1}\n", `{f.json/a="1"}`},
		{`[1, 2]`, `{f.json="[1, 2]"} f.json is one key: it is no table of names and values`},
		{`"text"`, `{f.json="\"text\""} f.json is one key: it is no table of names and values`},
		{`{"a": 1} {"b": 2}`, `{f.json="{\"a\": 1} {\"b\": 2}"} f.json is one key: more follows the first value`},
		{`{"": 1}`, `{f.json="{\"\": 1}"} f.json is one key: it can be no key: "app/main/f.json/" ends with a slash`},
		{`{"..": 1}`, `{f.json="{\"..\": 1}"} f.json is one key: it can be no key: key "app/main/f.json/.." has an element ".."`},
	} {
		if got := made(t, mapping{Expand: true, Arrays: ArraysJSON}, files{"f.json": c.in}); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.in, got, c.want)
		}
	}
}

// git2consul 71: lists were left out.
func TestGit2consul71Arrays(t *testing.T) {
	const text = `{"version": "1.0", "repos": [{"name": "a", "on": [true, null, 1.50]}, "b<"], "none": []}`
	const asYAML = "version: '1.0'\nrepos:\n- name: a\n  on: [true, ~, 1.50]\n- b<\nnone: []\n"
	for arrays, want := range map[Arrays]string{
		ArraysIgnore: `{f/version="1.0"}`,
		ArraysJSON:   `{f/none="[]" f/repos="[{\"name\":\"a\",\"on\":[true,null,1" f/version="1.0"}`,
		ArraysIndex:  `{f/repos/0/name="a" f/repos/0/on/0="true" f/repos/0/on/1="" f/repos/0/on/2="1.50" f/repos/1="b<" f/version="1.0"}`,
	} {
		m := mapping{Expand: true, OmitExtension: true, Arrays: arrays}
		for name, in := range map[string]string{"f.json": text, "f.yaml": asYAML} {
			if got := made(t, m, files{name: in}); got != want {
				t.Errorf("%s, %s:\n got %s\nwant %s", arrays, name, got, want)
			}
		}
	}
	v, err := mapping{Expand: true, Arrays: ArraysJSON}.expandJSON([]byte(text), properties{})
	if err != nil || string(v[1].value) != `[{"name":"a","on":[true,null,1.50]},"b<"]` {
		t.Errorf("%s, %v", v[1].value, err)
	}
}

func TestExpandYAML(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"---\na:\n  b: my_value\n", `{f.yml/a/b="my_value"}`},
		{"t: True\nn: ~\nempty:\nf: 1.0\no: 0o10\nd: 2001-12-14\ny: yes\n1: one\n", `{f.yml/1="one" f.yml/d="2001-12-14" f.yml/empty="" f.yml/f="1.0" f.yml/n="" f.yml/o="0o10" f.yml/t="true" f.yml/y="yes"}`},
		{"base: &b {x: 1, y: 2}\nown:\n  <<: *b\n  y: 3\nagain: *b\n", `{f.yml/again/x="1" f.yml/again/y="2" f.yml/base/x="1" f.yml/base/y="2" f.yml/own/x="1" f.yml/own/y="3"}`},
		{"text: |\n  two\n  lines\n", `{f.yml/text="two\nlines\n"}`},
		{"a: 1\na: 2\n", `{f.yml="a: 1\na: 2"} f.yml is one key: "a" is there twice`},
		{"a: 1\n---\nb: 2\n", `{f.yml="a: 1\n---\nb: 2"} f.yml is one key: it has several documents`},
		{"- a\n- b\n", `{f.yml="- a\n- b"} f.yml is one key: it is no table of names and values`},
		{"[a]: 1\n", `{f.yml="[a]: 1"} f.yml is one key: a name in it is no text`},
		{"", `{f.yml=""} f.yml is one key: EOF`},
	} {
		if got := made(t, mapping{Expand: true, Arrays: ArraysJSON}, files{"f.yml": c.in}); got != c.want {
			t.Errorf("%q:\n got %s\nwant %s", c.in, got, c.want)
		}
	}
}

// A few lines of aliases are a billion values.
func TestBillionLaughs(t *testing.T) {
	in := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'k'; c++ {
		in += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", c-1), 10), ","))
	}
	for _, arrays := range []Arrays{ArraysJSON, ArraysIndex, ArraysIgnore} {
		got := made(t, mapping{Expand: true, Arrays: arrays}, files{"f.yaml": in})
		if !strings.Contains(got, "it expands to too much") {
			t.Errorf("%.200s", got)
		}
	}
	deep := strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200)
	if got := made(t, mapping{Expand: true}, files{"f.json": deep}); !strings.Contains(got, "levels deep") {
		t.Errorf("%.200s", got)
	}
}

func TestExpandProperties(t *testing.T) {
	m := mapping{Expand: true, CommonProperties: "common.properties", Exclude: []string{"common.properties"}}
	for _, c := range []struct{ in, want string }{
		{"bar=foo", `{f.properties/bar="foo"}`},
		{"# c\n! c\n\na=1\nb : 2\nc 3\n  d\t=\t4 \n", `{f.properties/a="1" f.properties/b="2" f.properties/c="3" f.properties/d="4 "}`},
		{"bar=bar\nfoo=${bar}!", `{f.properties/bar="bar" f.properties/foo="bar!"}`},
		{"shared=${shared}-${host}", `{f.properties/shared="s-h"}`},
		{"a=${none}", `{f.properties="a=${none}"} f.properties is one key: ${none} is nowhere`},
		{"a=${open", `{f.properties="a=${open"} f.properties is one key: a ${ without its }`},
		{`a=\${host}`, `{f.properties/a="${host}"}`},
		{"a=1,\\\n   2,\\\n\t3\nb=x\\\\\nc=y", `{f.properties/a="1,2,3" f.properties/b="x\\" f.properties/c="y"}`},
		{`a\ b\:c=\t\u00e4\ud83d\ude00\q`, `{f.properties/a%20b%3Ac="\tä😀q"}`},
		{`a=\u12`, `{f.properties="a=\\u12"} f.properties is one key: a \u without four digits`},
		{"a=1\na=2\nb", `{f.properties/a="2" f.properties/b=""}`},
		{"a.b/c=1", `{f.properties/a.b%2Fc="1"}`},
		{"a=1\r\nb=2\r\n", `{f.properties/a="1" f.properties/b="2"}`},
		{"n=1.0\nt=TRUE", `{f.properties/n="1.0" f.properties/t="TRUE"}`},
	} {
		if got := made(t, m, files{"f.properties": c.in, "common.properties": "shared=s\nhost=h"}); got != c.want {
			t.Errorf("%q:\n got %s\nwant %s", c.in, got, c.want)
		}
	}
	if got := made(t, m, files{"f.properties": "a=${b}"}); !strings.Contains(got, "is nowhere") {
		t.Errorf("without the shared file: %s", got)
	}
	m = mapping{Expand: true, CommonProperties: "shared/all.properties", SourceRoot: "conf"}
	if got := made(t, m, files{"conf/f.properties": "a=${b}", "shared/all.properties": "b=1"}); got != `{f.properties/a="1"}` {
		t.Errorf("the shared file is elsewhere: %s", got)
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("f.json", `{"a": [1, {"b": null}]}`)
	f.Add("f.yaml", "a: &x [1]\nb: {<<: {c: *x}}\n")
	f.Add("f.properties", "a=${b}\\\n\\u00e4")
	f.Fuzz(func(t *testing.T, name, in string) {
		for _, arrays := range []Arrays{ArraysJSON, ArraysIndex, ArraysIgnore} {
			m := mapping{Expand: true, Arrays: arrays, OmitExtension: true}
			keys, _, err := m.keys([]remote.File{{Path: name, Data: []byte(in)}}, "app/")
			for key := range keys {
				if checkKey("app/"+key) != nil {
					t.Errorf("key %q", key)
				}
			}
			if err != nil && len(keys) > 0 {
				t.Errorf("keys and %v", err)
			}
		}
	})
}
