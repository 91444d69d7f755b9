package template

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// Text is what a template made.
type Text struct {
	Made   string
	source string
	pieces []piece // in the order of Made
}

// piece is a stretch of Made that has one origin; it ends where the next begins.
type piece struct {
	at     int    // in Made
	source int    // in the file; of an action, its braces
	action string // "": the file's own text
	value  string // that the action printed
	yaml   bool   // which is written as YAML already
}

// Source leads a place in Made back to the file: line and column count from 1, columns
// in characters. Action is not "" if an action printed what is there.
func (t *Text) Source(line, column int) (sourceLine, sourceColumn int, action string) {
	at := lineStart(t.Made, line)
	for range column - 1 {
		if at >= len(t.Made) || t.Made[at] == '\n' {
			break
		}
		_, size := firstRune(t.Made[at:])
		at += size
	}
	i := sort.Search(len(t.pieces), func(i int) bool { return t.pieces[i].at > at }) - 1
	if i < 0 {
		return line, column, ""
	}
	p := t.pieces[i]
	if p.action != "" {
		sourceLine, sourceColumn = place(t.source, p.source)
		return sourceLine, sourceColumn, oneLine(p.action)
	}
	sourceLine, sourceColumn = place(t.source, p.source+at-p.at)
	return sourceLine, sourceColumn, ""
}

func firstRune(s string) (rune, int) {
	for i, r := range s {
		if i > 0 {
			return r, i
		}
	}
	return 0, len(s)
}

// shortest is the length below which a value is not hidden: what is so short is no
// secret, and is in every other word.
const shortest = 4

// Hide takes what actions printed out of a message, and says whether there was any: the
// action stands in its place.
func (t *Text) Hide(message string) (string, bool) {
	long := slices.DeleteFunc(slices.Clone(t.pieces), func(p piece) bool { return p.action == "" || len(p.value) < shortest })
	slices.SortStableFunc(long, func(a, b piece) int { return cmp.Compare(len(b.value), len(a.value)) })
	var pairs []string
	for _, p := range long {
		action := oneLine(p.action)
		quoted := strconv.Quote(p.value)
		pairs = append(pairs, p.value, action, quoted[1:len(quoted)-1], action)
		var plain string
		if p.yaml && json.Unmarshal([]byte(p.value), &plain) == nil && len(plain) >= shortest {
			pairs = append(pairs, plain, action)
		}
	}
	hidden := strings.NewReplacer(pairs...).Replace(message)
	return hidden, hidden != message
}

// Probe is Made with a word in the place of each text that an action printed. If the
// two are read alike, and Restore makes of each value read from the one what is in the
// other, then every output was read as text and as nothing else.
type Probe struct {
	Text    string
	values  *strings.Replacer // of each word
	actions map[string]piece  // by word
	source  string
}

// Probe makes it.
func (t *Text) Probe() *Probe {
	p := &Probe{actions: map[string]piece{}, source: t.source}
	var words []string // word, value, word, value…
	mark := "value"
	for strings.Contains(t.Made, mark) {
		mark += "x"
	}
	word := func(from piece, value string) string {
		w := fmt.Sprintf("%s%dx", mark, len(words)/2)
		words = append(words, w, value)
		p.actions[w] = from
		return w
	}
	var b strings.Builder
	for i, from := range t.pieces {
		end := len(t.Made)
		if i+1 < len(t.pieces) {
			end = t.pieces[i+1].at
		}
		switch text := t.Made[from.at:end]; {
		case from.action == "":
			b.WriteString(text)
		case from.yaml:
			b.WriteString(replaceStrings(text, func(s string) string { return word(from, s) }))
		default:
			b.WriteString(word(from, text))
		}
	}
	p.Text, p.values = b.String(), strings.NewReplacer(words...)
	return p
}

// replaceStrings replaces the texts in JSON.
func replaceStrings(text string, fn func(string) string) string {
	var b strings.Builder
	for {
		begin := strings.IndexByte(text, '"')
		if begin < 0 {
			return b.String() + text
		}
		end := begin + 1
		for end < len(text) && text[end] != '"' {
			if text[end] == '\\' {
				end++
			}
			end++
		}
		end = min(end+1, len(text))
		var s string
		if json.Unmarshal([]byte(text[begin:end]), &s) != nil {
			return b.String() + text // what is no JSON is not ours
		}
		b.WriteString(text[:begin] + `"` + fn(s) + `"`)
		text = text[end:]
	}
}

// Restore puts the values back into what was read from Text.
func (p *Probe) Restore(s string) string { return p.values.Replace(s) }

// Action is the first action whose word is in s, with its place in the file.
func (p *Probe) Action(s string) (line, column int, action string, ok bool) {
	first := len(s)
	var found piece
	for w, from := range p.actions {
		if i := strings.Index(s, w); i >= 0 && i < first {
			first, found, ok = i, from, true
		}
	}
	if !ok {
		return 0, 0, "", false
	}
	line, column = place(p.source, found.source)
	return line, column, oneLine(found.action), true
}
