package app

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/volume"
)

// No policy removes the base backup of a database, and nobody does by name.
func TestForgetSparesBaseBackups(t *testing.T) {
	var all []volume.Entry
	for i := range 6 {
		sn := &format.Snapshot{Time: time.Now().Add(time.Duration(i-6) * time.Hour)}
		if i%2 == 0 {
			sn.Tags = []string{volume.ReferredTag + "42"}
		}
		all = append(all, volume.Entry{SnapshotRef: repo.SnapshotRef{ID: format.ID{byte(i)}, Snapshot: sn}, Committed: true, Head: i == 5})
	}
	doomed, err := choose(all, ForgetOptions{Last: 1})
	if got := fmt.Sprint(doomed); err != nil || len(doomed) != 2 || !doomed[format.ID{1}] || !doomed[format.ID{3}] {
		t.Errorf("%s would go (%v), want 1 and 3", got, err)
	}
	if _, err := choose(all, ForgetOptions{Snapshots: []string{all[2].ID.String()}}); err == nil || !strings.Contains(err.Error(), "database.backup.keep") {
		t.Errorf("by name: %v", err)
	}
}
