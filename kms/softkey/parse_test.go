package softkey

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

func FuzzParse(f *testing.F) {
	f.Add([]byte(header + strings.Repeat("01", 32) + "\n"))
	f.Add([]byte(header + strings.Repeat("00", 32) + "\n"))
	f.Add([]byte(header))
	f.Fuzz(func(t *testing.T, text []byte) {
		key, err := parse(text)
		if err != nil {
			if key != nil {
				t.Error("a refusal came with a key")
			}
			return
		}
		again := append(hex.AppendEncode([]byte(header), key), '\n')
		if len(key) != 32 || !bytes.EqualFold(again, text) {
			t.Errorf("%q gave %x", text, key)
		}
	})
}
