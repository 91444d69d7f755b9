package model

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// search is one run of spin on a model.
type search struct {
	name  string
	model string
	flags string
	finds bool // a counterexample is what should come
}

// small ones, for the normal tests: each rule, and each mutant.
var small = []search{
	{"head", "head.pml", "-DMAXW=3 -DMAXS=1 -DMAXC=0", false},
	{"head with release", "head.pml", "-DMAXW=4 -DMAXS=2 -DMAXC=1 -DRELEASE -DONE", false},
	{"head with power cuts", "head.pml", "-DMAXW=4 -DMAXS=2 -DMAXC=2 -DPOWER -DONE", false},
	{"the base taken for a refusal", "head.pml", "-DMAXW=4 -DMAXS=2 -DMAXC=1 -DM_GIVEUP", true},
	{"a snapshot deleted on refusal", "head.pml", "-DMAXW=4 -DMAXS=2 -DMAXC=1 -DM_DEL", true},
	{"epoch and claim instead of the write id", "head.pml", "-DMAXW=4 -DMAXS=2 -DMAXC=1 -DM_NONCE -DVMROLL -DONE", true},
	{"a new base after a conflict", "head.pml", "-DMAXW=5 -DMAXS=3 -DMAXC=1 -DM_RETRY -DVMROLL -DONE", true},
	{"a commit without intent", "head.pml", "-DMAXW=4 -DMAXS=2 -DMAXC=1 -DM_NOINTENT -DKEEPCHK", true},
	{"files kept by epoch and claim alone", "head.pml", "-DMAXW=4 -DMAXS=2 -DMAXC=1 -DM_SEQ -DCLONE", true},
	{"files kept though not synced", "head.pml", "-DMAXW=4 -DMAXS=2 -DMAXC=2 -DPOWER -DM_NOSYNC", true},
	{"unsynced snapshots forgotten too late", "head.pml", "-DMAXW=4 -DMAXS=2 -DMAXC=2 -DPOWER -DM_LATEFORGET", true},
	{"a release before the last commit", "head.pml", "-DMAXW=4 -DMAXS=2 -DMAXC=1 -DRELEASE -DM_RELEASE -DKEEPCHK", true},
	{"collection", "gc.pml", "-DMAXW=4 -DNOPIN", false},
	{"collection beside restic", "gc.pml", "-DMAXW=3 -DFOREIGN -DMAXF=1", false},
	{"a commit that counts on condemned packs", "gc.pml", "-DMAXW=6 -DNOPIN -DM_COMMITCHK", true},
	{"packs forgiven that a capture counts on", "gc.pml", "-DMAXW=6 -DNOPIN -DM_DOOM", true},
	{"a set computed against an older head", "gc.pml", "-DMAXW=6 -DM_MARK", true},
	{"an index from before the claim", "gc.pml", "-DMAXW=7 -DM_WARMIDX", true},
	{"packs forgiven while they are there", "gc.pml", "-DMAXW=7 -DM_UNCOND", true},
	{"older locks not waited for", "gc.pml", "-DMAXW=5 -DFOREIGN -DM_NOWAIT", true},
	{"no second look before a DELETE", "gc.pml", "-DMAXW=5 -DFOREIGN -DM_NOLOOK", true},
	{"upkeep while deposed", "upkeep.pml", "-DMAXC=2 -DMAXK=1", false},
	{"upkeep beside restic", "upkeep.pml", "-DFOREIGN -DMAXC=1 -DMAXK=1", false},
	{"upkeep beside a forced prune", "upkeep.pml", "-DFORCE -DMAXC=1 -DMAXK=2", false},
	{"upkeep of three instances", "upkeep.pml", "-DNI=3 -DMAXC=3 -DINORDER -DMAXK=1 -DMAXR=2 -DNP=2", false},
	{"condemned while a writer stores it", "upkeep.pml", "-DFOREIGN -DMAXC=1 -DMAXK=0 -DNP=2 -DM_NOLOCKS", true},
	{"that, of which nothing is lost", "upkeep.pml", "-DFOREIGN -DMAXC=1 -DMAXK=1 -DM_NOLOCKS -DWASTE", false},
	{"deleted without a second survey", "upkeep.pml", "-DFOREIGN -DMAXC=1 -DMAXK=0 -DNP=2 -DM_NOSURVEY", true},
	{"a capture that counts on condemned packs", "upkeep.pml", "-DMAXC=2 -DMAXK=1 -DM_CONDEMNED", true},
	{"a wait from before the claim", "upkeep.pml", "-DFOREIGN -DMAXC=2 -DMAXK=0 -DNP=2 -DM_OLDGRACE", true},
	{"locks of the condemnation for a pack found out of the index", "upkeep.pml", "-DFOREIGN -DMAXC=2 -DMAXK=0 -DNP=2 -DOUT_AS_CONDEMNED", true},
	{"forgiven early", "upkeep.pml", "-DMAXC=2 -DMAXK=1 -DM_FORGIVE", true},
	{"deleted though not condemned", "upkeep.pml", "-DMAXC=2 -DMAXK=1 -DM_UNCONDEMNED", true},
	{"a lost lock not noticed", "upkeep.pml", "-DFORCE -DMAXC=1 -DMAXK=2 -DM_LOCKLOST", true},
}

// big ones take minutes and gigabytes: DROVER_SOAK runs them. See README.md for their figures.
var big = []search{
	{"head", "head.pml", "-DMAXW=4 -DMAXS=2 -DMAXC=1", false},
	{"head with release and power cuts", "head.pml", "-DMAXW=3 -DMAXS=1 -DMAXC=1 -DRELEASE -DPOWER", false},
	{"head, cloned disk", "head.pml", "-DMAXW=4 -DMAXS=2 -DMAXC=1 -DCLONE", false},
	{"head, machine rolled back", "head.pml", "-DMAXW=5 -DMAXS=3 -DMAXC=1 -DVMROLL -DONE", false},
	{"head, three instances", "head.pml", "-DMAXW=3 -DMAXS=1 -DMAXC=0 -DNI=3", false},
	{"collection", "gc.pml", "-DMAXW=6 -DNOPIN", false},
	{"collection beside restic", "gc.pml", "-DMAXW=4 -DFOREIGN", false},
	{"upkeep beside restic while deposed", "upkeep.pml", "-DFOREIGN -DMAXC=2 -DMAXK=0 -DNP=2", false},
	{"upkeep of three instances", "upkeep.pml", "-DNI=3 -DMAXC=3 -DINORDER -DMAXK=1 -DMAXR=4 -DNP=3", false},
	{"upkeep of three instances beside restic", "upkeep.pml", "-DNI=3 -DMAXC=3 -DINORDER -DFOREIGN -DMAXK=0 -DNP=2 -DMAXR=3", false},
}

func TestModels(t *testing.T) { run(t, small, "-O0") }

func TestBigModels(t *testing.T) {
	if os.Getenv("DROVER_SOAK") == "" {
		t.Log("the big searches belong to the soak target: set DROVER_SOAK")
		return
	}
	run(t, big, "-O2")
}

func run(t *testing.T, all []search, optimise string) {
	for _, tool := range []string{"spin", "gcc"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s is needed (packages spin, gcc): %v", tool, err)
		}
	}
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) {
			if optimise == "-O0" { // little memory each
				t.Parallel()
			}
			found, figures := s.run(t, optimise)
			t.Log(figures)
			if found != s.finds {
				t.Fatalf("%s %s: counterexample %v, want %v\n%s", s.model, s.flags, found, s.finds, figures)
			}
		})
	}
}

// run compiles a model and searches it; a counterexample ends the search.
func (s search) run(t *testing.T, optimise string) (found bool, figures string) {
	t.Helper()
	dir := t.TempDir()
	model, err := filepath.Abs(s.model)
	if err != nil {
		t.Fatal(err)
	}
	command(t, dir, "spin", append(append([]string{"-a"}, strings.Fields(s.flags)...), model)...)
	command(t, dir, "gcc", optimise, "-w", "-DSAFETY", "-DHC4", "-o", "pan", "pan.c")
	out := command(t, dir, "./pan", "-E", "-w22", "-m300000")
	if strings.Contains(out, "max search depth too small") || strings.Contains(out, "out of memory") {
		t.Fatalf("the search is not complete:\n%s", out)
	}
	var kept []string
	errs := -1
	for line := range strings.Lines(out) {
		if _, text, ok := strings.Cut(line, "errors: "); ok {
			errs, _ = strconv.Atoi(strings.TrimSpace(text))
		}
		if strings.Contains(line, "states, stored") || strings.Contains(line, "assertion violated") || strings.Contains(line, "elapsed time") {
			kept = append(kept, strings.TrimSpace(line))
		}
	}
	if errs < 0 {
		t.Fatalf("no result:\n%s", out)
	}
	return errs > 0, strings.Join(kept, "; ")
}

func command(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}
