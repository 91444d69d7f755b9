//go:build e2e

package e2e

import (
	"encoding/json"
	"testing"

	"drover/client"
)

// TestEach: every instance has a volume of its own. One is killed and removed with its
// disk; the next one of its name has its data, and nobody else's.
func TestEach(t *testing.T) {
	w := newWorld(t, short, map[string]string{"DROVER_OWNERSHIP": "each"})
	servers := map[string]*server{"first": w.server("first"), "second": w.server("second")}
	pushed := map[string]string{}
	for name, s := range servers {
		s.awaitServing(takeover)
		w.clone(s, "/of-"+name)
		pushed[name] = w.push(s, "/of-"+name, "to-"+name)
	}
	servers["first"].Kill()
	servers["first"].Remove()
	again := w.server("first")
	again.awaitServing(takeover)
	w.serves(again, pushed["first"])
	if again.has(pushed["second"]) {
		t.Error("the first instance has what was pushed to the second")
	}
	w.push(again, "/of-first", "goes-on")

	var all []client.Status
	out := servers["second"].MustExec("drover", "status", "--all", "--json")
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if len(all) != 2 {
		t.Fatalf("%d volumes: %s", len(all), out)
	}
	for i, name := range []string{"first", "second"} {
		if st := all[i]; st.Volume != "data-"+name || st.Holder != name || st.State != "held" || st.Health != "ok" || st.Commit == nil {
			t.Errorf("%+v", st)
		}
	}
}
