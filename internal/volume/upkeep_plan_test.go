package volume

import (
	"slices"
	"testing"
	"time"

	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/volume/protocol"
)

// What becomes of one condemned pack, by what is known of it. The rows are the rules of
// adr/0009; the fourth is a counterexample of the model's: a pack that somebody else took
// out of the index while another one was reading that.
func TestPlanOfACondemnedPack(t *testing.T) {
	id := format.ID{1}
	reader := owners{owner{host: "elsewhere", pid: 7}: repo.LockInfo{}}
	none := owners{}
	const grace = time.Hour
	for what, c := range map[string]struct {
		use   repo.PackUse
		s     sentence
		locks owners
		now   time.Duration
		want  string
	}{
		"in its grace":                          {repo.PackUse{Size: 9, Indexed: true}, sentence{}, none, grace - 1, "due"},
		"after it":                              {repo.PackUse{Size: 9, Indexed: true}, sentence{}, none, grace, "drop"},
		"after it, beside a reader":             {repo.PackUse{Size: 9, Indexed: true}, sentence{locks: none}, reader, grace, "waits"},
		"taken out by somebody else":            {repo.PackUse{Size: 9}, sentence{locks: none}, reader, grace, "found"},
		"that, and nobody is there":             {repo.PackUse{Size: 9}, sentence{locks: none}, none, grace, "found"},
		"out, and a reader of then is there":    {repo.PackUse{Size: 9}, sentence{out: reader}, reader, grace, "waits"},
		"out, and that one has gone":            {repo.PackUse{Size: 9}, sentence{out: reader}, none, grace, "remove"},
		"out, and a reader has come since":      {repo.PackUse{Size: 9}, sentence{out: none}, reader, grace, "remove"},
		"after twice the grace, a later reader": {repo.PackUse{Size: 9, Indexed: true}, sentence{locks: none}, reader, 2 * grace, "drop"},
		"that, but it was there before":         {repo.PackUse{Size: 9, Indexed: true}, sentence{locks: reader}, reader, 2 * grace, "waits"},
		"needed after all":                      {repo.PackUse{Size: 9, Indexed: true, Used: 1}, sentence{}, none, 9 * grace, "rescue"},
		"needed after all, and out":             {repo.PackUse{Size: 9, Used: 1}, sentence{out: none}, none, 9 * grace, "rescue"},
		"gone":                                  {repo.PackUse{Size: -1}, sentence{out: none}, none, grace, "forgive"},
		"gone, and in the index still":          {repo.PackUse{Size: -1, Indexed: true}, sentence{}, none, grace, "missing"},
	} {
		s := &repo.Survey{Packs: map[format.ID]repo.PackUse{id: c.use}}
		p := planUpkeep(s, map[format.ID]sentence{id: c.s}, c.locks, c.now, grace)
		var got []string
		for name, list := range map[string][]format.ID{
			"condemn": p.condemn, "rescue": p.rescue, "repack": p.repack, "drop": p.drop, "found": p.found,
			"remove": p.remove, "forgive": p.forgive, "missing": p.missing,
		} {
			if len(list) > 0 {
				got = append(got, name)
			}
		}
		if len(p.waits) > 0 {
			got = append(got, "waits")
		}
		if p.due > 0 {
			got = append(got, "due")
		}
		if !slices.Equal(got, []string{c.want}) {
			t.Errorf("%s: %v, want %s", what, got, c.want)
		}
	}
}

// Retention passes over what something beside the history refers to.
func TestSurplusSparesWhatIsReferredTo(t *testing.T) {
	now := time.Now()
	var all []kept
	for i := range 6 {
		sn := &format.Snapshot{Time: now.Add(time.Duration(i-6) * time.Hour), Tags: []string{"instance:i", "epoch:1", "seq:" + string(rune('1'+i))}}
		if i%2 == 0 {
			sn.Tags = append(sn.Tags, ReferredTag+"42")
		}
		k := keptOf(format.ID{byte(i)}, sn)
		k.Committed = true
		all = append(all, k)
	}
	var gone []byte
	for _, k := range surplus(all, protocol.Head{Epoch: 2}, Retention{Committed: repo.Policy{Last: 1}}, now) {
		gone = append(gone, k.ID[0])
	}
	slices.Sort(gone)
	if !slices.Equal(gone, []byte{1, 3}) {
		t.Errorf("%v would go, want 1 and 3", gone)
	}
}
