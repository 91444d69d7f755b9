package postgres

import (
	"strings"
	"testing"

	"drover/internal/failover"
)

func TestPositions(t *testing.T) {
	for _, c := range []struct {
		a, b  string
		order int
		ok    bool
	}{
		{"1/0/10", "1/0/10", 0, true},
		{"1/0/10", "1/0/11", -1, true},
		{"1/1/0", "1/0/FFFFFFFF", 1, true},
		{"1/0/10", "2/0/20<1/0/10", -1, true},
		{"1/0/11", "2/0/20<1/0/10", 0, false}, // it went on after the other had left
		{"2/0/20<1/0/10", "1/0/5", 1, true},
		{"2/0/20<1/0/10", "1/0/15", 0, false},
		{"2/0/20<1/0/10", "2/0/30<1/0/10", -1, true},
		{"2/0/20<1/0/10", "2/0/30<1/0/11", 0, false}, // two with the same number
		{"3/0/30<1/0/10", "2/0/20<1/0/10", 0, false},
		{"3/0/30<2/0/25<1/0/10", "2/0/20<1/0/10", 1, true},
		{"3/0/30<2/0/25<1/0/10", "2/0/25<1/0/10", 1, true},
		{"3/0/30<2/0/25<1/0/10", "1/0/10", 1, true},
		{"2/0/20", "2/0/30<1/0/10", -1, true}, // the history of one is not known
		{"", "1/0/10", 0, false},
		{"1/0/10", "?", 0, false},
		{"1/0/10<2/0/5", "1/0/10", 0, false},
		{"0/0/10", "1/0/10", 0, false},
		{"1/100000000/0", "1/0/10", 0, false},
	} {
		d := &Driver{}
		if order, ok := d.Compare(c.a, c.b); order != c.order || ok != c.ok {
			t.Errorf("%q and %q: %d, %v, want %d, %v", c.a, c.b, order, ok, c.order, c.ok)
		}
		if order, ok := d.Compare(c.b, c.a); order != -c.order || ok != c.ok {
			t.Errorf("%q and %q: %d, %v, want %d, %v", c.b, c.a, order, ok, -c.order, c.ok)
		}
	}
}

func FuzzPosition(f *testing.F) {
	f.Add("2/0/5000148<1/0/3000158", "1/0/10")
	f.Add("", "4294967296/0/0")
	f.Fuzz(func(t *testing.T, a, b string) {
		d := &Driver{}
		order, ok := d.Compare(a, b)
		back, same := d.Compare(b, a)
		if ok != same || order != -back || order < -1 || order > 1 {
			t.Errorf("%q and %q: %d, %v; the other way round %d, %v", a, b, order, ok, back, same)
		}
		p, err := parsePosition(a)
		if err != nil {
			return
		}
		again, err := parsePosition(p.String())
		if err != nil || again.String() != p.String() {
			t.Errorf("%q is written %q, and read as %q (%v)", a, p, again, err)
		}
		if order, ok := compare(p, again); order != 0 || !ok {
			t.Errorf("%q is not itself", a)
		}
		if at := p.back(p.end / 2); at.end != p.end/2 {
			t.Errorf("back to %s is %s", p.end/2, at)
		}
	})
}

func FuzzHistory(f *testing.F) {
	f.Add("1\t0/3000158\tno recovery target specified\n\n2\t0/4000000\tbefore 2020\n")
	f.Add("# nothing\n")
	f.Fuzz(func(t *testing.T, text string) {
		spans, err := parseHistory(text)
		if err != nil {
			return
		}
		for i, s := range spans {
			if s.timeline == 0 || i > 0 && s.timeline >= spans[i-1].timeline {
				t.Errorf("%q has the timelines %v", text, spans)
			}
		}
	})
}

func TestHistory(t *testing.T) {
	spans, err := parseHistory("1\t0/3000158\tno recovery target specified\n\n2\t1/AB\tbefore 2020\n")
	if err != nil || place(3, 0x20, spans).String() != "3/0/20<2/1/AB<1/0/3000158" {
		t.Errorf("%v %v", spans, err)
	}
	for _, bad := range []string{"1", "x\t0/1", "2\t0/1\n1\t0/2", "1\tnowhere"} {
		if spans, err := parseHistory(bad); err == nil {
			t.Errorf("%q is a history: %v", bad, spans)
		}
	}
}

// unconf reads a quoted value as PostgreSQL does: one line, doubled quotes, backslashes before anything.
func unconf(t *testing.T, s string) string {
	t.Helper()
	if strings.ContainsAny(s, "\n\r") || len(s) < 2 || s[0] != '\'' || s[len(s)-1] != '\'' {
		t.Fatalf("%q is not one value", s)
	}
	var out strings.Builder
	for body := s[1 : len(s)-1]; body != ""; body = body[1:] {
		switch {
		case body[0] == '\'':
			if len(body) < 2 || body[1] != '\'' {
				t.Fatalf("%q ends early", s)
			}
			out.WriteByte('\'')
			body = body[1:]
		case body[0] == '\\':
			if len(body) < 2 {
				t.Fatalf("%q does not end", s)
			}
			c := body[1]
			if i := strings.IndexByte("nr", c); i >= 0 {
				c = "\n\r"[i]
			}
			out.WriteByte(c)
			body = body[1:]
		default:
			out.WriteByte(body[0])
		}
	}
	return out.String()
}

func FuzzQuoting(f *testing.F) {
	for _, s := range []string{"", "'", `\`, "a\nb = 'c'", `\'`, "''; DROP", "a:b\\c", "\x7f é", `"`, "a b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.Contains(s, "\x00") {
			return
		}
		if got := unconf(t, confValue(s)); got != s {
			t.Errorf("confValue(%q) is read as %q", s, got)
		}
		info := infoValue(s) // libpq: backslashes, and nothing else
		body := info[1 : len(info)-1]
		var out strings.Builder
		for i := 0; i < len(body); i++ {
			if body[i] == '\\' {
				i++
			} else if body[i] == '\'' {
				t.Fatalf("infoValue(%q) ends early: %s", s, info)
			}
			out.WriteByte(body[i])
		}
		if out.String() != s {
			t.Errorf("infoValue(%q) is read as %q", s, out.String())
		}
		if id := ident(s); strings.ReplaceAll(id[1:len(id)-1], `""`, "") != strings.ReplaceAll(s, `"`, "") {
			t.Errorf("ident(%q) is %s", s, id)
		}
		lit := strings.TrimPrefix(strings.TrimSpace(literal(s)), "E")
		if n := strings.Count(strings.ReplaceAll(lit[1:len(lit)-1], "''", ""), "'"); n > 0 {
			t.Errorf("literal(%q) is %s", s, lit)
		}
		if line, err := passLine("u", s); err == nil && strings.Count(line, "\n") != 1 {
			t.Errorf("passLine(%q) is %q", s, line)
		}
	})
}

func TestPasswordLines(t *testing.T) {
	if line, err := passLine("repl", `a:b\c`); err != nil || line != `*:*:*:repl:a\:b\\c`+"\n" {
		t.Errorf("%q %v", line, err)
	}
	for _, bad := range []string{"", "a\nb", "a\rb", "a\x00b"} {
		if line, err := passLine("repl", bad); err == nil {
			t.Errorf("the password %q makes %q", bad, line)
		}
	}
}

func TestSlotNames(t *testing.T) {
	seen := map[string]string{}
	for _, id := range []string{"a-b", "a_b", "ab", "a-2db", strings.Repeat("x", 63), strings.Repeat("x", 62) + "y", strings.Repeat("-", 30)} {
		name := slotName(id)
		if len(name) > 63 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
			t.Errorf("%q is no slot's name (%s)", name, id)
		}
		if other, twice := seen[name]; twice {
			t.Errorf("%s and %s have the same slot %s", id, other, name)
		}
		seen[name] = id
	}
	if slotName("ABC") != slotName("abc") {
		t.Error("PostgreSQL makes no difference between ABC and abc")
	}
}

func TestSets(t *testing.T) {
	for text, s := range map[string]failover.SyncSet{
		"":                    {},
		`ANY 1 ("-")`:         {Acks: 1},
		`ANY 2 ("-")`:         {Acks: 2},
		`ANY 2 ("a","b","c")`: {Acks: 2, Members: []string{"a", "b", "c"}},
	} {
		if got := syncNames(s); got != text {
			t.Errorf("%+v is %q, want %q", s, got, text)
		}
		if got := parseSyncNames(text); !got.Equal(s) {
			t.Errorf("%q is %+v, want %+v", text, got, s)
		}
	}
	for _, foreign := range []string{"*", "a", "FIRST 1 (a)", "ANY 1 (a)", `ANY 1 ("a"`, "ANY 0 ()", `ANY 1 (*)`} {
		if got := parseSyncNames(foreign); !got.Equal(failover.SyncSet{}) {
			t.Errorf("%q is %+v", foreign, got)
		}
	}
	if names := syncNames(failover.SyncSet{Members: []string{"a"}}); names != "" {
		t.Errorf("a set of which nobody need acknowledge is %q", names)
	}
	for _, bad := range []failover.SyncSet{
		{Members: []string{"*"}, Acks: 1}, {Members: []string{`a"`}, Acks: 1}, {Members: []string{"a", "A"}, Acks: 1},
		{Members: []string{"a"}, Acks: 2}, {Acks: -1}, {Members: []string{"-"}, Acks: 1}, {Members: []string{strings.Repeat("x", 64)}, Acks: 1},
	} {
		if err := checkSet(bad); err == nil {
			t.Errorf("%+v is a set", bad)
		}
	}
}

func FuzzSets(f *testing.F) {
	f.Add(`ANY 2 ("a","b")`)
	f.Add(`ANY 1 ("-")`)
	f.Fuzz(func(t *testing.T, s string) {
		if set := parseSyncNames(s); set.Acks > 0 && syncNames(set) != s {
			t.Errorf("%q is %+v, which is %q", s, set, syncNames(set))
		}
	})
}
