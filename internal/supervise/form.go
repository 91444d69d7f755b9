package supervise

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"sync"
	"time"
)

// Form is what becomes of the lines that a job writes.
type Form uint8

const (
	FormRaw    Form = iota // as they are
	FormPrefix             // behind Job.Prefix
	FormJSON               // as objects: time, job, stream and msg, or the line's own fields
)

var streamNames = [...]string{"stdout", "stderr"}

// form is that of one output of a job.
type form struct {
	kind        Form
	prefix      string
	job, stream string
}

func (j *job) form(stream int) form {
	kind := j.Form
	if kind == FormRaw && j.Prefix != "" {
		kind = FormPrefix
	}
	return form{kind: kind, prefix: j.Prefix, job: j.Name, stream: streamNames[stream]}
}

// line appends one line, which has no line break, in its form.
func (f form) line(out, line []byte) []byte {
	switch f.kind {
	case FormPrefix:
		out = append(out, f.prefix...)
	case FormJSON:
		return append(f.object(out, line), '\n')
	}
	return append(append(out, line...), '\n')
}

// object makes an object of a line. One that is an object already keeps its fields, in
// their order; the job's name goes before them, unless it has that field.
func (f form) object(out, line []byte) []byte {
	line = bytes.TrimSpace(line)
	if len(line) > 1 && line[0] == '{' && json.Valid(line) {
		var fields map[string]json.RawMessage
		_ = json.Unmarshal(line, &fields) // valid: it was just asked
		if _, has := fields["job"]; has {
			return append(out, line...)
		}
		out = append(out, `{"job":`...)
		out = append(out, quoted(f.job)...)
		if len(fields) > 0 {
			out = append(out, ',')
		}
		return append(out, bytes.TrimSpace(line[1:])...)
	}
	out = append(out, `{"time":"`...)
	out = time.Now().UTC().AppendFormat(out, time.RFC3339Nano)
	out = append(append(out, `","job":`...), quoted(f.job)...)
	out = append(append(out, `,"stream":`...), quoted(f.stream)...)
	out = append(append(out, `,"msg":`...), quoted(string(line))...)
	return append(out, '}')
}

func quoted(s string) []byte {
	text, _ := json.Marshal(strings.ToValidUTF8(s, "\uFFFD")) // a string has no error
	return text
}

// matcher looks for a line.
type matcher struct {
	pattern *regexp.Regexp
	found   func()

	mu   sync.Mutex
	over bool
}

// tap is for one stream: lines of two do not mix.
func (m *matcher) tap() func([]byte) {
	var line []byte
	return func(chunk []byte) {
		m.mu.Lock()
		defer m.mu.Unlock()
		for len(chunk) > 0 && !m.over {
			end := bytes.IndexByte(chunk, '\n')
			part := chunk
			if end >= 0 {
				part = chunk[:end]
			}
			line = append(line, part[:min(len(part), longLine-len(line))]...)
			if end < 0 {
				return
			}
			chunk = chunk[end+1:]
			if m.pattern.Match(line) {
				m.over = true
				m.found()
			}
			line = line[:0]
		}
	}
}

func splitLines(text []byte) []string { return strings.Split(strings.TrimSpace(string(text)), "\n") }
