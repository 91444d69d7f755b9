// Package containerpilot turns a configuration of ContainerPilot, version 2 or 3, into a
// drover.yaml.
//
// It promises: the text that comes out is a configuration that Drover reads, once its
// template is carried out as ContainerPilot's would have been; nothing of the source is
// left out in silence: what has no equal is a comment in the text, and a Note with its
// line. The same source gives the same text.
//
// It leaves to others: reading files, and whether the commands are there. It decides
// alone: no clock, no environment, no disk. Templates are not carried out, but kept.
package containerpilot

import (
	"fmt"
	"strings"
)

// Options is what the source does not say.
type Options struct {
	Command []string // the application's, which version 2 has on its command line
}

// Result is a configuration for Drover.
type Result struct {
	Version int    `json:"version"` // of ContainerPilot: 2 or 3
	Text    string `json:"text"`
	Notes   []Note `json:"notes"` // in the order of the source's lines
}

// Note is something of the source that Drover does otherwise, or not.
type Note struct {
	Line   int    `json:"line"`
	Column int    `json:"column"`
	Key    string `json:"key"`  // as in "jobs[2].port"
	Text   string `json:"text"` // the value as it stands, shortened
	What   string `json:"what"`
}

// Error is a source that cannot be read.
type Error struct {
	Line, Column int // from 1, columns in characters
	What, Hint   string
}

// Error is the sentence without the place.
func (e *Error) Error() string {
	if e.Hint == "" {
		return e.What
	}
	return e.What + "; " + e.Hint
}

// maxSource is far above any configuration that a person wrote.
const maxSource = 1 << 20

// Convert reads a source and writes the configuration.
func Convert(source string, opt Options) (Result, error) {
	source = strings.TrimPrefix(source, "\uFEFF")
	if len(source) > maxSource {
		return Result{}, &Error{Line: 1, Column: 1, What: fmt.Sprintf("file of %d bytes is too large", len(source)), Hint: fmt.Sprintf("at most %d", maxSource)}
	}
	root, before, err := parse(source)
	if err != nil {
		return Result{}, err
	}
	version := versionOf(root)
	c := &conversion{version: version, source: source, opt: opt, names: map[string]bool{}, told: map[string]bool{}}
	c.head(version)
	c.findCatalog(root)
	for _, e := range before {
		c.control(0, e)
	}
	if version == 2 {
		c.version2(root)
	} else {
		c.version3(root)
	}
	c.callers()
	c.sortNotes()
	return Result{Version: version, Text: c.out.text(), Notes: c.notes}, nil
}

// versionOf tells by the keys that only one version has.
func versionOf(root *node) int {
	two := []string{"services", "backends", "coprocesses", "tasks", "preStart", "onStart", "preStop", "postStop", "etcd"}
	version := 3
	for _, e := range root.entries {
		switch {
		case e.key == "jobs" || e.key == "watches" || e.key == "control":
			return 3
		case contains(two, e.key), e.key == "telemetry" && e.value.get("sensors") != nil:
			version = 2
		}
	}
	return version
}

func (c *conversion) head(version int) {
	c.out.comment(0, fmt.Sprintf("Made from a configuration of ContainerPilot %d by drover convert containerpilot.", version))
	c.out.comment(0, "What has no equal is kept in comments that begin with \"containerpilot:\".")
	if version == 3 {
		c.out.comment(0, "No job is main: the instance ends when all have ended, as with ContainerPilot.")
		c.out.comment(0, "To have one job's end be the instance's, write main: true in it.")
	}
	c.out.add(0, "")
}

// callers notes commands that speak to ContainerPilot itself.
func (c *conversion) callers() {
	for _, word := range []string{"CONTAINERPILOT_", "containerpilot -", "containerpilot.socket"} {
		if at := strings.Index(c.source, word); at >= 0 {
			c.noteAt(at, "", word, "is of ContainerPilot, and nothing in a job's environment is any more; drover has commands and a socket of its own")
			return
		}
	}
}

func contains(list []string, word string) bool {
	for _, w := range list {
		if w == word {
			return true
		}
	}
	return false
}
