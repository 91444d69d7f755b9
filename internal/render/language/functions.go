package language

import (
	"fmt"
	"maps"
	"path"
	"text/template"

	"github.com/Masterminds/sprig/v3"
)

// functions are all that a template can call. Those of an execution go through t.run.
func (t *Template) functions() (template.FuncMap, error) {
	all := template.FuncMap{}
	for name, f := range sprig.HermeticTxtFuncMap() {
		all["sprig_"+name] = f
	}
	for _, group := range []template.FuncMap{
		t.reads(), t.environment(), texts(), encodings(), collections(), arithmetic(), t.effects(), absent(),
	} {
		maps.Copy(all, group)
	}
	for _, pattern := range t.opt.Deny {
		if _, err := path.Match(pattern, ""); err != nil {
			return nil, fmt.Errorf("denied functions %q: %w", pattern, err)
		}
		for name := range all {
			if denied, _ := path.Match(pattern, name); denied {
				all[name] = func(...any) (string, error) { return "", fmt.Errorf("function %s is disabled", name) }
			}
		}
	}
	return all, nil
}

// absent are functions of consul-template that are here only to say why they are not.
func absent() template.FuncMap {
	const (
		mesh  = "Consul's service mesh and its enterprise features are not supported"
		nomad = "Nomad is not supported"
	)
	all := template.FuncMap{}
	for name, why := range map[string]string{
		"connect": mesh, "caRoots": mesh, "caLeaf": mesh, "partitions": mesh, "peerings": mesh, "exportedServices": mesh,
		"nomadServices": nomad, "nomadService": nomad, "nomadVar": nomad, "nomadVarList": nomad,
		"nomadVarListSafe": nomad, "nomadVarExists": nomad,
		"plugin": "no command is run while a template is executed; let a job write a file and read that with file",
	} {
		all[name] = func(...any) (string, error) { return "", fmt.Errorf("%s: %s", name, why) }
	}
	return all
}
