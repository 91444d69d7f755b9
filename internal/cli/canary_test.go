package cli

import (
	"testing"
)

func testSecretsStory(t *testing.T, binary string) {}
