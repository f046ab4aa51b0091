package main

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"time"

	"chatelaine/gateway/breakglass"
	"chatelaine/gateway/sealed"
	"chatelaine/kms"
)

// objectOutline is what anybody can see of an object. Nothing in it is authenticated.
type objectOutline struct {
	Key           string       `json:"key"`
	Version       string       `json:"version,omitempty"`
	ETag          string       `json:"etag,omitempty"` // the backend's
	Stored        int64        `json:"stored"`
	Length        int64        `json:"length"` // by the size law; -1: no object has that size
	EnvelopeBytes int          `json:"envelope_bytes"`
	TrailerBytes  int64        `json:"trailer_bytes"` // -1: there is no footer
	Parts         int          `json:"parts"`         // by the size of the trailer
	ChunkSize     int          `json:"chunk_size"`
	BucketKey     string       `json:"bucket_key"` // its id
	Mirror        *mirrorShown `json:"mirror,omitempty"`
	NoMirror      string       `json:"no_mirror,omitempty"`
}

// mirrorShown is a mirror without the wrapped key.
type mirrorShown struct {
	Space      string    `json:"space"`
	Epoch      uint64    `json:"epoch"`
	KEK        string    `json:"kek"`
	KEKVersion uint32    `json:"kek_version"`
	Created    time.Time `json:"created"`
	Bucket     string    `json:"bucket"`
	Form       string    `json:"form"` // first byte of what is wrapped
}

func outlineOf(o breakglass.Outline) objectOutline {
	out := objectOutline{
		Key: o.Info.Key, Version: o.Info.Version, ETag: o.Info.ETag, Stored: o.Info.Size, Length: o.Length, EnvelopeBytes: o.HeaderBytes,
		TrailerBytes: o.TrailerSize, Parts: o.Parts, ChunkSize: sealed.ChunkSize, BucketKey: hex.EncodeToString(o.KeyID[:]),
	}
	if o.NoMirror != nil {
		out.NoMirror = o.NoMirror.Error()
	} else {
		out.Mirror = showMirror(*o.Mirror)
	}
	return out
}

func showMirror(m kms.Mirror) *mirrorShown {
	return &mirrorShown{
		Space: m.Space, Epoch: m.Epoch, KEK: m.KEK, KEKVersion: m.KEKVersion, Created: m.Created, Bucket: m.Bucket,
		Form: fmt.Sprintf("0x%02x", m.Wrapped[0]),
	}
}

func (o objectOutline) table() table {
	t := table{header: []string{"NOT AUTHENTICATED", ""}, rows: [][]string{
		{"key", strconv.Quote(o.Key)},
		{"version", dash(o.Version)},
		{"backend's ETag", dash(o.ETag)},
		{"stored bytes", fmt.Sprint(o.Stored)},
		{"plaintext bytes", unless(o.Length < 0, "none: no object of ours is stored in so many", o.Length)},
		{"chunks of plaintext", fmt.Sprintf("%d bytes each", o.ChunkSize)},
		{"trailer", unless(o.TrailerBytes < 0, "none: there is no footer", fmt.Sprintf("%d bytes, for %d parts", o.TrailerBytes, o.Parts))},
		{"envelope", fmt.Sprintf("version 1, %d bytes", o.EnvelopeBytes)},
		{"bucket key", o.BucketKey},
	}}
	if o.Mirror == nil {
		t.rows = append(t.rows, []string{"mirror", o.NoMirror})
		return t
	}
	return table{header: t.header, rows: append(t.rows, o.Mirror.rows()...)}
}

func unless(not bool, text string, v any) string {
	if not {
		return text
	}
	return fmt.Sprint(v)
}

func (m mirrorShown) rows() [][]string {
	return [][]string{
		{"epoch", fmt.Sprint(m.Epoch)},
		{"wrapped by", fmt.Sprintf("%s.v%d, form %s", m.KEK, m.KEKVersion, m.Form)},
		{"made", m.Created.UTC().Format(time.RFC3339)},
		{"space", m.Space},
		{"bucket's name then", strconv.Quote(m.Bucket)},
	}
}

// objectDetails is what an object's envelope and trailer say. All of it is authenticated,
// but epoch, time and bucket of the mirror.
type objectDetails struct {
	Kind       string            `json:"kind"` // single or multipart
	Length     int64             `json:"length"`
	Created    time.Time         `json:"created"`
	Headers    map[string]string `json:"headers"`
	Metadata   []sealed.Pair     `json:"metadata"`
	Checksums  []checksumShown   `json:"checksums"`
	MD5        string            `json:"md5,omitempty"`
	MD5ForETag string            `json:"md5_for_etag,omitempty"` // in the trailer
	CRC64NVME  string            `json:"crc64nvme,omitempty"`
	Parts      []partShown       `json:"parts"`
	Mirror     *mirrorShown      `json:"mirror"`
}

type checksumShown struct {
	Algorithm uint8  `json:"algorithm"` // its number in FORMAT.md section 3
	Value     string `json:"value"`     // base64
	Parts     int    `json:"parts,omitempty"`
	Late      bool   `json:"late,omitempty"` // from the trailer
}

type partShown struct {
	Number int   `json:"number"`
	Length int64 `json:"length"`
	Offset int64 `json:"offset"` // of its plaintext
	Stored int64 `json:"stored"` // offset of its stored bytes
	Bound  bool  `json:"bound"`
}

func detailsOf(d breakglass.Details) *objectDetails {
	a := d.Envelope.Attributes
	out := &objectDetails{
		Kind: map[sealed.Kind]string{sealed.Single: "single", sealed.Multipart: "multipart"}[d.Envelope.Kind], Length: d.Table.Length(),
		Created: d.Envelope.Created, Headers: map[string]string{}, Metadata: a.UserMetadata, MD5: hex.EncodeToString(a.MD5),
		MD5ForETag: hex.EncodeToString(d.Table.MD5()), Mirror: showMirror(d.Mirror),
	}
	for _, h := range headersOf(a) {
		if h[1] != "" {
			out.Headers[h[0]] = h[1]
		}
	}
	for _, c := range a.Checksums {
		out.Checksums = append(out.Checksums, checksumShown{uint8(c.Algorithm), base64.StdEncoding.EncodeToString(c.Value), c.Parts, false})
	}
	if c, ok := d.Table.Checksum(); ok {
		out.Checksums = append(out.Checksums, checksumShown{uint8(c.Algorithm), base64.StdEncoding.EncodeToString(c.Value), c.Parts, true})
	}
	if crc, ok := d.Table.CRC(); ok {
		out.CRC64NVME = fmt.Sprintf("%016x", crc)
	}
	for i := range d.Table.Len() {
		e := d.Table.Entry(i)
		out.Parts = append(out.Parts, partShown{e.Number, e.Length, e.Plain, e.Sealed, e.Bound()})
	}
	return out
}

func headersOf(a sealed.Attributes) [][2]string {
	return [][2]string{
		{"Content-Type", a.ContentType},
		{"Content-Encoding", a.ContentEncoding},
		{"Content-Disposition", a.ContentDisposition},
		{"Content-Language", a.ContentLanguage},
		{"Cache-Control", a.CacheControl},
		{"Expires", a.Expires},
		{"x-amz-website-redirect-location", a.Redirect},
	}
}

// tables quote what clients said: a terminal must not obey it.
func (d *objectDetails) tables() []table {
	t := table{header: []string{"AUTHENTICATED", ""}, rows: [][]string{
		{"kind", d.Kind},
		{"plaintext bytes", fmt.Sprint(d.Length)},
		{"created", d.Created.Format(time.RFC3339)},
		{"space", d.Mirror.Space},
	}}
	for _, h := range headersOf(sealed.Attributes{}) {
		if v, ok := d.Headers[h[0]]; ok {
			t.rows = append(t.rows, []string{h[0], strconv.Quote(v)})
		}
	}
	for _, p := range d.Metadata {
		t.rows = append(t.rows, []string{"x-amz-meta-" + p.Name, strconv.Quote(p.Value)})
	}
	for _, c := range d.Checksums {
		t.rows = append(t.rows, []string{fmt.Sprintf("checksum by algorithm %d", c.Algorithm), c.Value})
	}
	for _, r := range [][]string{{"MD5", d.MD5}, {"MD5 for the ETag", d.MD5ForETag}, {"CRC64NVME", d.CRC64NVME}} {
		if r[1] != "" {
			t.rows = append(t.rows, r)
		}
	}
	parts := table{header: []string{"PART", "PLAINTEXT BYTES", "FROM", "STORED FROM", "SALT"}}
	for _, p := range d.Parts {
		parts.rows = append(parts.rows, []string{fmt.Sprint(p.Number), fmt.Sprint(p.Length), fmt.Sprint(p.Offset), fmt.Sprint(p.Stored), unless(!p.Bound, "unbound", "bound")})
	}
	return []table{t, parts}
}
