package object

import (
	"encoding/json"
	"strings"
	"testing"

	"drover/internal/objstore"
)

func TestElement(t *testing.T) {
	seen := map[string]string{}
	for _, name := range []string{
		"web", "web-1", "web_1", "web.1", "web/1", "_", "_5F", "..", "größe", "a b", strings.Repeat("x", 200), strings.Repeat("x", 201),
		strings.Repeat("ü", 256), "_h" + strings.Repeat("0", 64),
	} {
		e := element(name)
		if err := objstore.CheckKey(e); err != nil || strings.Contains(e, "/") || len(e) > 200 {
			t.Errorf("%q becomes %q: %v", name, e, err)
		}
		if other, ok := seen[e]; ok {
			t.Errorf("%q and %q become %q", name, other, e)
		}
		seen[e] = name
	}
}

// FuzzDecode: whatever is in the bucket, it is an error or a state that can be written again.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"version":1,"count":1,"writes":["a"],"value":{"a/b":{"value":"eA==","revision":"1.a"}}}`))
	f.Add([]byte(`{"version":1,"count":1,"writes":["a"],"value":{"slots":1,"held":[{"claim":"a","beat":1,"ttl_ms":-1}]}}`))
	f.Add([]byte(`{"version":1,"count":0,"writes":[]}`))
	c := New(nil, Options{})
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := decode[pairs](c, "kv", data, "e")
		if err == nil {
			if _, yes := keys.landed("a"); yes && keys.Count == 0 {
				t.Error("a write of no count")
			}
			keys.Value.below("", false)
			if _, err := encode(c, "kv", keys.stored); err != nil {
				t.Error(err)
			}
		}
		if lease, err := decode[holders](c, "l", data, "e"); err == nil {
			if _, err := json.Marshal(lease.stored); err != nil {
				t.Error(err)
			}
		}
		if a, err := decode[about](c, "a", data, "e"); err == nil {
			s := sight{about: &a.Value}
			s.shown()
		}
	})
}
