package format

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"math/rand/v2"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// plainNode is the dumb version of Node's codec: encoding/json does it all.
type plainNode struct {
	Name       string                     `json:"name"`
	Type       NodeType                   `json:"type"`
	Mode       fs.FileMode                `json:"mode,omitempty"`
	ModTime    time.Time                  `json:"mtime"`
	AccessTime time.Time                  `json:"atime"`
	ChangeTime time.Time                  `json:"ctime"`
	UID        uint32                     `json:"uid"`
	GID        uint32                     `json:"gid"`
	User       string                     `json:"user,omitempty"`
	Group      string                     `json:"group,omitempty"`
	Inode      uint64                     `json:"inode,omitempty"`
	DeviceID   uint64                     `json:"device_id,omitempty"`
	Size       uint64                     `json:"size,omitempty"`
	Links      uint64                     `json:"links,omitempty"`
	LinkTarget string                     `json:"linktarget,omitempty"`
	TargetRaw  []byte                     `json:"linktarget_raw,omitempty"`
	Xattrs     []Xattr                    `json:"extended_attributes,omitempty"`
	Generic    map[string]json.RawMessage `json:"generic_attributes,omitempty"`
	Device     uint64                     `json:"device,omitempty"`
	Content    []ID                       `json:"content"`
	Subtree    *ID                        `json:"subtree,omitempty"`
	Error      string                     `json:"error,omitempty"`
}

func toPlain(t testing.TB, n *Node) plainNode {
	t.Helper()
	p := plainNode{
		Type: n.Type, Mode: n.Mode, ModTime: n.ModTime, AccessTime: n.AccessTime, ChangeTime: n.ChangeTime,
		UID: n.UID, GID: n.GID, User: n.User, Group: n.Group, Inode: n.Inode, DeviceID: n.DeviceID, Size: n.Size,
		Links: n.Links, LinkTarget: n.LinkTarget, Xattrs: n.Xattrs, Device: n.Device, Content: n.Content,
		Subtree: n.Subtree, Error: n.Error,
	}
	q := strconv.Quote(n.Name)
	p.Name = q[1 : len(q)-1]
	if !utf8.ValidString(n.LinkTarget) {
		p.TargetRaw = []byte(n.LinkTarget)
	}
	if n.GenericAttributes != nil {
		if err := json.Unmarshal(n.GenericAttributes, &p.Generic); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func randomText(r *rand.Rand) string {
	alphabet := []string{"a", "Z", "0", " ", "\n", "\t", "\b", "\f", "\x00", "\x7f", "\x1b", "\"", "\\", "<", ">", "&", "'",
		"ä", "日本", "\u2028", "\u200b", "\ufeff", "\xff", "\xc3", "\x80\x80", "😀", "\ufffd"}
	var b strings.Builder
	for range r.IntN(6) {
		b.WriteString(alphabet[r.IntN(len(alphabet))])
	}
	return b.String()
}

func randomNode(r *rand.Rand) Node {
	some := func() uint64 { return r.Uint64() >> r.IntN(64) * uint64(r.IntN(3)) }
	when := func() time.Time {
		t := time.Unix(r.Int64N(1<<33)-1<<31, r.Int64N(1e9)).UTC()
		if r.IntN(3) == 0 {
			t = t.Truncate(time.Second).In(time.FixedZone("", 5400))
		}
		return t
	}
	n := Node{
		Name: "n" + strings.ReplaceAll(randomText(r), "\x00", ""), Type: NodeFile, Mode: fs.FileMode(r.Uint32()),
		ModTime: when(), AccessTime: when(), ChangeTime: when(), UID: r.Uint32(), GID: uint32(some()),
		User: randomText(r), Group: randomText(r), Inode: some(), DeviceID: some(), Size: some(), Links: some(),
		LinkTarget: randomText(r), Device: some(), Error: randomText(r),
	}
	for range r.IntN(3) {
		n.Xattrs = append(n.Xattrs, Xattr{Name: "user." + strings.ToValidUTF8(randomText(r), ""), Value: []byte(randomText(r))})
	}
	if r.IntN(2) == 0 {
		n.Content = []ID{}
		for range r.IntN(3) {
			n.Content = append(n.Content, NewRandomID())
		}
	}
	if r.IntN(2) == 0 {
		id := NewRandomID()
		n.Subtree = &id
	}
	if r.IntN(4) == 0 {
		n.GenericAttributes = json.RawMessage(`{"other.a":[1,{"x":"]}\""}],"other.b":"AQ=="}`)
	}
	return n
}

func TestNodeIsWhatEncodingJSONMakes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		n := randomNode(r)
		p := toPlain(t, &n)
		want, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		got := n.AppendJSON(nil)
		if !bytes.Equal(got, want) {
			t.Fatalf("encoded\n%s\nwant\n%s", got, want)
		}
		var back Node
		if err := DecodeNode(got, &back); err != nil {
			t.Fatalf("%s: %v", got, err)
		}
		// JSON replaces bytes that are no UTF-8 in these; names and targets must survive.
		n.User, n.Group, n.Error = p2s(n.User), p2s(n.Group), p2s(n.Error)
		if !sameNode(&n, &back) {
			t.Fatalf("decoded\n%#v\nwant\n%#v\nfrom\n%s", back, n, got)
		}
	}
}

func p2s(s string) string { return string([]rune(s)) }

func sameNode(a, b *Node) bool {
	x, y := *a, *b
	if !x.ModTime.Equal(y.ModTime) || !x.AccessTime.Equal(y.AccessTime) || !x.ChangeTime.Equal(y.ChangeTime) {
		return false
	}
	x.ModTime, x.AccessTime, x.ChangeTime = y.ModTime, y.AccessTime, y.ChangeTime
	return reflect.DeepEqual(x, y)
}

func TestYearsOutsideJSONAreBroughtToItsLimit(t *testing.T) {
	n := Node{Name: "a", Type: NodeFile, ModTime: time.Date(-5, 1, 2, 3, 4, 5, 6, time.UTC), AccessTime: time.Date(12345, 1, 2, 3, 4, 5, 6, time.UTC)}
	text := string(n.AppendJSON(nil))
	for _, want := range []string{`"mtime":"0000-01-02T03:04:05.000000006Z"`, `"atime":"9999-01-02T03:04:05.000000006Z"`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s lacks %s", text, want)
		}
	}
}

func TestTreeRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	b := NewTreeBuilder(nil)
	var want []Node
	for i := range 50 {
		n := randomNode(r)
		n.Name = strconv.Itoa(1000+i) + n.Name
		n.User, n.Group, n.Error = p2s(n.User), p2s(n.Group), p2s(n.Error)
		if err := b.Add(&n); err != nil {
			t.Fatal(err)
		}
		want = append(want, n)
	}
	tree := b.Finish()
	got, err := DecodeTree(tree)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := SplitTree(tree)
	if err != nil {
		t.Fatal(err)
	}
	again := NewTreeBuilder(nil)
	for i := range want {
		if !sameNode(&got[i], &want[i]) {
			t.Fatalf("node %d: %#v, want %#v", i, got[i], want[i])
		}
		if entries[i].Name != want[i].Name {
			t.Fatalf("entry %d is %q, want %q", i, entries[i].Name, want[i].Name)
		}
		if err := again.AddRaw(entries[i]); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(again.Finish(), tree) {
		t.Fatal("the entries do not make the tree they came from")
	}
}

func TestEmptyTree(t *testing.T) {
	for _, text := range []string{"{\"nodes\":[]}\n", `{"nodes":null}`, ` { "more" : [1,"]"] , "nodes" : [ ] } `} {
		nodes, err := DecodeTree([]byte(text))
		if err != nil || len(nodes) != 0 {
			t.Errorf("%s: %v, %v", text, nodes, err)
		}
	}
	if got := string(NewTreeBuilder(nil).Finish()); got != "{\"nodes\":[]}\n" {
		t.Errorf("empty tree is %q", got)
	}
}

func TestHostileTreesAreRefused(t *testing.T) {
	node := func(name string) string { return `{"name":"` + name + `","type":"file","content":null}` }
	for _, text := range []string{
		``, `null`, `[]`, `{}`, `{"nodes":[`, `{"nodes":[{}]}`, `{"nodes":[]}x`, `{"nodes":[],"nodes":[]}`,
		`{"nodes":[` + node("..") + `]}`, `{"nodes":[` + node(".") + `]}`, `{"nodes":[` + node("") + `]}`,
		`{"nodes":[` + node("a/b") + `]}`, `{"nodes":[` + node("/etc") + `]}`, `{"nodes":[` + node(`\\x00`) + `]}`,
		`{"nodes":[` + node(`a\\x2fb`) + `]}`, `{"nodes":[` + node(`\u002e.`) + `]}`, `{"nodes":[` + node(`\\`) + `]}`,
		`{"nodes":[` + node("b") + "," + node("a") + `]}`, `{"nodes":[` + node("a") + "," + node("a") + `]}`,
		`{"nodes":[{"name":"a","subtree":"zz"}]}`, `{"nodes":[{"name":"a","size":-1}]}`, `{"nodes":[{"name":"a","x":}]}`,
		`{"nodes":[{"name":"a","content":[null]}]}`,
	} {
		if nodes, err := DecodeTree([]byte(text)); err == nil {
			t.Errorf("%s: decoded to %v", text, nodes)
		}
	}
}

func TestUnknownFieldsAreIgnored(t *testing.T) {
	text := `{"future":{"a":[1,2,{"b":"}"}]},"name":"a","type":"file","n":-1.5e3,"b":true,"z":null,"size":7}`
	var n Node
	if err := DecodeNode([]byte(text), &n); err != nil {
		t.Fatal(err)
	}
	if n.Name != "a" || n.Size != 7 {
		t.Errorf("decoded %+v", n)
	}
}

// FuzzTree: whatever comes in, decoding does not panic, names are safe, and
// what was accepted encodes to something that decodes to the same.
func FuzzTree(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 10 {
		n := randomNode(r)
		b := NewTreeBuilder(nil)
		_ = b.Add(&n)
		f.Add(b.Finish())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, splitErr := SplitTree(data)
		nodes, err := DecodeTree(data)
		if err != nil {
			return
		}
		if splitErr != nil || len(entries) != len(nodes) {
			t.Fatalf("decoded %d nodes, split into %d: %v", len(nodes), len(entries), splitErr)
		}
		b := NewTreeBuilder(nil)
		for i := range nodes {
			if err := CheckName(nodes[i].Name); err != nil || nodes[i].Name != entries[i].Name {
				t.Fatalf("name %q, entry %q: %v", nodes[i].Name, entries[i].Name, err)
			}
			if err := b.Add(&nodes[i]); err != nil {
				t.Fatal(err)
			}
		}
		back, err := DecodeTree(b.Finish())
		if err != nil {
			t.Fatal(err)
		}
		for i := range nodes {
			if nodes[i].GenericAttributes == nil && !sameNode(&nodes[i], &back[i]) {
				t.Fatalf("%#v became %#v", nodes[i], back[i])
			}
		}
	})
}

func bigTree(entries int) []byte {
	b := NewTreeBuilder(nil)
	now := time.Unix(1.7e9, 123456789).UTC()
	for i := range entries {
		n := Node{Name: strconv.Itoa(1e6 + i), Type: NodeFile, Mode: 0o644, ModTime: now, AccessTime: now, ChangeTime: now,
			User: "root", Group: "root", Inode: uint64(i), DeviceID: 2049, Size: 1000, Links: 1, Content: []ID{Hash([]byte{byte(i)})}}
		if err := b.Add(&n); err != nil {
			panic(err)
		}
	}
	return b.Finish()
}

func BenchmarkTree(b *testing.B) {
	tree := bigTree(100_000)
	b.Run("split", func(b *testing.B) {
		b.SetBytes(int64(len(tree)))
		for b.Loop() {
			if _, err := SplitTree(tree); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.SetBytes(int64(len(tree)))
		for b.Loop() {
			if _, err := DecodeTree(tree); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encode", func(b *testing.B) {
		b.SetBytes(int64(len(tree)))
		for b.Loop() {
			bigTree(100_000)
		}
	})
}
