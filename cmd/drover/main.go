// Command drover is the agent and its command line.
package main

import (
	"os"

	"drover/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], cli.System()))
}
