package cli

import "github.com/spf13/cobra"

func (s *session) completionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	cmd := &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print a script that completes commands in a shell",
		Long:  "Prints the completion script of a shell.\n\n" + exitHelp(exitOK, exitUsage),
		Example: `  source <(drover completion bash)
  drover completion zsh > "${fpath[1]}/_drover"
  drover completion fish | source`,
		ValidArgs: shells,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{"name one shell", "bash, zsh, fish or powershell"}
			}
			return nil
		},
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		root := cmd.Root()
		switch args[0] {
		case "bash":
			return root.GenBashCompletionV2(s.Out, true)
		case "zsh":
			return root.GenZshCompletion(s.Out)
		case "fish":
			return root.GenFishCompletion(s.Out, true)
		case "powershell":
			return root.GenPowerShellCompletionWithDesc(s.Out)
		}
		return usageError{"no completion for " + quoted(args[0]), "bash, zsh, fish or powershell"}
	}
	return cmd
}
