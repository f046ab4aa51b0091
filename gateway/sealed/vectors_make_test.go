package sealed

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
)

// This file says what the frozen vectors are about; reference_test.go computes them.

func makeObjects() (out []vectorObject) {
	for _, border := range []int64{0, ChunkSize, 2 * ChunkSize, MaxBatch * ChunkSize, MinPartSize, 2 * MinPartSize} {
		for d := int64(-1); d <= 1; d++ {
			if n := border + d; n >= 0 {
				out = append(out, newVectorObject(fmt.Sprintf("single, %d bytes", n), Single, vectorPart{Length: n}))
			}
		}
	}
	for _, o := range []struct {
		name  string
		parts []vectorPart
	}{
		{"one empty part", []vectorPart{{Number: 1}}},
		{"one small part, numbered 9999", []vectorPart{{Number: 9999, Length: 1}}},
		{"one part of 5 MiB less 1", []vectorPart{{Number: 1, Length: MinPartSize - 1}}},
		{"one part of 5 MiB", []vectorPart{{Number: 1, Length: MinPartSize}}},
		{"one part of 5 MiB and 1", []vectorPart{{Number: 1, Length: MinPartSize + 1}}},
		{"one part of 10 MiB, slots unused", []vectorPart{{Number: 1, Length: 2 * MinPartSize}}},
		{"two parts of 5 MiB", []vectorPart{{Number: 1, Length: MinPartSize}, {Number: 2, Length: MinPartSize}}},
		{"aligned, last part empty", []vectorPart{{Number: 1, Length: MinPartSize}, {Number: 2}}},
		{"gaps and unaligned cuts", []vectorPart{{Number: 3, Length: MinPartSize + 1}, {Number: 256, Length: MinPartSize + ChunkSize - 1}, {Number: 9999, Length: 12345}}},
		{"staged tail", []vectorPart{{Number: 1, Length: MinPartSize + 7}, {Number: 2, Length: 3*ChunkSize + 5}}},
		{"unbound first part", []vectorPart{{Number: 1, Length: MinPartSize + 3, Unbound: true}, {Number: 2, Length: 99}}},
		{"all parts unbound", []vectorPart{{Number: 1, Length: MinPartSize, Unbound: true}, {Number: 2, Length: ChunkSize, Unbound: true}}},
	} {
		out = append(out, newVectorObject(o.name, Multipart, o.parts...))
	}
	single := newVectorObject("single, late checksum", Single, vectorPart{Length: ChunkSize + 1})
	single.Checksum = &vectorCheck{Algorithm: SHA256, Value: testBytes(5, 32)}
	multi := newVectorObject("multipart, late composite checksum", Multipart, vectorPart{Number: 1, Length: MinPartSize}, vectorPart{Number: 4, Length: 10})
	multi.Checksum = &vectorCheck{Algorithm: CRC32C, Scope: Composite, Value: testBytes(6, 4), Parts: 2}
	out = append(out, single.sum(), multi.sum())
	for _, base := range []string{"hostile: single", "hostile: single, other"} {
		out = append(out, newVectorObject(base, Single, vectorPart{Length: 4*ChunkSize + 100}))
	}
	parts := []vectorPart{{Number: 1, Length: MinPartSize}, {Number: 2, Length: MinPartSize}, {Number: 3, Length: 2 * ChunkSize}}
	multi = newVectorObject("hostile: multipart", Multipart, slices.Clone(parts)...)
	other := newVectorObject("hostile: multipart, other", Multipart, slices.Clone(parts)...)
	earlier := newVectorObject("hostile: multipart, earlier attempts", Multipart, slices.Clone(parts)...)
	earlier.DEK = multi.DEK
	out = append(out, multi, other, earlier.sum())
	single = newVectorObject("single, late checksum of 64 bytes", Single, vectorPart{Length: 7})
	single.Checksum = &vectorCheck{Algorithm: SHA512, Value: testBytes(7, 64)}
	multi = newVectorObject("multipart, late composite XXHASH128", Multipart, vectorPart{Number: 2, Length: 3})
	multi.Checksum = &vectorCheck{Algorithm: XXHASH128, Scope: Composite, Value: testBytes(8, 16), Parts: 1}
	out = append(out, single.sum(), multi.sum())
	single = newVectorObject("single, late MD5", Single, vectorPart{Length: ChunkSize})
	single.MD5 = testBytes(9, 16)
	multi = newVectorObject("multipart, late MD5 beside the longest checksum with one", Multipart, vectorPart{Number: 1, Length: MinPartSize}, vectorPart{Number: 2, Length: 1})
	multi.MD5, multi.Checksum = testBytes(10, 16), &vectorCheck{Algorithm: SHA256, Scope: Composite, Value: testBytes(11, 32), Parts: 2}
	return append(
		out, single.sum(), multi.sum(),
		newVectorObject("one small part, numbered 10000", Multipart, vectorPart{Number: 10000, Length: 1}),
		newVectorObject("parts 9999 and 10000", Multipart, vectorPart{Number: 9999, Length: MinPartSize}, vectorPart{Number: 10000, Length: ChunkSize + 1}),
	)
}

// newVectorObject makes an object whose DEK, salts and plaintext follow from its name.
func newVectorObject(name string, kind Kind, parts ...vectorPart) vectorObject {
	v := vectorObject{Name: name, Kind: kind, Seed: name, Parts: parts, DEK: refText("dek of "+name, 32), TrailerSalt: refText("trailer salt of "+name, 24)}
	for i := range v.Parts {
		v.Length += v.Parts[i].Length
		v.Parts[i].Salt = refText(fmt.Sprintf("salt %d of %s", i, name), 24)
	}
	return v.sum()
}

// sum computes what the vector is to come to.
func (v vectorObject) sum() vectorObject {
	plain, stored := sha256.Sum256(refText(v.Seed, v.Length)), v.reference()
	sum := sha256.Sum256(stored)
	v.Plain, v.Stored, v.Sum = plain[:], int64(len(stored)), sum[:]
	return v
}

func makeEnvelopes() []vectorEnvelope {
	none := make([]string, 6)
	out := []vectorEnvelope{
		{Name: "bare", Headers: none},
		{Name: "empty object", Headers: none, Length: -1},
		{Name: "multipart", Kind: Multipart, Headers: none},
		{Name: "longest single", Headers: none, Length: MaxPartSize},
	}
	for i, header := range []string{"text/plain; charset=utf-8", "gzip", `attachment; filename="ü.txt"`, "de, en", "max-age=3600", "Thu, 01 Dec 1994 16:00:00 GMT"} {
		one := slices.Clone(none)
		one[i] = header
		out = append(out, vectorEnvelope{Name: fmt.Sprintf("TLV %d", i+1), Headers: one})
	}
	all := []string{"application/json", "br", "inline", "fr", "no-store", "0"}
	return sealEnvelopes(append(
		out,
		vectorEnvelope{Name: "TLV 16", Headers: none, UserMetadata: []Pair{{"b", "2"}, {"a", "1"}, {"empty", ""}, {"utf8", "grüß"}}},
		vectorEnvelope{Name: "TLV 32, every algorithm", Headers: none, Checksums: firstChecksums(FullObject, 0)},
		vectorEnvelope{Name: "TLV 32, composite", Headers: none, Checksums: firstChecksums(Composite, 9999)},
		vectorEnvelope{Name: "TLV 33", Headers: none, MD5: testBytes(40, 16)},
		vectorEnvelope{Name: "TLV 34", Headers: none, Late: CRC32C},
		vectorEnvelope{Name: "all TLVs", Headers: all, UserMetadata: []Pair{{"k", "v"}}, Checksums: firstChecksums(FullObject, 0), MD5: testBytes(41, 16), Late: SHA1},
		vectorEnvelope{Name: "TLV 32, algorithms 6 to 10", Headers: none, Checksums: laterChecksums(FullObject, 0)},
		vectorEnvelope{Name: "TLV 32, composite, algorithms 6 to 10", Headers: none, Checksums: laterChecksums(Composite, 2)},
		vectorEnvelope{Name: "TLV 34, SHA-512", Headers: none, Late: SHA512},
		vectorEnvelope{Name: "TLV 35", Headers: none, LateMD5: true},
		vectorEnvelope{Name: "TLV 35, multipart", Kind: Multipart, Headers: none, LateMD5: true},
		vectorEnvelope{Name: "TLV 7", Headers: none, Redirect: "/elsewhere?a=b"},
	))
}

// firstChecksums and laterChecksums: frozen vectors are added to, not changed.
func firstChecksums(scope Scope, parts int) []vectorCheck {
	return vectorChecks(CRC32, scope, parts, 4, 4, 8, 20, 32)
}

func laterChecksums(scope Scope, parts int) []vectorCheck {
	return vectorChecks(SHA512, scope, parts, 64, 16, 8, 8, 16)
}

func vectorChecks(first Algorithm, scope Scope, parts int, sizes ...int) (out []vectorCheck) {
	for i, n := range sizes {
		out = append(out, vectorCheck{Algorithm: first + Algorithm(i), Scope: scope, Value: testBytes(50+i, n), Parts: parts})
	}
	return out
}

// sealEnvelopes fills in what does not matter and seals, without the package.
func sealEnvelopes(vs []vectorEnvelope) []vectorEnvelope {
	for i := range vs {
		v := &vs[i]
		v.BucketKey, v.KeyID = refText("bucket key of "+v.Name, 32), refText("key id of "+v.Name, 16)
		v.Space, v.Salt, v.DEK = refText("space of "+v.Name, 16), refText("envelope salt of "+v.Name, 24), refText("dek of "+v.Name, 32)
		v.Key, v.Created = "dir/"+v.Name+" ä%2F+", 1_800_000_000_000+int64(i)
		v.PartSalt = make([]byte, 24)
		if v.Kind == Single {
			v.PartSalt = refText("part salt of "+v.Name, 24)
			if v.Length == 0 {
				v.Length = 1_000_000 + int64(i)
			}
		}
		v.Length = max(0, v.Length)
		v.Header = v.reference()
	}
	return vs
}

func (v *vectorEnvelope) reference() string {
	length := uint64(v.Length)
	if v.Kind == Multipart {
		length = ^uint64(0)
	}
	e := "\x01" + string(rune(v.Kind)) + string(v.DEK) + refU64(length) + string(v.PartSalt) + refU64(uint64(v.Created))
	for i, h := range v.Headers {
		if h != "" {
			e += refTLV(i+1, h)
		}
	}
	if v.Redirect != "" {
		e += refTLV(7, v.Redirect)
	}
	for _, p := range v.UserMetadata {
		e += refTLV(16, refLP(p.Name)+p.Value)
	}
	for _, c := range v.Checksums {
		value := string([]byte{byte(c.Algorithm), byte(c.Scope)}) + string(c.Value)
		if c.Scope == 1 {
			value += refU16(c.Parts)
		}
		e += refTLV(32, value)
	}
	if v.MD5 != nil {
		e += refTLV(33, string(v.MD5))
	}
	if v.Late != 0 {
		e += refTLV(34, string([]byte{byte(v.Late)}))
	}
	if v.LateMD5 {
		e += refTLV(35, "")
	}
	msg := refMessage(v.BucketKey, v.Salt, "cho1/env\x00"+refLP(string(v.Space))+refLP(v.Key), []byte(e))
	return "1." + base64.RawURLEncoding.EncodeToString(append(slices.Clone(v.KeyID), msg...))
}

func refTLV(tlv int, value string) string {
	return string([]byte{byte(tlv)}) + refU16(len(value)) + value
}

func makeUploads() []vectorUpload {
	out := []vectorUpload{
		{Name: "plain", Number: 1, Length: MinPartSize},
		{Name: "composite SHA-256", Algorithm: SHA256, Scope: Composite, Number: 9999, Length: MaxPartSize, Checksum: testBytes(60, 32)},
		{Name: "full-object CRC32", Algorithm: CRC32, Number: 256, Length: 0, Checksum: testBytes(61, 4)},
		{Name: "composite SHA-512", Algorithm: SHA512, Scope: Composite, Number: 3, Length: 5, Checksum: testBytes(62, 64)},
		{Name: "composite XXHASH3", Algorithm: XXHASH3, Scope: Composite, Number: 3, Length: 5, Checksum: testBytes(63, 8)},
	}
	for i := range out {
		v := &out[i]
		v.BucketKey, v.KeyID, v.Space = refText("bucket key of "+v.Name, 32), refText("key id of "+v.Name, 16), refText("space of "+v.Name, 16)
		v.Key, v.UploadID, v.ETag = "key of "+v.Name, "upload-id_of."+v.Name, fmt.Sprintf("%x", refText("etag", 16))
		v.Salt, v.DEK, v.PartSalt = refText("stash salt of "+v.Name, 24), refText("dek of "+v.Name, 32), refText("part salt of "+v.Name, 24)
		v.Created, v.CRC = 1_800_000_000_000, binary.BigEndian.Uint64(refText("crc of "+v.Name, 8))
		ctx := "cho1/upl\x00" + refLP(string(v.Space)) + refLP(v.Key) + refLP(v.UploadID)
		pt := string(v.DEK) + refU64(uint64(v.Created)) + string([]byte{byte(v.Algorithm), byte(v.Scope)})
		v.Stash = append(slices.Clone(v.KeyID), refMessage(v.BucketKey, v.Salt, ctx, []byte(pt))...)
		sum := sha256.Sum256([]byte(v.UploadID))
		v.Dir = ".chatelaine/uploads/" + hex.EncodeToString(sum[:])[:32] + "/"
		v.Visible = refToken(v.DEK, v.UploadID, v.Number, v.ETag, v.PartSalt, v.Length, v.CRC, v.Checksum)
	}
	return out
}
