package compose

import (
	"path"
	"strings"

	"drover/internal/doctor"
)

func clean(p string) string { return path.Clean("/" + p) }

// readMounts collects the mounts: of two at one place the later one counts, and any of
// the file's over what the image declares.
func (s *service) readMounts() {
	var all []doctor.Mount
	for _, declared := range s.img.volumes {
		all = append(all, doctor.Mount{Kind: doctor.Volume, Target: clean(declared.Value), Where: declared.Where})
	}
	for _, n := range s.n.get("volumes").each() {
		switch n.kind {
		case scalar:
			all = append(all, s.short(n))
		case mapping:
			if m, ok := s.long(n); ok {
				all = append(all, m)
			}
		}
	}
	for _, item := range s.words(s.n.get("tmpfs")) {
		target, _, _ := strings.Cut(item.Value, ":")
		all = append(all, doctor.Mount{Kind: doctor.InMemory, Target: clean(target), Where: item.Where})
	}
	last := map[string]int{}
	for i, m := range all {
		last[m.Target] = i
	}
	for i, m := range all {
		if last[m.Target] == i {
			s.f.Mounts = append(s.f.Mounts, m)
		}
	}
	s.f.Borrowed = append(s.f.Borrowed, s.words(s.n.get("volumes_from"))...)
}

// short reads SOURCE:TARGET:OPTIONS, of which the target alone must be there.
func (s *service) short(n *node) doctor.Mount {
	m := doctor.Mount{Kind: doctor.Volume, Where: n.at}
	parts := colons(s.r.x.expand(n.text).text)
	if len(parts) == 1 {
		m.Target = clean(parts[0])
		return m
	}
	m.Source, m.Target = parts[0], clean(parts[1])
	if len(parts) > 2 {
		for option := range strings.SplitSeq(parts[2], ",") {
			m.ReadOnly = m.ReadOnly || option == "ro"
		}
	}
	if isPath(m.Source) {
		m.Kind = doctor.HostMount
		return m
	}
	s.named(&m)
	return m
}

// colons splits at the colons that are not within a variable's braces, nor behind the
// letter of a Windows drive, which a target follows.
func colons(text string) []string {
	var parts []string
	depth, begin := 0, 0
	for i := range len(text) {
		switch text[i] {
		case '{':
			depth++
		case '}':
			depth--
		case ':':
			drive := i == 1 && letter(text[0]) && strings.Contains(text[i+1:], ":/") && strings.ContainsAny(text[2:3], `/\`)
			if depth == 0 && !drive {
				parts = append(parts, text[begin:i])
				begin = i + 1
			}
		}
	}
	return append(parts, text[begin:])
}

func letter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// isPath says whether a source is a path on the host. What a variable that is not set
// stands for is not known: mostly one.
func isPath(source string) bool {
	return source != "" && (strings.ContainsRune("./~$", rune(source[0])) || len(source) > 2 && source[1] == ':')
}

// long reads the form with a key for each part.
func (s *service) long(n *node) (doctor.Mount, bool) {
	text := func(key string) string {
		if v := n.get(key); v != nil && v.kind == scalar {
			return s.r.x.expand(v.text).text
		}
		return ""
	}
	first := func(keys ...string) string {
		for _, key := range keys {
			if v := text(key); v != "" {
				return v
			}
		}
		return ""
	}
	m := doctor.Mount{Source: first("source", "src"), Target: clean(first("target", "destination", "dst")), ReadOnly: first("read_only", "readonly") == "true", Where: n.at}
	if len(n.keys) > 0 {
		m.Where = n.keys[0].at
	}
	switch text("type") {
	case "bind", "npipe":
		m.Kind = doctor.HostMount
	case "tmpfs":
		m.Kind = doctor.InMemory
	case "image":
		return m, false // the content of an image is the same everywhere
	case "cluster":
		m.Kind, m.Driver = doctor.Volume, "a cluster's volume plug-in"
	default:
		m.Kind = doctor.Volume
		if isPath(m.Source) {
			m.Kind = doctor.HostMount
			return m, true
		}
		s.named(&m)
	}
	return m, true
}

// named adds what the top of the file says about a Docker volume.
func (s *service) named(m *doctor.Mount) {
	text := func(n *node) string {
		if n == nil || n.kind != scalar {
			return ""
		}
		return s.r.x.expand(n.text).text
	}
	if n := s.n.get("volume_driver"); n != nil && text(n) != "local" {
		m.Driver = "driver " + text(n)
	}
	volume := s.p.volumes[m.Source]
	if driver := text(volume.get("driver")); driver != "" && driver != "local" {
		m.Driver = "driver " + driver
	}
	if external := volume.get("external"); external != nil {
		m.External = external.kind == mapping || text(external) == "true"
	}
	options := volume.get("driver_opts")
	if options == nil || len(options.keys) == 0 {
		return
	}
	kind, device := text(options.get("type")), text(options.get("device"))
	switch {
	case m.Driver != "":
	case kind == "tmpfs":
		m.Kind = doctor.InMemory
	case strings.Contains(text(options.get("o")), "bind"):
		m.Driver = "driver_opts: the host's " + device
	case kind != "":
		m.Driver = "driver_opts: type " + kind
	default:
		m.Driver = "driver_opts"
	}
}
