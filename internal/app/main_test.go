package app

import (
	"os"
	"testing"

	"drover/internal/testkit/leak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(soakVar); dir != "" {
		os.Exit(soakAgent(dir))
	}
	leak.Main(m)
}
