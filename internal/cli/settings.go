package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"drover/internal/app"
)

// settingValue collects what a flag was given; package config reads it.
type settingValue struct {
	setting app.Setting
	values  []string
}

func (v *settingValue) String() string { return strings.Join(v.values, ",") }

func (v *settingValue) Set(s string) error {
	if !v.setting.Repeat {
		v.values = nil
	}
	v.values = append(v.values, s)
	return nil
}

// Type is what help shows for the value.
func (v *settingValue) Type() string {
	if v.setting.Value == "" {
		return "bool" // shown as a switch
	}
	return v.setting.Value
}

// slotFlag says which slot's volume a command works on.
const slotFlag = "slot"

// addSettings gives a command the flags of the groups.
func addSettings(flags *pflag.FlagSet, cmd *cobra.Command, groups ...app.Group) {
	if slices.Contains(groups, app.GroupStore) && cmd.Name() != runName && cmd.Name() != configName {
		flags.Int(slotFlag, 0, "the volume of slot `I`, with ownership slot")
	}
	for _, setting := range app.Settings() {
		if setting.Flag != "" && slices.Contains(groups, setting.Group) {
			addSetting(flags, cmd, setting)
		}
	}
}

// addSetting gives a command the flag of one setting.
func addSetting(flags *pflag.FlagSet, cmd *cobra.Command, setting app.Setting) {
	flag := flags.VarPF(&settingValue{setting: setting}, setting.Flag, "", setting.Help)
	if setting.Value == "" {
		flag.NoOptDefVal = "true"
	}
	complete := cobra.FixedCompletions(nil, cobra.ShellCompDirectiveNoFileComp)
	switch {
	case strings.Contains(setting.Value, "|"):
		complete = cobra.FixedCompletions(strings.Split(setting.Value, "|"), cobra.ShellCompDirectiveNoFileComp)
	case setting.Value == "PATH", setting.Value == "FILE":
		return
	case setting.Value == "DIR":
		complete = cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs)
	}
	// It fails only for a flag that does not exist or is completed already.
	_ = cmd.RegisterFlagCompletionFunc(setting.Flag, complete)
}

// givenSettings are the values of the setting flags on the command line, by flag.
func givenSettings(cmd *cobra.Command) map[string][]string {
	given := map[string][]string{}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if v, ok := f.Value.(*settingValue); ok {
			given[f.Name] = v.values
		}
	})
	return given
}

// durationValue is a flag that holds a length of time, as the configuration writes it.
type durationValue struct{ app.Duration }

func (v *durationValue) Set(s string) error { return v.UnmarshalText([]byte(s)) }
func (v *durationValue) Type() string       { return "TIME" }
func (v *durationValue) String() string {
	if v.Duration == 0 {
		return ""
	}
	return v.Duration.String()
}
