package config

import (
	"fmt"
	"strconv"
)

// MaxSlots bounds what an instance that waits has to look at.
const MaxSlots = 1000

// For is the configuration of one of the volumes that an ownership of slot or each
// makes of the configured one: with the suffix on its name, and on its mirror's.
func (c *Config) For(suffix string) *Config {
	one := *c
	one.Ownership, one.Slots = OwnershipSingle, 0
	one.Volume += "-" + suffix
	if one.Mirror.Volume != "" {
		one.Mirror.Volume += "-" + suffix
	}
	return &one
}

// Slot is the configuration of one slot's volume.
func (c *Config) Slot(i int) *Config { return c.For(strconv.Itoa(i)) }

// Own is the configuration of the volume that is this instance's by its name, with
// ownership: each; else c.
func (c *Config) Own() *Config {
	if c.Ownership != OwnershipEach {
		return c
	}
	return c.For(c.ID)
}

// Select is the configuration for a command that works on one volume: that of the slot
// (0 or more), the one that --volume names, or what the ownership makes this instance's.
// Without any of them an ownership of slot stays one.
func (c *Config) Select(slot int, named bool) *Config {
	switch {
	case slot >= 0:
		return c.Slot(slot)
	case named:
		return c.Named(c.Volume)
	}
	return c.Own()
}

// Named is the configuration of one volume, by its whole name.
func (c *Config) Named(volume string) *Config {
	one := *c
	one.Ownership, one.Slots, one.Volume = OwnershipSingle, 0, volume
	return &one
}

// CheckVolume says whether one volume is meant, which can be opened.
func (c *Config) CheckVolume() error {
	if c.Ownership == OwnershipSlot {
		return &Error{What: "which slot is not said", Hint: fmt.Sprintf("add --slot I, or name its volume: --volume %s-I", c.Volume)}
	}
	return c.CheckStore()
}

func (c *Config) checkOwnership() error {
	switch c.Ownership {
	case OwnershipSlot:
		if !c.Given("slots") {
			return c.origin.at("ownership", "ownership is slot, and how many slots there are is not said", "set --slots N, DROVER_SLOTS or slots")
		}
		if c.Slots < 1 || c.Slots > MaxSlots {
			return c.origin.at("slots", fmt.Sprintf("%d slots are out of range", c.Slots), fmt.Sprintf("write a number from 1 to %d", MaxSlots))
		}
		if last := c.Slot(c.Slots - 1).Volume; !validName(last) {
			return c.origin.at("volume", fmt.Sprintf("the last slot's volume name %q is not valid", last), nameHint)
		}
	case OwnershipEach:
		if own := c.Own().Volume; !validName(own) {
			return c.origin.at("id", fmt.Sprintf("this instance's volume name %q is not valid", own), "set --id: "+nameHint)
		}
	}
	if c.Ownership != OwnershipSlot && c.Given("slots") {
		return c.origin.at("slots", fmt.Sprintf("slots is given, and ownership is %s", c.Ownership), "write ownership: slot, or take slots out")
	}
	return nil
}
