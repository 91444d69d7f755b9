// Package language is that of consul-template, on Go's text/template: the same
// functions, arguments and results, so that what is written for it renders the same bytes
// (the oracle test has the table of what does not, with the reasons).
//
// A template is a function from the values of its dependencies to bytes. It is executed
// with what is known, and says what it used and what it still misses; asking for it,
// executing again and writing are left to the caller. Nothing is written, and no command is
// run, while a template is executed. No error has the value of a secret or of a file in it.
package language

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/template"
	"time"
)

// Limits of one execution. They are far above what configuration files are, and end what
// would not end.
const (
	maxOutput = 64 << 20 // bytes
	maxTurns  = 4 << 20  // of loop, in all
	maxDepth  = 1000     // of executeTemplate in itself
)

var errTooLong = fmt.Errorf("output is longer than %d bytes", maxOutput)

// Options of Parse.
type Options struct {
	// LeftDelim and RightDelim; empty: {{ and }}.
	LeftDelim, RightDelim string
	// ErrorOnMissing makes it an error to index a map with a key that it has not.
	ErrorOnMissing bool
	// Deny are the functions that may not be called, * stands for anything.
	Deny []string
	// Sandbox is the directory that file must not leave; empty: none.
	Sandbox string
	// Destination is the file that is rendered: pkiCert takes a certificate that is still
	// good from it.
	Destination string
	// Env looks up variables.
	Env func(string) (string, bool)
	// Now is the time that timestamp shows.
	Now func() time.Time
	// Debug takes what spew_dump and spew_printf print; nil: nobody.
	Debug io.Writer
}

// Data is what is known.
type Data interface {
	// Value returns the newest value of a dependency, of the type that its Kind says, or
	// false if none is known.
	Value(Dependency) (any, bool)
}

// Missing is a dependency without which the output is not whole.
type Missing struct {
	Dependency
	// Why is what is known of it; empty: its value is not known.
	Why string
}

// File is what writeToFile asked for.
type File struct {
	Path, User, Group string
	Mode              uint32
	Append            bool
	Content           string
}

// Result of an execution.
type Result struct {
	Output  []byte       // whole only if Missing is empty
	Used    []Dependency // in the order in which they were first used
	Missing []Missing
	Files   []File // to be written before the output
	// Secret says that secrets were read, so that the output may have them in it.
	Secret bool
	// Private says that secrets or files were read: what quotes the output is not shown.
	Private bool
}

// Template is parsed once and executed often, by one goroutine at a time.
type Template struct {
	name string
	opt  Options
	tmpl *template.Template
	run  *run // of the execution that is under way
}

// Parse reads a template. The name is for errors.
func Parse(name, text string, opt Options) (*Template, error) {
	if opt.Env == nil {
		opt.Env = func(string) (string, bool) { return "", false }
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	t := &Template{name: name, opt: opt, tmpl: template.New(name)}
	missing := "missingkey=zero"
	if opt.ErrorOnMissing {
		missing = "missingkey=error"
	}
	functions, err := t.functions()
	if err != nil {
		return nil, err
	}
	t.tmpl.Delims(opt.LeftDelim, opt.RightDelim).Option(missing).Funcs(functions)
	if _, err := t.tmpl.Parse(text); err != nil {
		return nil, fmt.Errorf("parse template: %w", err)
	}
	return t, nil
}

// run is the state of one execution.
type run struct {
	data    Data
	result  Result
	used    map[Dependency]bool
	missing map[Dependency]bool
	scratch Scratch
	turns   int
	depth   int
}

// Execute renders with what is known. While something is missing, an error is none: it
// came of the gap, as likely as not, and Missing is what matters.
func (t *Template) Execute(data Data) (Result, error) {
	r := &run{data: data, used: map[Dependency]bool{}, missing: map[Dependency]bool{}}
	t.run = r
	defer func() { t.run = nil }()
	out := &bounded{left: maxOutput}
	err := t.tmpl.Execute(out, nil)
	if err != nil && len(r.result.Missing) == 0 {
		return r.result, fmt.Errorf("execute template: %w", t.told(err))
	}
	r.result.Output = out.Bytes()
	return r.result, nil
}

// told makes an error fit to be shown: what a function says of its arguments is left away
// if these may hold a secret.
func (t *Template) told(err error) error {
	if !t.run.result.Private {
		return err
	}
	const calling = "error calling "
	text := err.Error()
	if place, rest, found := strings.Cut(text, calling); found {
		function, _, _ := strings.Cut(rest, ":")
		return errors.New(place + calling + function + " (why is not shown: it may quote a secret or a file)")
	}
	return errors.New(text)
}

// value notes that d is used and returns its value, if it is known.
func (r *run) value(d Dependency) (any, bool) {
	if !r.used[d] {
		r.used[d] = true
		r.result.Used = append(r.result.Used, d)
	}
	switch d.Kind {
	case Secret, Certificate:
		r.result.Secret, r.result.Private = true, true
	case FileContent:
		r.result.Private = true
	}
	v, ok := r.data.Value(d)
	if !ok {
		r.miss(d, "")
	}
	return v, ok
}

func (r *run) miss(d Dependency, why string) {
	if !r.missing[d] {
		r.missing[d] = true
		r.result.Missing = append(r.result.Missing, Missing{d, why})
	}
}

// bounded is a buffer that ends.
type bounded struct {
	bytes.Buffer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, errTooLong
	}
	return b.Buffer.Write(p)
}
