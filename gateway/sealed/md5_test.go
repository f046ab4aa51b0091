package sealed

import (
	"bytes"
	"io"
	"testing"
)

func TestTrailersCarryAnMD5BesideAChecksum(t *testing.T) {
	dek, sum := testKey(t, 1), testBytes(7, 16)
	sha := &Checksum{Algorithm: SHA256, Value: testBytes(5, 32)}
	for name, late := range map[string]*Checksum{"alone": nil, "beside SHA256": sha} {
		ps := parts(MinPartSize, 5)
		tail, err := Suite{}.NewTail(dek, ps, late, sum)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		end, err := io.ReadAll(tail.Reader())
		if err != nil {
			t.Fatal(err)
		}
		table, err := Suite{}.OpenTrailer(end, dek, Size(MinPartSize+5))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Equal(table.MD5(), sum) {
			t.Errorf("%s: got %x, want %x", name, table.MD5(), sum)
		}
		if c, ok := table.Checksum(); ok != (late != nil) || ok && !bytes.Equal(c.Value, late.Value) {
			t.Errorf("%s: got the checksum %+v, %t", name, c, ok)
		}
	}
	for name, short := range map[string][]byte{"15 bytes": sum[:15], "none that is not nil": {}} {
		_, err := Suite{}.NewTail(dek, parts(5), nil, short)
		wantError(t, name, err, ErrRange)
	}
	long := &Checksum{Algorithm: SHA256, Value: make([]byte, MaxBesideMD5+1)}
	wantError(t, "too long a checksum", addMD5(make([]byte, tableHeadSize), long, sum), ErrRange)
}

func TestASealerPutsItsMD5IntoTheTrailer(t *testing.T) {
	data, dek, sum := refText("md5", 3*ChunkSize), testKey(t, 1), testBytes(7, 16)
	source := bytes.NewReader(data)
	sealer, err := Suite{}.NewSealer(source, int64(len(data)), dek, Options{MD5: func() []byte {
		if source.Len() != 0 {
			t.Error("asked before the source has ended")
		}
		return sum
	}})
	if err != nil {
		t.Fatal(err)
	}
	stored, err := io.ReadAll(sealer)
	if err != nil {
		t.Fatal(err)
	}
	e := Envelope{DEK: dek, Length: int64(len(data)), Salt: sealer.Part().Salt}
	table, err := Suite{}.OpenSingleTrailer(stored[len(stored)-1000:], e, int64(len(stored)))
	if err != nil || !bytes.Equal(table.MD5(), sum) {
		t.Errorf("got %x, %v, want %x", table.MD5(), err, sum)
	}
	if plain, err := SingleTable(e, int64(len(stored))); err != nil || plain.MD5() != nil {
		t.Errorf("without the trailer: got %x, %v, want none", plain.MD5(), err)
	}
}

func TestLateMD5HasOneSpelling(t *testing.T) {
	for name, b := range map[string][]byte{"with a value": {tlvLateMD5, 0, 1, 9}, "twice": {tlvLateMD5, 0, 0, tlvLateMD5, 0, 0}} {
		var a Attributes
		wantError(t, name, a.parse(b), ErrCorrupt)
	}
}
