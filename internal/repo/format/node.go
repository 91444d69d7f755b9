package format

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"strconv"
	"time"
	"unicode/utf8"
)

// NodeType is the kind of file that a Node stands for.
type NodeType string

// The node types that restic writes on Linux. Sockets are never stored.
const (
	NodeFile    NodeType = "file"
	NodeDir     NodeType = "dir"
	NodeSymlink NodeType = "symlink"
	NodeDevice  NodeType = "dev"
	NodeCharDev NodeType = "chardev"
	NodeFifo    NodeType = "fifo"
)

// Xattr is one extended attribute; ACLs and capabilities are among them.
type Xattr struct {
	Name  string `json:"name"`
	Value []byte `json:"value"`
}

// Node is one entry of a directory: all of its metadata, and where its content
// is. Strings are the file system's bytes, not necessarily UTF-8.
type Node struct {
	Name       string
	Type       NodeType
	Mode       fs.FileMode // Go's bits, with the type
	ModTime    time.Time
	AccessTime time.Time
	ChangeTime time.Time
	UID, GID   uint32
	User       string
	Group      string
	Inode      uint64
	DeviceID   uint64 // st_dev: with Inode it tells which names are one file
	Size       uint64 // bytes
	Links      uint64 // st_nlink; 0 for directories and FIFOs
	LinkTarget string
	Xattrs     []Xattr
	// GenericAttributes is restic's JSON object of attributes of other systems,
	// kept as it came.
	GenericAttributes json.RawMessage
	Device            uint64 // st_rdev of a device
	Content           []ID   // data blobs in order; nil for all but files
	Subtree           *ID    // tree blob of a directory
	Error             string
}

// AppendJSON appends the node as restic encodes it.
func (n *Node) AppendJSON(b []byte) []byte {
	b = append(b, `{"name":`...)
	b = appendName(b, n.Name)
	b = append(b, `,"type":`...)
	b = appendString(b, string(n.Type))
	b = appendUint(b, `,"mode":`, uint64(n.Mode))
	b = append(b, `,"mtime":`...)
	b = appendTime(b, n.ModTime)
	b = append(b, `,"atime":`...)
	b = appendTime(b, n.AccessTime)
	b = append(b, `,"ctime":`...)
	b = appendTime(b, n.ChangeTime)
	b = append(b, `,"uid":`...)
	b = strconv.AppendUint(b, uint64(n.UID), 10)
	b = append(b, `,"gid":`...)
	b = strconv.AppendUint(b, uint64(n.GID), 10)
	b = appendText(b, `,"user":`, n.User)
	b = appendText(b, `,"group":`, n.Group)
	b = appendUint(b, `,"inode":`, n.Inode)
	b = appendUint(b, `,"device_id":`, n.DeviceID)
	b = appendUint(b, `,"size":`, n.Size)
	b = appendUint(b, `,"links":`, n.Links)
	b = appendText(b, `,"linktarget":`, n.LinkTarget)
	if !utf8.ValidString(n.LinkTarget) {
		b = append(b, `,"linktarget_raw":`...)
		b = appendBase64(b, []byte(n.LinkTarget))
	}
	b = appendXattrs(b, n.Xattrs)
	if len(n.GenericAttributes) > 0 {
		b = append(b, `,"generic_attributes":`...)
		b = append(b, n.GenericAttributes...)
	}
	b = appendUint(b, `,"device":`, n.Device)
	b = append(b, `,"content":`...)
	b = appendIDs(b, n.Content)
	if n.Subtree != nil {
		b = append(b, `,"subtree":"`...)
		b = appendHex(b, n.Subtree)
		b = append(b, '"')
	}
	b = appendText(b, `,"error":`, n.Error)
	return append(b, '}')
}

// MarshalJSON is AppendJSON, so that a Node can stand in other JSON.
func (n *Node) MarshalJSON() ([]byte, error) { return n.AppendJSON(nil), nil }

// UnmarshalJSON is DecodeNode.
func (n *Node) UnmarshalJSON(data []byte) error { return DecodeNode(data, n) }

func appendUint(b []byte, key string, v uint64) []byte {
	if v == 0 {
		return b
	}
	return strconv.AppendUint(append(b, key...), v, 10)
}

func appendText(b []byte, key, s string) []byte {
	if s == "" {
		return b
	}
	return appendString(append(b, key...), s)
}

// plain reports whether encoding/json and strconv.Quote both leave s as it is.
func plain(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c < 0x20 || c >= 0x7f, c == '"', c == '\\', c == '<', c == '>', c == '&':
			return false
		}
	}
	return true
}

func appendString(b []byte, s string) []byte {
	if plain(s) {
		b = append(b, '"')
		b = append(b, s...)
		return append(b, '"')
	}
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string always encodes
	}
	return append(b, text...)
}

// appendName keeps any bytes: the name is quoted as a Go string, without the
// quotes, and that is what stands in the JSON string.
func appendName(b []byte, name string) []byte {
	if plain(name) {
		return appendString(b, name)
	}
	q := strconv.Quote(name)
	return appendString(b, q[1:len(q)-1])
}

// appendTime brings a year that JSON cannot hold to its limit, as restic does.
func appendTime(b []byte, t time.Time) []byte {
	switch y := t.Year(); {
	case y < 0:
		t = t.AddDate(-y, 0, 0)
	case y > 9999:
		t = t.AddDate(-(y - 9999), 0, 0)
	}
	b = append(b, '"')
	b = t.AppendFormat(b, time.RFC3339Nano)
	return append(b, '"')
}

func appendBase64(b, data []byte) []byte {
	b = append(b, '"')
	b = base64.StdEncoding.AppendEncode(b, data)
	return append(b, '"')
}

func appendXattrs(b []byte, attrs []Xattr) []byte {
	if len(attrs) == 0 {
		return b
	}
	b = append(b, `,"extended_attributes":[`...)
	for i, a := range attrs {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"name":`...)
		b = appendString(b, a.Name)
		b = append(b, `,"value":`...)
		if a.Value == nil {
			b = append(b, "null"...)
		} else {
			b = appendBase64(b, a.Value)
		}
		b = append(b, '}')
	}
	return append(b, ']')
}

func appendIDs(b []byte, ids []ID) []byte {
	if ids == nil {
		return append(b, "null"...)
	}
	b = append(b, '[')
	for i := range ids {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = appendHex(b, &ids[i])
		b = append(b, '"')
	}
	return append(b, ']')
}

func appendHex(b []byte, id *ID) []byte {
	const digits = "0123456789abcdef"
	for _, c := range id {
		b = append(b, digits[c>>4], digits[c&15])
	}
	return b
}

// CheckName refuses a name that is not one element of a path.
func CheckName(name string) error {
	if name == "" || name == "." || name == ".." {
		return fmt.Errorf("name %q is not a file's", name)
	}
	for i := 0; i < len(name); i++ {
		if name[i] == '/' || name[i] == 0 {
			return fmt.Errorf("name %.300q contains a slash or a zero byte", name)
		}
	}
	return nil
}
