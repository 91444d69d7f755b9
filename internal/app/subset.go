package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"drover/internal/config"
	"drover/internal/repo"
	"drover/internal/repo/format"
)

// Subset says which packs a verify reads. The zero Subset is all of them.
type Subset struct {
	group, groups int     // 1 ≤ group ≤ groups; 0: not by groups
	percent       float64 // of the packs, or of their bytes if next; 0: not by percent
	bytes         int64   // at least so many; 0: not by size
	next          bool    // the packs that follow those of the last time, by id
}

// maxGroups is restic's: the group is told from the first byte of a pack's id.
const maxGroups = 256

var errSubset = errors.New("write n/t (group n of t, t up to 256), a percentage such as 5%, a size such as 10G, or next: before one of the last two")

// ParseSubset reads n/t, P%, SIZE, next:P% or next:SIZE. Without next they mean what
// restic's --read-data-subset means.
func ParseSubset(spec string) (Subset, error) {
	bad := func() (Subset, error) { return Subset{}, fmt.Errorf("%q is not a subset; %w", spec, errSubset) }
	rest, next := strings.CutPrefix(spec, "next:")
	s := Subset{next: next}
	if n, t, found := strings.Cut(rest, "/"); found {
		group, err := strconv.ParseUint(n, 10, 16)
		groups, err2 := strconv.ParseUint(t, 10, 16)
		if err != nil || err2 != nil || next || group < 1 || group > groups || groups > maxGroups {
			return bad()
		}
		s.group, s.groups = int(group), int(groups)
		return s, nil
	}
	if p, found := strings.CutSuffix(rest, "%"); found {
		percent, err := strconv.ParseFloat(p, 64)
		if err != nil || !(percent > 0 && percent <= 100) { // NaN is neither
			return bad()
		}
		s.percent = percent
		return s, nil
	}
	size, err := parseSize(rest)
	if err != nil || size < 1 {
		return bad()
	}
	s.bytes = int64(size)
	return s, nil
}

// parseSize takes restic's single letters besides the configuration's units.
func parseSize(text string) (size config.Size, err error) {
	if n := len(text); n > 1 && strings.ContainsRune("kKmMgGtT", rune(text[n-1])) {
		text = text[:n-1] + strings.ToUpper(text[n-1:]) + "iB"
	}
	return size, size.UnmarshalText([]byte(text))
}

// choose picks of packs, which are sorted by id. after is the last one of the time
// before, for next; shuffle is rand.Shuffle's like.
func (s Subset) choose(packs []repo.StoredPack, after format.ID, shuffle func(n int, swap func(i, j int))) []repo.StoredPack {
	if s.groups > 0 {
		return slices.DeleteFunc(packs, func(p repo.StoredPack) bool { return int(p.ID[0])%s.groups != s.group-1 })
	}
	if s.percent == 0 && s.bytes == 0 {
		return packs
	}
	if !s.next {
		shuffle(len(packs), func(i, j int) { packs[i], packs[j] = packs[j], packs[i] })
		if s.percent > 0 { // of their number, as restic does
			return packs[:min(len(packs), max(1, int(float64(len(packs))*s.percent/100)))]
		}
		return packs[:reaching(packs, s.bytes)]
	}
	first := slices.IndexFunc(packs, func(p repo.StoredPack) bool { return slices.Compare(p.ID[:], after[:]) > 0 })
	if first > 0 { // else it begins anew
		packs = append(slices.Clone(packs[first:]), packs[:first]...)
	}
	want := s.bytes
	if s.percent > 0 {
		want = int64(float64(total(packs)) * s.percent / 100)
	}
	return packs[:reaching(packs, want)]
}

// reaching counts the first packs that hold as many bytes as wanted, one at least.
func reaching(packs []repo.StoredPack, bytes int64) int {
	for i, p := range packs {
		if bytes -= p.Size; bytes <= 0 {
			return i + 1
		}
	}
	return len(packs)
}

func total(packs []repo.StoredPack) (bytes int64) {
	for _, p := range packs {
		bytes += p.Size
	}
	return bytes
}

// position is how far verify --read-data-subset next:… has come. It is a file of this
// machine, so that credentials that may only read are enough. Losing it costs a round
// begun anew.
type position struct {
	Repository string    `json:"repository"`
	After      format.ID `json:"after"` // the last pack that was read and found good
}

func positionFile(cfg *config.Config) string {
	return filepath.Join(cfg.DataDir, cfg.Volume, "verify")
}

// loadPosition begins anew where there is none, or one of another repository.
func loadPosition(cfg *config.Config, repository string) (position, error) {
	begin := position{Repository: repository}
	data, err := os.ReadFile(positionFile(cfg))
	if errors.Is(err, fs.ErrNotExist) {
		return begin, nil
	}
	if err != nil {
		return begin, fmt.Errorf("read where the last verify stopped: %w", err)
	}
	var p position
	if bad := json.Unmarshal(data, &p); bad == nil && p.Repository == repository {
		return p, nil
	}
	return begin, nil // only where to go on is lost
}

func (p position) save(cfg *config.Config) error {
	name := positionFile(cfg)
	data, err := json.Marshal(p)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(name), 0o700)
	}
	if err == nil {
		err = os.WriteFile(name+".new", append(data, '\n'), 0o600)
	}
	if err == nil {
		err = os.Rename(name+".new", name)
	}
	if err != nil {
		return fmt.Errorf("note where this verify stopped: %w", err)
	}
	return nil
}

// reading sets up what a check reads. Call noted after a check that found no problem:
// while there is one, the next time looks at it again.
func (s Subset) reading(cfg *config.Config, repository string, opt *repo.CheckOptions) (noted func() error, err error) {
	pos := position{Repository: repository}
	if s.next {
		if pos, err = loadPosition(cfg, repository); err != nil {
			return nil, err
		}
	}
	var last []repo.StoredPack
	opt.Choose = func(packs []repo.StoredPack) []repo.StoredPack {
		chosen := s.choose(packs, pos.After, rand.Shuffle)
		last = chosen[max(0, len(chosen)-1):]
		return chosen
	}
	return func() error {
		if !s.next || len(last) == 0 {
			return nil
		}
		pos.After = last[0].ID
		return pos.save(cfg)
	}, nil
}
