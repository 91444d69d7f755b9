package pgbackup

import (
	"testing"

	"drover/internal/testkit/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }
