package config

import (
	"fmt"
	"maps"
	"strings"
)

// MirrorConfig is the configuration of the mirror as a volume: this one's, with another
// store, password and name. Nil if there is no mirror.
func (c *Config) MirrorConfig() *Config {
	return c.elsewhere("mirror.", c.Mirror.Store, c.Mirror.Volume)
}

// elsewhere is the configuration of another volume, which the keys below path give; nil if they do not.
func (c *Config) elsewhere(path string, store Store, volume string) *Config {
	if store.URL == "" {
		return nil
	}
	m := *c
	m.Store = store
	if volume != "" {
		m.Volume = volume
	}
	m.origin = maps.Clone(c.origin) // what is wrong with its store is path's
	maps.DeleteFunc(m.origin, func(path, _ string) bool { return strings.HasPrefix(path, "store") })
	for full, where := range c.origin {
		if inner, ok := strings.CutPrefix(full, path); ok {
			m.origin[inner] = where
		}
	}
	return &m
}

func (c *Config) checkMirror() error {
	m := c.MirrorConfig()
	if m == nil {
		return nil
	}
	for _, check := range []func() error{m.checkNames, m.checkOwnership, m.checkURL, m.checkPassword} {
		if err := check(); err != nil {
			return err
		}
	}
	switch {
	case m.Store.hasNoPassword():
		return c.origin.at("mirror.store", "no password given for the mirror", "set DROVER_MIRROR_PASSWORD, --mirror-password-file or mirror.store.password_file")
	case m.Store.URL == c.Store.URL && m.Volume == c.Volume:
		return c.origin.at("mirror", "the mirror would be the volume itself", "give another store or volume")
	case c.Mirror.Every < MinTTL:
		return c.origin.at("mirror.every", fmt.Sprintf("mirror interval %s is too short", c.Mirror.Every), "write 1s or more")
	case c.Mirror.Upkeep != 0 && c.Mirror.Upkeep < MinTTL:
		return c.origin.at("mirror.upkeep", fmt.Sprintf("upkeep interval %s is too short", c.Mirror.Upkeep), "write 1s or more, or 0 for no upkeep")
	case c.Mirror.Upkeep == 0 && c.Mirror.Keep != (Keep{}):
		return c.origin.at("mirror.keep", "a rule for the mirror without its upkeep", "nothing is removed with mirror.upkeep: 0")
	}
	if err := c.checkKeep("mirror.keep.", c.Mirror.Keep); err != nil {
		return err
	}
	for _, s := range c.State {
		if dir := m.storeDir(); dir != "" && overlap(s.Path, dir) {
			return c.origin.at("mirror.store.url", fmt.Sprintf("state path %q and the mirror's directory %q overlap", s.Path, dir), "keep the mirror elsewhere")
		}
	}
	return nil
}
