package config

import (
	"strings"
	"testing"
)

func TestOwnership(t *testing.T) {
	for text, want := range map[string]string{
		"ownership: slot\nslots: 3":                 "",
		"ownership: slot\nslots: 1000":              "",
		"ownership: each":                           "",
		"ownership: slot":                           "drover.yaml:1:12: ownership is slot, and how many",
		"ownership: slot\nslots: 0":                 "drover.yaml:2:8: 0 slots are out of range",
		"ownership: slot\nslots: 1001":              "drover.yaml:2:8: 1001 slots are out of range",
		"slots: 3":                                  "drover.yaml:1:8: slots is given, and ownership is single",
		"ownership: each\nslots: 3":                 "drover.yaml:2:8: slots is given, and ownership is each",
		"ownership: many":                           "drover.yaml:1:12: ",
		"volume: drover\nownership: slot\nslots: 3": `volume name "drover" is reserved`,
		"ownership: slot\nslots: 11\nvolume: " + strings.Repeat("a", 61): "drover.yaml:3:9: the last slot's volume name",
		"ownership: slot\nslots: 10\nvolume: " + strings.Repeat("a", 61): "",
		"ownership: each\nid: a/b":                                       `drover.yaml:2:5: this instance's volume name "data-a/b" is not valid`,
	} {
		c := Default()
		err := decodeFile(c, "drover.yaml", []byte(text))
		if err == nil {
			if c.ID == "" {
				c.ID = "web-1"
			}
			for _, check := range []func() error{c.checkNames, c.checkOwnership} {
				if err == nil {
					err = check()
				}
			}
		}
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestSelect(t *testing.T) {
	c := &Config{Volume: "data", ID: "web-1", Ownership: OwnershipSlot, Slots: 3, Mirror: Mirror{Volume: "copy"}}
	each := &Config{Volume: "data", ID: "web-1", Ownership: OwnershipEach}
	for _, x := range []struct {
		got  *Config
		want string
	}{
		{c.Select(2, false), "data-2"}, {c.Select(-1, true), "data"}, {c.Select(-1, false), "data"},
		{each.Select(-1, false), "data-web-1"}, {each.Select(-1, true), "data"},
	} {
		if x.got.Volume != x.want {
			t.Errorf("%s, want %s", x.got.Volume, x.want)
		}
	}
	if got := c.Slot(2).Mirror.Volume; got != "copy-2" {
		t.Errorf("mirror %s", got)
	}
	if c.Select(-1, false).CheckVolume() == nil {
		t.Error("no slot was said, and one volume is taken")
	}
}
