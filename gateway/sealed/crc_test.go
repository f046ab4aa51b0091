package sealed

import (
	"math/rand/v2"
	"testing"

	"github.com/minio/crc64nvme"
)

func TestCombinedCRCIsThatOfTheWhole(t *testing.T) {
	text := refText("crc", 1<<20)
	if got, want := crc64nvme.Checksum(text), refCRC(text); got != want {
		t.Fatalf("got %x, want %x", got, want)
	}
	r := rand.New(rand.NewPCG(5, 6))
	for range 200 {
		cut := r.IntN(len(text) + 1)
		end := cut + r.IntN(len(text)-cut+1)
		got := combineCRC(refCRC(text[:cut]), refCRC(text[cut:end]), crcShift(int64(end-cut)))
		if want := refCRC(text[:end]); got != want {
			t.Fatalf("%d and %d bytes: got %x, want %x", cut, end-cut, got, want)
		}
	}
}

func TestSumOfPartsIsKnownOnlyIfAllAre(t *testing.T) {
	text := refText("crc", 300)
	parts := []Part{
		{Length: 100, CRC: refCRC(text[:100]), HasCRC: true},
		{Length: 100, CRC: refCRC(text[100:200]), HasCRC: true},
		{Length: 100, CRC: refCRC(text[200:]), HasCRC: true},
	}
	if got, known := sumCRC(parts); !known || got != refCRC(text) {
		t.Errorf("got %x, %t, want %x", got, known, refCRC(text))
	}
	parts[1].HasCRC = false
	if got, known := sumCRC(parts); known || got != 0 {
		t.Errorf("got %x, %t, want none", got, known)
	}
}
