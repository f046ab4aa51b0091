package sealed

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"testing"
)

// attacks are the lines of FORMAT.md §8, by number.
var attacks = []string{
	1: "changes a byte", 2: "cuts", 3: "extends", 4: "reorders", 5: "duplicates", 6: "mixes two objects",
	7: "swaps two objects under their names", 8: "swaps or strips the envelope", 9: "puts back an earlier attempt at a part",
	10: "lies about sizes", 11: "finds two keys for one ciphertext",
}

// vectorHostile is an object of objects.json after an attack, or an envelope. Reading it must fail as Want says.
type vectorHostile struct {
	Line     int          `json:"line"` // of the table in FORMAT.md §8
	Attack   string       `json:"attack"`
	Name     string       `json:"name"`
	Object   string       `json:"object,omitempty"`      // what the provider holds, before Edits
	Envelope string       `json:"envelope_of,omitempty"` // object whose DEK, length and salt the reader has; Object if empty
	Edits    []vectorEdit `json:"edits,omitempty"`
	Stored   int64        `json:"stored,omitempty"` // the size that the provider claims
	Sum      hexBytes     `json:"stored_sha256,omitempty"`

	Header    *string  `json:"header,omitempty"` // an envelope instead: what the provider answers
	BucketKey hexBytes `json:"bucket_key,omitempty"`
	Space     hexBytes `json:"space,omitempty"`
	Key       string   `json:"key,omitempty"`

	Want string `json:"want"` // corrupt or unsupported
}

// vectorEdit changes stored bytes. Offsets count in the bytes as the edits before have left them.
type vectorEdit struct {
	Op   string `json:"op"` // flip: XOR the byte At with 1. cut: remove Len bytes. insert: put in Len zeros. copy: overwrite Len bytes.
	At   int64  `json:"at"`
	Len  int64  `json:"len,omitempty"`
	From string `json:"from,omitempty"` // copy: the object, unedited, that Src counts in
	Src  int64  `json:"src,omitempty"`
}

func (e vectorEdit) apply(b []byte, stored func(string) []byte) []byte {
	switch e.Op {
	case "flip":
		b[e.At] ^= 1
	case "cut":
		return slices.Delete(b, int(e.At), int(e.At+e.Len))
	case "insert":
		return slices.Insert(b, int(e.At), make([]byte, e.Len)...)
	case "copy":
		copy(b[e.At:e.At+e.Len], stored(e.From)[e.Src:])
	default:
		panic("unknown edit " + e.Op)
	}
	return b
}

func (v vectorHostile) edit(stored func(string) []byte) []byte {
	b := bytes.Clone(stored(v.Object))
	for _, e := range v.Edits {
		b = e.apply(b, stored)
	}
	return b
}

// referenceObjects makes the objects to attack, once each.
func referenceObjects(objects []vectorObject) func(string) []byte {
	made := map[string][]byte{}
	return func(name string) []byte {
		if made[name] == nil {
			made[name] = findVector(objects, name).reference()
		}
		return made[name]
	}
}

func findVector(objects []vectorObject, name string) vectorObject {
	i := slices.IndexFunc(objects, func(v vectorObject) bool { return v.Name == name })
	if i < 0 {
		panic("no vector " + name)
	}
	return objects[i]
}

func TestHostileProvider(t *testing.T) {
	objects := loadVectors(t, "objects.json", makeObjects)
	vectors := loadVectors(t, "hostile.json", func() []vectorHostile { return makeHostile(objects) })
	stored := referenceObjects(objects)
	lines := make([]int, len(attacks))
	for _, v := range vectors {
		lines[v.Line]++
		if v.Attack != attacks[v.Line] {
			t.Errorf("%s: line %d is %q, not %q", v.Name, v.Line, attacks[v.Line], v.Attack)
		}
		if v.Header != nil {
			checkHostileEnvelope(t, v)
			continue
		}
		checkHostileObject(t, v, objects, stored)
	}
	for line := 1; line < len(attacks); line++ {
		if lines[line] == 0 {
			t.Errorf("line %d (%s) has no vector", line, attacks[line])
		}
	}
}

func checkHostileEnvelope(t *testing.T, v vectorHostile) {
	t.Helper()
	_, err := Suite{}.OpenEnvelope(*v.Header, mustKey(t, v.BucketKey), ObjectName{Space: Space(v.Space), Key: v.Key})
	checkRefused(t, v, err)
}

func checkHostileObject(t *testing.T, v vectorHostile, objects []vectorObject, stored func(string) []byte) {
	t.Helper()
	b := v.edit(stored)
	checkSum(t, v.Name, b, v.Sum)
	reader := findVector(objects, v.Object)
	if v.Envelope != "" {
		reader = findVector(objects, v.Envelope)
	}
	got, err := reader.open(b, v.Stored)
	checkRefused(t, v, err)
	plain := refText(reader.Seed, reader.Length)
	if !bytes.HasPrefix(plain, got) || len(got) == len(plain) {
		t.Errorf("%s: %d bytes released that are false, or all", v.Name, len(got))
	}
}

func checkRefused(t *testing.T, v vectorHostile, err error) {
	t.Helper()
	want, ok := map[string]error{"corrupt": ErrCorrupt, "unsupported": ErrUnsupported}[v.Want]
	if !ok || !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %s", v.Name, err, v.Want)
	}
}

// hostile collects vectors.
type hostile struct {
	objects []vectorObject
	stored  func(string) []byte
	out     []vectorHostile
}

const (
	hostileSingle = "hostile: single"
	hostileMulti  = "hostile: multipart"
	hostileOther  = ", other"
	hostileEarly  = ", earlier attempts"
)

// add makes a vector of edits; claimed is what the provider says, and 0 stands for the truth.
func (h *hostile) add(line int, name, object string, claimed int64, edits ...vectorEdit) *vectorHostile {
	v := vectorHostile{Line: line, Attack: attacks[line], Name: name, Object: object, Edits: edits, Stored: claimed, Want: "corrupt"}
	b := v.edit(h.stored)
	sum := sha256.Sum256(b)
	if v.Sum = sum[:]; claimed == 0 {
		v.Stored = int64(len(b))
	}
	h.out = append(h.out, v)
	return &h.out[len(h.out)-1]
}

func (h *hostile) addEnvelope(line int, name, header string, of vectorEnvelope, want string) {
	h.out = append(h.out, vectorHostile{
		Line: line, Attack: attacks[line], Name: name, Header: &header, BucketKey: of.BucketKey, Space: of.Space, Key: of.Key, Want: want,
	})
}

func makeHostile(objects []vectorObject) []vectorHostile {
	h := &hostile{objects: objects, stored: referenceObjects(objects)}
	h.bytes()
	h.lengths()
	h.places()
	h.strangers()
	h.envelopes()
	return h.out
}

func chunkAt(i int64) int64 { return HeaderSize + i*SealedChunkSize }

// bytes: lines 1 and 11.
func (h *hostile) bytes() {
	single, multi := int64(len(h.stored(hostileSingle))), int64(len(h.stored(hostileMulti)))
	for name, at := range map[string]int64{
		"salt": 0, "commitment": SaltSize, "first chunk": HeaderSize, "tag of a chunk": chunkAt(2) - 1, "last chunk": chunkAt(4),
		"salt of the trailer": single - trailerSize(1) - footerSize, "trailer": single - footerSize - TagSize - 1, "footer, length": single - 5, "footer, text": single - 1,
	} {
		h.add(1, "single: "+name, hostileSingle, 0, vectorEdit{Op: "flip", At: at})
	}
	second := MessageSize(MinPartSize)
	for name, at := range map[string]int64{
		"salt of part 2": second, "commitment of part 2": second + SaltSize, "chunk of part 2": second + chunkAt(100), "trailer": multi - trailerSize(3),
	} {
		h.add(1, "multipart: "+name, hostileMulti, 0, vectorEdit{Op: "flip", At: at})
	}
	slices.SortFunc(h.out, func(a, b vectorHostile) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
	h.add(11, "commitment to another key over chunks with right tags", hostileSingle, 0,
		vectorEdit{Op: "copy", At: SaltSize, Len: commitSize, From: hostileSingle + hostileOther, Src: SaltSize})
	trailer := single - trailerSize(1) - footerSize
	h.add(11, "the same in the trailer", hostileSingle, 0,
		vectorEdit{Op: "copy", At: trailer + SaltSize, Len: commitSize, From: hostileSingle + hostileOther, Src: trailer + SaltSize})
}

// lengths: lines 2, 3 and 10.
func (h *hostile) lengths() {
	single, multi := int64(len(h.stored(hostileSingle))), int64(len(h.stored(hostileMulti)))
	length := findVector(h.objects, hostileSingle).Length
	for _, claimed := range []int64{0, single} {
		h.add(2, fmt.Sprintf("single: last byte, claiming %d", claimed), hostileSingle, claimed, vectorEdit{Op: "cut", At: single - 1, Len: 1})
		h.add(2, fmt.Sprintf("single: last chunk, claiming %d", claimed), hostileSingle, claimed, vectorEdit{Op: "cut", At: chunkAt(4), Len: 100 + TagSize})
		h.add(2, fmt.Sprintf("single: a chunk, claiming %d", claimed), hostileSingle, claimed, vectorEdit{Op: "cut", At: chunkAt(1), Len: SealedChunkSize})
		h.add(3, fmt.Sprintf("single: behind the footer, claiming %d", claimed), hostileSingle, claimed, vectorEdit{Op: "insert", At: single, Len: 1})
		h.add(3, fmt.Sprintf("single: before the trailer, claiming %d", claimed), hostileSingle, claimed, vectorEdit{Op: "insert", At: chunkAt(4) + 100 + TagSize, Len: 16})
	}
	h.add(2, "single: everything", hostileSingle, 0, vectorEdit{Op: "cut", Len: single})
	h.add(2, "single: everything, claiming the truth", hostileSingle, single, vectorEdit{Op: "cut", Len: single})
	h.add(2, "multipart: part 3", hostileMulti, 0, vectorEdit{Op: "cut", At: 2 * MessageSize(MinPartSize), Len: MessageSize(2 * ChunkSize)})
	h.add(2, "multipart: the empty chunk that ends part 1", hostileMulti, multi, vectorEdit{Op: "cut", At: MessageSize(MinPartSize) - TagSize, Len: TagSize})
	h.add(3, "multipart: between parts", hostileMulti, multi, vectorEdit{Op: "insert", At: MessageSize(MinPartSize), Len: TagSize})
	h.add(10, "single: size of one byte less", hostileSingle, Size(length-1))
	h.add(10, "single: size of one byte more", hostileSingle, Size(length+1))
	h.add(10, "single: no size of ours", hostileSingle, single-1)
	h.add(10, "multipart: size of one byte less", hostileMulti, Size(plainLength(multi)-1), vectorEdit{Op: "cut", At: 2*MessageSize(MinPartSize) + MessageSize(2*ChunkSize), Len: multi - Size(plainLength(multi)-1)})
}

// plainLength is PlainSize of a size that is known to be good.
func plainLength(stored int64) int64 {
	n, _ := PlainSize(stored)
	return n
}

// places: lines 4, 5 and 9.
func (h *hostile) places() {
	swap := func(object string, a, b, n int64) []vectorEdit {
		return []vectorEdit{{Op: "copy", At: a, Len: n, From: object, Src: b}, {Op: "copy", At: b, Len: n, From: object, Src: a}}
	}
	part := MessageSize(MinPartSize)
	h.add(4, "single: chunks 1 and 2", hostileSingle, 0, swap(hostileSingle, chunkAt(1), chunkAt(2), SealedChunkSize)...)
	h.add(4, "multipart: parts 1 and 2", hostileMulti, 0, swap(hostileMulti, 0, part, part)...)
	h.add(4, "multipart: chunk 5 of parts 1 and 2", hostileMulti, 0, swap(hostileMulti, chunkAt(5), part+chunkAt(5), SealedChunkSize)...)
	h.add(5, "single: chunk 1 again as chunk 2", hostileSingle, 0, vectorEdit{Op: "copy", At: chunkAt(2), Len: SealedChunkSize, From: hostileSingle, Src: chunkAt(1)})
	h.add(5, "multipart: part 1 again as part 2", hostileMulti, 0, vectorEdit{Op: "copy", At: part, Len: part, From: hostileMulti})
	h.add(9, "part 2", hostileMulti, 0, vectorEdit{Op: "copy", At: part, Len: part, From: hostileMulti + hostileEarly, Src: part})
	h.add(9, "a chunk of part 2", hostileMulti, 0, vectorEdit{Op: "copy", At: part + chunkAt(9), Len: SealedChunkSize, From: hostileMulti + hostileEarly, Src: part + chunkAt(9)})
}

// strangers: lines 6 and 7.
func (h *hostile) strangers() {
	single, multi := int64(len(h.stored(hostileSingle))), int64(len(h.stored(hostileMulti)))
	part := MessageSize(MinPartSize)
	from := func(object string, at, n int64) vectorEdit {
		return vectorEdit{Op: "copy", At: at, Len: n, From: object + hostileOther, Src: at}
	}
	h.add(6, "single: chunk 1", hostileSingle, 0, from(hostileSingle, chunkAt(1), SealedChunkSize))
	h.add(6, "single: trailer", hostileSingle, 0, from(hostileSingle, single-trailerSize(1)-footerSize, trailerSize(1)))
	h.add(6, "multipart: part 2", hostileMulti, 0, from(hostileMulti, part, part))
	h.add(6, "multipart: trailer", hostileMulti, 0, from(hostileMulti, multi-trailerSize(3)-footerSize, trailerSize(3)))
	h.add(7, "single: another object's bytes", hostileSingle+hostileOther, 0).Envelope = hostileSingle
	h.add(7, "multipart: another object's bytes", hostileMulti+hostileOther, 0).Envelope = hostileMulti
}

// envelopes: lines 7, 8 and 1.
func (h *hostile) envelopes() {
	vs := sealEnvelopes([]vectorEnvelope{{Name: "hostile a", Headers: make([]string, 6)}, {Name: "hostile b", Headers: make([]string, 6)}})
	a, b := vs[0], vs[1]
	b.BucketKey, b.Space = a.BucketKey, a.Space
	b.Header = b.reference()
	h.addEnvelope(7, "envelope of another name under the same bucket key", b.Header, a, "corrupt")
	h.addEnvelope(8, "envelope of another bucket", vs[1].Header, a, "corrupt")
	h.addEnvelope(8, "stripped", "", a, "unsupported")
	h.addEnvelope(8, "plain text", "text/plain", a, "unsupported")
	h.addEnvelope(8, "nothing behind the version", "1.", a, "corrupt")
	flipped := []byte(a.Header)
	at := len(flipped) / 2
	flipped[at] = map[bool]byte{true: 'B', false: 'A'}[flipped[at] == 'A']
	h.addEnvelope(1, "envelope: one letter", string(flipped), a, "corrupt")
}
