package config

import (
	"strings"
	"testing"
)

func TestMirror(t *testing.T) {
	c, err := Load(sources(t, `
store: {url: "file:///bucket", password_file: /ours}
volume: wiki
mirror: {store: {url: "s3://other/wiki?credentials=/run/creds", password_file: /theirs}, every: 1m, keep: {daily: 7}}
`, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	m := c.MirrorConfig()
	if m.Store.URL != "s3://other/wiki?credentials=/run/creds" || m.Store.PasswordFile != "/theirs" || m.Volume != "wiki" || c.Mirror.MaxLag != DefaultMaxLag ||
		c.Mirror.Upkeep != DefaultUpkeep || c.Mirror.Keep.Daily != 7 || c.Upkeep.Keep.Daily != 0 {
		t.Errorf("%+v", m)
	}
	if c, err = Load(sources(t, "", nil, nil)); err != nil || c.MirrorConfig() != nil {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestMirrorErrors(t *testing.T) {
	const ours = "store: {url: 'file:///b', password: x}\n"
	for file, want := range map[string]string{
		ours + "mirror: {store: {url: 'file:///m'}}":                                          "no password given for the mirror",
		ours + "mirror: {store: {url: 'file:///b', password: y}}":                             "would be the volume itself",
		ours + "mirror: {store: {url: 'ftp://b', password: y}}":                               `no store of kind "ftp"`,
		ours + "mirror: {store: {url: 'file:///m', password: y, password_file: /z}}":          "more than one way",
		ours + "mirror: {store: {url: 'file:///m', password: y}, volume: drover}":             "is reserved",
		ours + "mirror: {store: {url: 'file:///m', password: y}, every: 1ms}":                 "too short",
		ours + "mirror: {store: {url: 'file:///m', password: y}, upkeep: 1ms}":                "too short",
		ours + "mirror: {store: {url: 'file:///m', password: y}, keep: {last: -1}}":           "cannot keep -1",
		ours + "mirror: {store: {url: 'file:///m', password: y}, upkeep: 0, keep: {last: 1}}": "without its upkeep",
		ours + "state: [/m/x]\nmirror: {store: {url: 'file:///m', password: y}}":              "overlap",
	} {
		_, err := Load(sources(t, file, nil, nil))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), ":") {
			t.Errorf("%s: %v, want %s", file, err, want)
		}
	}
}
