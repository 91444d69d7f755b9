package compose

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"drover/internal/doctor"
)

// image is what a Dockerfile says about the container: that of its last stage, or of the
// one that is built, and of the stages that it begins with.
type image struct {
	entry, command line
	env            []variable
	volumes        []doctor.Item
	signal         doctor.Item
	health         doctor.Health
	healthAt       string
}

type line struct {
	argv []string
	at   string
}

// readImage reads the Dockerfile of a service that is built here.
func (s *service) readImage() {
	build := s.n.get("build")
	if build == nil || build.kind == null {
		return
	}
	context, name, target := build, "Dockerfile", ""
	if build.kind == mapping {
		context = build.get("context")
		if n := build.get("dockerfile"); n != nil {
			name = s.r.x.expand(n.text).text
		}
		if n := build.get("target"); n != nil {
			target = s.r.x.expand(n.text).text
		}
		if n := build.get("dockerfile_inline"); n != nil {
			s.img = parseDockerfile(func(int) string { return n.at }, []byte(n.text), target)
			return
		}
	}
	dir := "."
	if context != nil && context.kind == scalar {
		v := s.r.x.expand(context.text)
		if dir = v.text; !v.whole || remote(dir) {
			return
		}
	}
	file := beside(beside(s.p.name, dir)+"/.", name)
	data, err := s.r.open(file)
	if err != nil || len(data) > maxFile {
		return // it may be made by the build; the image is then as unknown as any other
	}
	s.img = parseDockerfile(func(line int) string { return fmt.Sprintf("%s:%d:1", file, line) }, data, target)
}

// instruction is one line of a Dockerfile, its continuations joined.
type instruction struct {
	name, rest string
	at         string
}

// stage is what one FROM begins.
type stage struct {
	name, from string
	lines      []instruction
}

// parseDockerfile reads one; at is the place of a line.
func parseDockerfile(at func(line int) string, data []byte, target string) image {
	var stages []stage
	for _, in := range instructions(at, data) {
		if in.name == "FROM" {
			words := slices.DeleteFunc(strings.Fields(in.rest), func(w string) bool { return strings.HasPrefix(w, "--") })
			var st stage
			if len(words) > 0 {
				st.from = words[0]
			}
			if len(words) > 2 && strings.EqualFold(words[1], "as") {
				st.name = words[2]
			}
			stages = append(stages, st)
		} else if len(stages) > 0 {
			stages[len(stages)-1].lines = append(stages[len(stages)-1].lines, in)
		}
	}
	built := len(stages) - 1
	if i := named(stages, target); target != "" && i >= 0 {
		built = i
	}
	var img image
	for _, i := range ancestors(stages, built) {
		for _, in := range stages[i].lines {
			img.apply(in)
		}
	}
	return img
}

func named(stages []stage, name string) int {
	return slices.IndexFunc(stages, func(st stage) bool { return st.name != "" && strings.EqualFold(st.name, name) })
}

// ancestors are the stages that stage i begins with, the first one first, and itself.
func ancestors(stages []stage, i int) []int {
	var chain []int
	for i >= 0 {
		chain = append(chain, i)
		i = named(stages[:i], stages[i].from)
	}
	slices.Reverse(chain)
	return chain
}

func instructions(at func(line int) string, data []byte) []instruction {
	var all []instruction
	var open *instruction
	heredoc, number := "", 0
	for raw := range bytes.Lines(data) {
		number++
		text := strings.TrimSpace(string(raw))
		switch {
		case heredoc != "":
			if text == heredoc {
				heredoc = ""
			}
			continue
		case text == "" || text[0] == '#':
			continue
		case open == nil:
			name, rest, _ := strings.Cut(text, " ")
			all = append(all, instruction{strings.ToUpper(name), "", at(number)})
			open, text = &all[len(all)-1], strings.TrimSpace(rest)
		}
		more := strings.HasSuffix(text, "\\")
		open.rest += strings.TrimSuffix(text, "\\") + " "
		if !more {
			heredoc = heredocOf(open)
			open.rest, open = strings.TrimSpace(open.rest), nil
		}
	}
	return all
}

// heredocOf is the word that ends the text after the instruction, if there is any.
func heredocOf(in *instruction) string {
	_, after, found := strings.Cut(in.rest, "<<")
	if !found || in.name != "RUN" && in.name != "COPY" && in.name != "ADD" {
		return ""
	}
	word, _, _ := strings.Cut(strings.TrimPrefix(after, "-"), " ")
	return strings.Trim(word, `"'`)
}

func (img *image) apply(in instruction) {
	switch in.name {
	case "ENTRYPOINT":
		img.entry, img.command = commandLine(in), line{}
	case "CMD":
		img.command = commandLine(in)
	case "VOLUME":
		var list []string
		if json.Unmarshal([]byte(in.rest), &list) != nil {
			list = strings.Fields(in.rest)
		}
		for _, v := range list {
			img.volumes = append(img.volumes, doctor.Item{Value: v, Where: in.at})
		}
	case "STOPSIGNAL":
		if !strings.Contains(in.rest, "$") {
			img.signal = doctor.Item{Value: in.rest, Where: in.at}
		}
	case "HEALTHCHECK":
		img.health, img.healthAt = doctor.HealthChecked, in.at
		if strings.EqualFold(in.rest, "NONE") {
			img.health = doctor.HealthOff
		}
	case "ENV":
		img.addEnv(in)
	}
}

// commandLine is a list as it stands; a text is run by a shell.
func commandLine(in instruction) line {
	var list []string
	if json.Unmarshal([]byte(in.rest), &list) == nil {
		return line{list, in.at}
	}
	return line{[]string{"/bin/sh", "-c", in.rest}, in.at}
}

// addEnv reads NAME=VALUE … or, of old, NAME VALUE. What refers to another variable
// of the build is not known.
func (img *image) addEnv(in instruction) {
	add := func(name, text string) {
		v := value{text: text, whole: !strings.Contains(text, "$")}
		img.env = append(img.env, variable{name, v, true, in.at})
	}
	name, rest, _ := strings.Cut(in.rest, " ")
	if !strings.Contains(name, "=") {
		add(name, strings.TrimSpace(rest))
		return
	}
	for _, word := range split(in.rest) {
		if name, text, ok := strings.Cut(word, "="); ok {
			add(name, text)
		}
	}
}
