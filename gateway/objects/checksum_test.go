package objects

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"chatelaine/backends"
	"chatelaine/gateway/sealed"
)

// The values are those of the specifications and of their reference programs: FIPS
// 180-4's examples for SHA-1, SHA-256 and SHA-512, RFC 1321 appendix A.5 for MD5, the
// check values "123456789" of the CRC catalogue and RFC 3720, and xxhsum 0.8 for
// XXH64, XXH3-64 and XXH3-128 with seed 0, in canonical form.
func TestHashesGiveTheKnownAnswers(t *testing.T) {
	for _, tt := range []struct {
		algorithm Algorithm
		text      string
		want      string
	}{
		{CRC32, "123456789", "cbf43926"},
		{CRC32C, "123456789", "e3069283"},
		{CRC64NVME, "123456789", "ae8b14860a799888"},
		{SHA1, "abc", "a9993e364706816aba3e25717850c26c9cd0d89d"},
		{SHA256, "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
		{SHA512, "abc", "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"},
		{MD5, "abc", "900150983cd24fb0d6963f7d28e17f72"},
		{XXHASH64, "", "ef46db3751d8e999"},
		{XXHASH64, "abc", "44bc2cf5ad770999"},
		{XXHASH3, "", "2d06800538d394c2"},
		{XXHASH3, "abc", "78af5f94892f3950"},
		{XXHASH128, "", "99aa06d3014798d86001c324468d497f"},
		{XXHASH128, "abc", "06b05ab6733a618578af5f94892f3950"},
	} {
		if got := hex.EncodeToString(sumOf(tt.algorithm, []byte(tt.text))); got != tt.want {
			t.Errorf("%s of %q: got %s, want %s", tt.algorithm, tt.text, got, tt.want)
		}
	}
}

// TestXXHashesGiveTheReferencesLongAnswers: the self-test of xxhsum 0.8 generates its
// input, and these are among its answers, for lengths on either side of each method's
// borders.
func TestXXHashesGiveTheReferencesLongAnswers(t *testing.T) {
	input, state := make([]byte, 2367), uint64(2654435761)
	for i := range input {
		input[i] = byte(state >> 56)
		state *= 11400714785074694797
	}
	for _, tt := range []struct {
		algorithm Algorithm
		length    int
		want      string
	}{
		{XXHASH64, 1, "e934a84adb052768"},
		{XXHASH64, 14, "8282dcc4994e35c8"},
		{XXHASH64, 222, "b641ae8cb691c174"},
		{XXHASH3, 1, "c44bdff4074eecdb"},
		{XXHASH3, 6, "27b56a84cd2d7325"},
		{XXHASH3, 12, "a713daf0dfbb77e7"},
		{XXHASH3, 24, "a3fe70bf9d3510eb"},
		{XXHASH3, 48, "397da259ecba1f11"},
		{XXHASH3, 80, "bcdefbbb2c47c90a"},
		{XXHASH3, 195, "cd94217ee362ec3a"},
		{XXHASH3, 403, "cdeb804d65c6dea4"},
		{XXHASH3, 512, "617e49599013cb6b"},
		{XXHASH3, 2048, "dd59e2c3a5f038e0"},
		{XXHASH3, 2240, "6e73a90539cf2948"},
		{XXHASH3, 2367, "cb37aeb9e5d361ed"},
		{XXHASH128, 1, "a6cd5e9392000f6ac44bdff4074eecdb"},
		{XXHASH128, 6, "082afe0b8162d12a3e7039bdda43cfc6"},
		{XXHASH128, 12, "6e3efd8fc7802b18061a192713f69ad9"},
		{XXHASH128, 2048, "f736557fd47073a5dd59e2c3a5f038e0"},
	} {
		if got := hex.EncodeToString(sumOf(tt.algorithm, input[:tt.length])); got != tt.want {
			t.Errorf("%s of %d bytes: got %s, want %s", tt.algorithm, tt.length, got, tt.want)
		}
	}
}

// TestHashesDoNotDependOnHowABodyIsCut goes over the borders of their buffers.
func TestHashesDoNotDependOnHowABodyIsCut(t *testing.T) {
	data := noise(3000)
	for _, a := range Algorithms() {
		for _, cut := range []int{1, 31, 63, 64, 65, 240, 241, 1024, 1025} {
			h := a.NewHash()
			for rest := data; len(rest) > 0; rest = rest[min(cut, len(rest)):] {
				h.Write(rest[:min(cut, len(rest))])
			}
			if got, want := h.Sum(nil), sumOf(a, data); !bytes.Equal(got, want) || len(got) != h.Size() {
				t.Errorf("%s by %d bytes: got %x, want %x", a, cut, got, want)
			}
		}
	}
}

// TestAlgorithmsHaveTheNumbersOfTheFormat: FORMAT.md section 3.
func TestAlgorithmsHaveTheNumbersOfTheFormat(t *testing.T) {
	for a, want := range map[Algorithm]sealed.Algorithm{
		"": 0, "CRC16": 0, CRC32: 1, CRC32C: 2, CRC64NVME: 3, SHA1: 4, SHA256: 5, SHA512: 6, MD5: 7, XXHASH64: 8, XXHASH3: 9, XXHASH128: 10,
	} {
		if got := a.toSealed(); got != want {
			t.Errorf("%q: got %d, want %d", a, got, want)
		}
		if back := fromSealedAlgorithm(want); want != 0 && back != a || want == 0 && back != "" {
			t.Errorf("%d: got %q, want %q", want, back, a)
		}
	}
	if got := fromSealedAlgorithm(11); got != "" {
		t.Errorf("11: got %q", got)
	}
}

// TestEveryChecksumIsKept looks for each with Head, from the envelope and from the
// trailer, and after a copy.
func TestEveryChecksumIsKept(t *testing.T) {
	w := newWorld(t)
	for _, size := range []int{0, 1, holdLimit + 1} {
		data := noise(int64(size))
		for _, a := range Algorithms() {
			want := fmt.Sprint([]Checksum{{Algorithm: a, Value: sumOf(a, data)}})
			for _, late := range []bool{false, true} {
				r := PutRequest{Bucket: w.bucket, Key: "key", Body: bytes.NewReader(data), Size: int64(size)}
				if late {
					r.Late, r.LateValue = a, func() []byte { return sumOf(a, data) }
				} else {
					r.Checksums = []Checksum{{Algorithm: a, Value: sumOf(a, data)}}
				}
				if _, err := w.Put(t.Context(), r); err != nil {
					t.Fatalf("%s: %v", a, err)
				}
				got, _, err := w.Head(t.Context(), GetRequest{Bucket: w.bucket, Key: "key", Checksums: true})
				if err != nil || fmt.Sprint(got.Checksums) != want {
					t.Errorf("%s of %d bytes, late %v: got %v, want %s, error %v", a, size, late, got.Checksums, want, err)
				}
			}
			w.put("plain", data)
			copied, err := w.Copy(t.Context(), CopyRequest{Source: GetRequest{Bucket: w.bucket, Key: "plain"}, Bucket: w.bucket, Key: "copy", Algorithm: a})
			if err != nil || fmt.Sprint(copied.Checksums) != want {
				t.Errorf("%s of %d bytes, copied: got %v, want %s, error %v", a, size, copied.Checksums, want, err)
			}
		}
	}
}

func TestPartsKeepTheRulesOfTheirUpload(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		name      string
		asked     Algorithm
		composite bool
		stated    Algorithm
		want      error
	}{
		{"nothing asked, nothing stated", "", false, "", nil},
		{"nothing asked, any stated", "", false, SHA512, nil},
		{"full object, nothing stated", CRC32, false, "", nil},
		{"full object, the same", CRC32, false, CRC32, nil},
		{"full object, another", CRC32, false, SHA256, ErrChecksumAlgorithm},
		{"composite, nothing stated", XXHASH3, true, "", ErrChecksumAlgorithm},
		{"composite, the same", XXHASH3, true, XXHASH3, nil},
		{"composite, another of the same size", XXHASH3, true, XXHASH64, ErrChecksumAlgorithm},
	} {
		u, err := w.CreateUpload(t.Context(), CreateUploadRequest{Bucket: w.bucket, Key: "key", Algorithm: tt.asked, Composite: tt.composite})
		if err != nil {
			t.Fatal(err)
		}
		part, err := w.PutPart(t.Context(), summedPart(u, 1, []byte("data"), tt.stated))
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
		if tt.want != nil {
			var broken *ChecksumError
			if !errors.As(err, &broken) || broken.Want != tt.asked || broken.Got != tt.stated {
				t.Errorf("%s: got %+v", tt.name, broken)
			}
			continue
		}
		algorithm := tt.asked
		if algorithm == "" {
			algorithm = CRC64NVME
		}
		if want := (Checksum{Algorithm: algorithm, Value: sumOf(algorithm, []byte("data"))}); fmt.Sprint(*part.Checksum) != fmt.Sprint(want) || part.Unasked != (tt.asked == "") {
			t.Errorf("%s: got %v, unasked %v", tt.name, *part.Checksum, part.Unasked)
		}
	}
}

func TestCompleteKeepsTheRulesOfItsUpload(t *testing.T) {
	data := []byte("data")
	of := func(a Algorithm) []byte { return sumOf(a, data) }
	composite := func(a Algorithm) []byte { return a.composite([][]byte{of(a)}) }
	for _, tt := range []struct {
		name      string
		asked     Algorithm
		composite bool
		part      Algorithm // what the list says of the part
		kind      ChecksumType
		whole     *Checksum
		want      error
	}{
		{"nothing asked", "", false, "", AnyType, nil, nil},
		{"nothing asked, S3's default stated", "", false, CRC64NVME, FullObjectType, &Checksum{Algorithm: CRC64NVME, Value: of(CRC64NVME)}, nil},
		{"nothing asked, a part's checksum that nobody kept", "", false, CRC32, AnyType, nil, backends.ErrInvalidPart},
		{"nothing asked, a wrong whole", "", false, "", AnyType, &Checksum{Algorithm: CRC64NVME, Value: make([]byte, 8)}, ErrChecksumMismatch},
		{"nothing asked, composite said", "", false, "", CompositeType, nil, ErrChecksumType},
		{"full object", CRC32C, false, CRC32C, FullObjectType, &Checksum{Algorithm: CRC32C, Value: of(CRC32C)}, nil},
		{"full object, composite said", CRC32C, false, CRC32C, CompositeType, nil, ErrChecksumType},
		{"full object, another algorithm in the list", CRC32C, false, SHA256, AnyType, nil, ErrChecksumAlgorithm},
		{"full object, another algorithm of the whole", CRC32C, false, CRC32C, AnyType, &Checksum{Algorithm: CRC32, Value: of(CRC32)}, ErrChecksumMismatch},
		{"full object, composite whole", CRC32C, false, CRC32C, AnyType, &Checksum{Algorithm: CRC32C, Composite: true, Parts: 1, Value: of(CRC32C)}, ErrChecksumMismatch},
		{"composite", MD5, true, MD5, CompositeType, &Checksum{Algorithm: MD5, Composite: true, Parts: 1, Value: composite(MD5)}, nil},
		{"composite, without the number", MD5, true, MD5, AnyType, &Checksum{Algorithm: MD5, Value: composite(MD5)}, nil},
		{"composite, another number", MD5, true, MD5, AnyType, &Checksum{Algorithm: MD5, Composite: true, Parts: 2, Value: composite(MD5)}, ErrChecksumMismatch},
		{"composite, full object said", MD5, true, MD5, FullObjectType, nil, ErrChecksumType},
		{"composite, the whole's own sum", MD5, true, MD5, AnyType, &Checksum{Algorithm: MD5, Value: of(MD5)}, ErrChecksumMismatch},
		{"composite, a part without", MD5, true, "", AnyType, nil, ErrChecksumMissing},
		{"composite, another algorithm in the list", MD5, true, XXHASH128, AnyType, nil, ErrChecksumAlgorithm},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			u, err := w.CreateUpload(t.Context(), CreateUploadRequest{Bucket: w.bucket, Key: "key", Algorithm: tt.asked, Composite: tt.composite})
			if err != nil {
				t.Fatal(err)
			}
			listed := CompletePart{Number: 1, ETag: w.putSummedPart(u, 1, data, tt.asked).ETag, Algorithm: tt.part}
			if tt.part != "" {
				listed.Checksum = of(tt.part)
			}
			_, err = w.Complete(t.Context(), CompleteRequest{UploadRef: u, Parts: []CompletePart{listed}, Size: -1, Type: tt.kind, Checksum: tt.whole})
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			var broken *ChecksumError
			if errors.As(err, &broken) && broken.Composite != tt.composite {
				t.Errorf("got %+v", broken)
			}
		})
	}
}

func TestACopyIsAskedForAChecksumOfTheFullObject(t *testing.T) {
	w := newWorld(t)
	u, err := w.CreateUpload(t.Context(), CreateUploadRequest{Bucket: w.bucket, Key: "key", Algorithm: SHA256, Composite: true})
	if err != nil {
		t.Fatal(err)
	}
	data := []byte("data")
	part := w.putSummedPart(u, 1, data, SHA256)
	listed := []CompletePart{{Number: 1, ETag: part.ETag, Checksum: part.Checksum.Value, Algorithm: SHA256}}
	if _, err := w.Complete(t.Context(), CompleteRequest{UploadRef: u, Parts: listed, Size: -1}); err != nil {
		t.Fatal(err)
	}
	for asked, want := range map[Algorithm]Checksum{
		"":     {Algorithm: SHA256, Composite: true, Parts: 1, Value: SHA256.composite([][]byte{sumOf(SHA256, data)})},
		SHA256: {Algorithm: SHA256, Value: sumOf(SHA256, data)},
		MD5:    {Algorithm: MD5, Value: sumOf(MD5, data)},
	} {
		w.mustCopy(CopyRequest{Source: GetRequest{Bucket: w.bucket, Key: "key"}, Bucket: w.bucket, Key: "copy", Algorithm: asked})
		got, _, err := w.Head(t.Context(), GetRequest{Bucket: w.bucket, Key: "copy", Checksums: true})
		if err != nil || fmt.Sprint(got.Checksums) != fmt.Sprint([]Checksum{want}) {
			t.Errorf("asked for %q: got %v, want %v, error %v", asked, got.Checksums, want, err)
		}
		if got := w.mustGet(GetRequest{Key: "copy"}); !bytes.Equal(got, data) {
			t.Errorf("asked for %q: got other bytes", asked)
		}
	}
}

func TestListsOfUploadsSayWhatWasAskedFor(t *testing.T) {
	w := newWorld(t)
	want := []UploadChecksum{{}, {Algorithm: CRC32}, {Algorithm: SHA512, Composite: true}}
	var first UploadRef
	for i, asked := range want {
		u, err := w.CreateUpload(t.Context(), CreateUploadRequest{
			Bucket: w.bucket, Key: strings.Repeat("k", i+1), Algorithm: asked.Algorithm, Composite: asked.Composite,
		})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = u
		}
	}
	other := w.replica() // whose cache is empty
	page, err := other.ListUploads(t.Context(), UploadsRequest{Bucket: w.bucket})
	if err != nil || len(page.Uploads) != 3 {
		t.Fatalf("got %+v, error %v", page, err)
	}
	if got := other.UploadChecksums(t.Context(), w.bucket, page.Uploads); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	parts, err := other.ListParts(t.Context(), PartsRequest{UploadRef: first})
	if err != nil || parts.UploadChecksum != want[0] {
		t.Errorf("got %+v, error %v", parts, err)
	}
	page.Uploads[1].Key = "another" // whose stash does not open
	want[1] = UploadChecksum{}
	if got := w.replica().UploadChecksums(t.Context(), w.bucket, page.Uploads); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("with one that does not open: got %v, want %v", got, want)
	}
}

// FuzzHashes: what is hashed in two pieces is hashed in one, and CRCs combine.
func FuzzHashes(f *testing.F) {
	f.Add([]byte("abc"), []byte(""))
	f.Add(bytes.Repeat([]byte("x"), 300), []byte("tail"))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		whole := append(bytes.Clone(first), second...)
		for _, a := range Algorithms() {
			h := a.NewHash()
			h.Write(first)
			before := h.Sum(nil)
			h.Write(second)
			if got, want := h.Sum(nil), sumOf(a, whole); !bytes.Equal(got, want) {
				t.Errorf("%s: got %x, want %x", a, got, want)
			}
			if a.Combines() && !bytes.Equal(a.combine(before, sumOf(a, second), int64(len(second))), sumOf(a, whole)) {
				t.Errorf("%s does not combine", a)
			}
		}
	})
}
