package render

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Result is what a template came to.
type Result struct {
	Template, Destination string
	Output                []byte
	// Old is the file in place before, nil if there was none.
	Old []byte
	// Secret says that the output may have secrets in it.
	Secret bool
}

// Changes says whether the file is, or would be, another one.
func (r Result) Changes() bool { return r.Old == nil || !bytes.Equal(r.Old, r.Output) }

// Once renders each template once, and returns when all are in place and what follows was
// done. With dry nothing is written, checked or done. It waits for what is missing until ctx ends; the
// error names what still is, or why a template cannot be rendered. Run is not called then.
func (e *Engine) Once(ctx context.Context, dry bool) ([]Result, error) {
	e.dry = dry
	results := make([]Result, len(e.templates))
	for i, t := range e.templates {
		results[i] = Result{Template: t.Name, Destination: t.Destination}
		if t.Destination == "" {
			continue
		}
		old, err := os.ReadFile(t.Destination)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("read the file in place: %w", err)
		}
		if err == nil {
			results[i].Old = append([]byte{}, old...)
		}
	}
	e.loop(ctx, e.state.settled)
	e.mu.Lock()
	defer e.mu.Unlock()
	var errs []error
	for i := range e.templates {
		results[i].Output, results[i].Secret = e.outputs[i].content, e.outputs[i].secret
		if err := e.unfinished(i); err != nil {
			errs = append(errs, err)
		}
	}
	return results, errors.Join(errs...)
}

// unfinished says why a template was not rendered, or what follows not done.
func (e *Engine) unfinished(i int) error {
	s := e.status(i)
	switch {
	case s.Fault != "":
		return fmt.Errorf("render %s: %s", s.Template, s.Fault)
	case !s.Rendered && len(s.Missing) > 0:
		var list []string
		for _, m := range s.Missing {
			list = append(list, m.String())
		}
		return fmt.Errorf("render %s: missing: %s", s.Template, strings.Join(list, "; "))
	case !s.Rendered:
		return fmt.Errorf("render %s: stopped before it was done", s.Template)
	case s.Unacted != "":
		return fmt.Errorf("act on %s: %s", s.Template, s.Unacted)
	}
	return nil
}
