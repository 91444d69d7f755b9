package postgres

import (
	"encoding/hex"
	"errors"
	"strings"

	"crypto/sha256"
)

// The languages that text is put into here. None of them has a way to write NUL, which callers refuse.

// confValue writes a value for postgresql.conf: one line, whatever is in it.
func confValue(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", "''", "\n", `\n`, "\r", `\r`).Replace(s) + "'"
}

// infoValue writes a value of a connection string.
func infoValue(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'"
}

// ident writes an SQL identifier, and a name in synchronous_standby_names.
func ident(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// literal writes an SQL string, whether backslashes are special or not.
func literal(s string) string {
	if strings.Contains(s, `\`) {
		return ` E'` + strings.NewReplacer(`\`, `\\`, "'", "''").Replace(s) + "'"
	}
	return "'" + strings.ReplaceAll(s, "'", "''") + "'"
}

// errPassword: a file of passwords has one per line.
var errPassword = errors.New("a password has a line break or a NUL in it, or is empty")

// passLine writes a line of a password file, for any server.
func passLine(user, password string) (string, error) {
	if password == "" || strings.ContainsAny(password, "\n\r\x00") {
		return "", errPassword
	}
	escape := strings.NewReplacer(`\`, `\\`, ":", `\:`)
	return "*:*:*:" + escape.Replace(user) + ":" + escape.Replace(password) + "\n", nil
}

// slotPrefix is how the slots begin that are the agent's.
const slotPrefix = "drover_"

// slotName is the replication slot of a member: 63 of a-z, 0-9 and _ at most. IDs that
// differ in more than case have different ones.
func slotName(id string) string {
	var b strings.Builder
	b.WriteString(slotPrefix)
	for _, c := range []byte(strings.ToLower(id)) {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			b.WriteByte(c)
			continue
		}
		b.WriteString("_" + hex.EncodeToString([]byte{c}))
	}
	if b.Len() > 63 {
		sum := sha256.Sum256([]byte(strings.ToLower(id)))
		return slotPrefix + "__" + hex.EncodeToString(sum[:20])
	}
	return b.String()
}
