package crypto

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestSealAndOpen(t *testing.T) {
	k := NewRandomKey()
	for _, n := range []int{0, 1, 15, 16, 17, 1000, 1 << 16} {
		plain := bytes.Repeat([]byte{7}, n)
		sealed := k.Seal([]byte("head"), plain)
		if len(sealed) != 4+n+Overhead {
			t.Fatalf("%d bytes sealed into %d", n, len(sealed))
		}
		got, err := k.Open(bytes.Clone(sealed[4:]))
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if bytes.Equal(k.Seal(nil, plain), sealed[4:]) {
			t.Fatal("a nonce was used twice")
		}
	}
}

func TestChangedDataIsRefused(t *testing.T) {
	k := NewRandomKey()
	sealed := k.Seal(nil, []byte("some plain text"))
	for i := range sealed {
		changed := bytes.Clone(sealed)
		changed[i] ^= 0x10
		before := bytes.Clone(changed)
		if _, err := k.Open(changed); !errors.Is(err, ErrAuthentication) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
		if !bytes.Equal(changed, before) {
			t.Fatal("refused data was changed")
		}
	}
	for n := range len(sealed) {
		if _, err := k.Open(bytes.Clone(sealed[:n])); !errors.Is(err, ErrAuthentication) {
			t.Fatalf("cut to %d: %v", n, err)
		}
	}
	if _, err := NewRandomKey().Open(bytes.Clone(sealed)); !errors.Is(err, ErrAuthentication) {
		t.Fatalf("another key: %v", err)
	}
}

// The vectors of Bernstein's paper, appendix B: r, k, nonce, message, MAC.
func TestPoly1305AESVectors(t *testing.T) {
	for _, v := range [][5]string{
		{"851fc40c3467ac0be05cc20404f3f700", "ec074c835580741701425b623235add6", "fb447350c4e868c52ac3275cf9d4327e", "f3f6", "f4c633c3044fc145f84f335cb81953de"},
		{"a0f3080000f46400d0c7e9076c834403", "75deaa25c09f208e1dc4ce6b5cad3fbf", "61ee09218d29b0aaed7e154a2c5509cc", "", "dd3fab2251f11ac759f0887129cc2ee7"},
		{"48443d0bb0d21109c89a100b5ce2c208", "6acb5f61a7176dd320c5c1eb2edcdc74", "ae212a55399729595dea458bc621ff0e", "663cea190ffb83d89593f3f476b6bc24d7e679107ea26adb8caf6652d0656136", "0ee1c16bb73f0f4fd19881753c01cdbe"},
		{"12976a08c4426d0ce8a82407c4f48207", "e1a5668a4d5b66a5f68cc5424ed5982d", "9ae831e743978d3a23527c7128149e3a", "ab0812724a7f1e342742cbed374d94d136c6b8795d45b3819830f2c04491faf0990c62e48b8018b2c3e4a0fa3134cb67fa83e158c994d961c4cb21095c1bf9", "5154ad0d2cb26e01274fc51148491f1b"},
	} {
		var raw RawKey
		copy(raw.MACR[:], unhex(t, v[0]))
		copy(raw.MACK[:], unhex(t, v[1]))
		got := NewKey(raw).mac(unhex(t, v[2]), unhex(t, v[3]))
		if hex.EncodeToString(got[:]) != v[4] {
			t.Errorf("MAC of %q is %x, want %s", v[3], got, v[4])
		}
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestKeyFile(t *testing.T) {
	k := NewRandomKey()
	f, err := NewKeyFile(k, "secret", "host", "user", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	data, err := f.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseKeyFile(data)
	if err != nil {
		t.Fatal(err)
	}
	got, err := back.Open("secret")
	if err != nil || got.Raw() != k.Raw() {
		t.Fatalf("the key did not come back: %v", err)
	}
	if _, err := back.Open("Secret"); !errors.Is(err, ErrAuthentication) {
		t.Errorf("wrong password: %v", err)
	}
	if s := fmt.Sprintf("%v %+v %#v", k, k, k); strings.Contains(s, fmt.Sprint(k.raw.Encrypt[0], " ", k.raw.Encrypt[1])) {
		t.Errorf("a printed key shows itself: %s", s)
	}
}

// A key file from outside cannot make us allocate or compute without bounds.
func TestKeyFileParametersAreBounded(t *testing.T) {
	for _, params := range []string{
		`"N":0,"r":8,"p":1`, `"N":3,"r":8,"p":1`, `"N":1073741824,"r":8,"p":1`, `"N":32768,"r":1048576,"p":1`,
		`"N":32768,"r":8,"p":100000`, `"N":32768,"r":-1,"p":1`, `"N":32768,"r":8,"p":0`,
	} {
		_, err := ParseKeyFile([]byte(`{"kdf":"scrypt","salt":"AAAA","data":"` + strings.Repeat("A", 64) + `",` + params + `}`))
		if !errors.Is(err, ErrKeyFile) {
			t.Errorf("%s: %v", params, err)
		}
	}
}

func FuzzParseKeyFile(f *testing.F) {
	f.Add([]byte(`{"hostname":"kasimir","username":"fd0","kdf":"scrypt","N":65536,"r":8,"p":1,"created":"2015-01-02T18:10:13.48307196+01:00","data":"` + strings.Repeat("A", 64) + `","salt":"uW4f"}`))
	f.Add([]byte(`{"kdf":"scrypt","N":-9223372036854775808}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := ParseKeyFile(data)
		if err != nil {
			return
		}
		if 128*file.N*file.R > maxKDFMemory {
			t.Fatalf("accepted N=%d r=%d", file.N, file.R)
		}
	})
}
