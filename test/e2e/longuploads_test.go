package e2e

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"chatelaine/test/e2e/harness"
)

// partSize is that of uploads here, in bytes.
const partSize = 5 << 20

// upload is a multipart upload under way. Its content is that of its seed.
type upload struct {
	m     *manyClouds
	path  string
	id    string
	seed  uint64
	size  int64
	etags map[int]string // of the parts that were acknowledged
}

func (m *manyClouds) begin(path string) (*upload, error) {
	a, err := m.ask(harness.Request{Method: http.MethodPost, Path: path, Query: url.Values{"uploads": {""}}})
	if err != nil {
		return nil, err
	}
	u := &upload{m: m, path: path, etags: map[int]string{}}
	var begun struct{ UploadId string } //nolint:revive // S3's name
	err = xml.Unmarshal(a.body, &begun)
	u.id = begun.UploadId
	return u, err
}

func (u *upload) part(number int) url.Values {
	return url.Values{"uploadId": {u.id}, "partNumber": {fmt.Sprint(number)}}
}

func (u *upload) put(number int, body io.Reader, size int64) error {
	a, err := u.m.ask(harness.Request{Method: http.MethodPut, Path: u.path, Query: u.part(number), Body: body, Size: size})
	if err == nil {
		u.etags[number] = a.header.Get("ETag")
	}
	return err
}

func (u *upload) copyPart(number int, source http.Header) error {
	a, err := u.m.ask(harness.Request{Method: http.MethodPut, Path: u.path, Query: u.part(number), Header: source})
	if err != nil {
		return err
	}
	var copied struct{ ETag string }
	err = xml.Unmarshal(a.body, &copied)
	u.etags[number] = copied.ETag
	return err
}

// complete takes the parts from 1 on.
func (u *upload) complete() error {
	var text strings.Builder
	text.WriteString("<CompleteMultipartUpload>")
	for n := 1; n <= len(u.etags); n++ {
		fmt.Fprintf(&text, "<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", n, u.etags[n])
	}
	text.WriteString("</CompleteMultipartUpload>")
	_, err := u.m.ask(harness.Request{
		Method: http.MethodPost, Path: u.path, Query: url.Values{"uploadId": {u.id}}, Body: strings.NewReader(text.String()), Size: int64(text.Len()),
	})
	return err
}

// count is how many parts there are.
func (u *upload) count() int { return int((u.size + partSize - 1) / partSize) }

// length is that of a part.
func (u *upload) length(number int) int64 {
	return min(partSize, u.size-int64(number-1)*partSize)
}

// bytesOf are those of a part.
func (u *upload) bytesOf(number int) io.Reader {
	return io.LimitReader(&generator{seed: u.seed, block: uint64(number-1) * (partSize >> 20)}, u.length(number))
}

var errBroken = errors.New("the client breaks off")

// send uploads parts. Every third is broken off in the middle, then sent with other bytes,
// and only then as it shall be.
func (u *upload) send(first, last int) error {
	for n := first; n <= last; n++ {
		if n%3 == 1 {
			half := io.MultiReader(io.LimitReader(u.bytesOf(n), u.length(n)/2), &hung{})
			if err := u.put(n, half, u.length(n)); !errors.Is(err, errBroken) {
				return fmt.Errorf("part %d, broken off: got %w", n, err)
			}
			if err := u.put(n, content(u.seed+1000, u.length(n)), u.length(n)); err != nil {
				return fmt.Errorf("part %d, other bytes: %w", n, err)
			}
		}
		if err := u.put(n, u.bytesOf(n), u.length(n)); err != nil {
			return fmt.Errorf("part %d: %w", n, err)
		}
	}
	return nil
}

// hung is a reader that fails once it is let go.
type hung struct {
	arrived chan<- struct{} // nil: nobody waits, and it is let go at once
	leave   <-chan struct{}
}

// Read implements io.Reader.
func (h *hung) Read([]byte) (int, error) {
	if h.arrived != nil {
		h.arrived <- struct{}{}
		<-h.leave
	}
	return 0, errBroken
}

// wantListed compares ListParts with what was acknowledged.
func (u *upload) wantListed() error {
	a, err := u.m.ask(harness.Request{Method: http.MethodGet, Path: u.path, Query: url.Values{"uploadId": {u.id}}})
	if err != nil {
		return err
	}
	var listed struct {
		Part []struct {
			PartNumber int
			ETag       string
			Size       int64
		}
	}
	if err := xml.Unmarshal(a.body, &listed); err != nil {
		return err
	}
	for _, p := range listed.Part {
		if p.ETag != u.etags[p.PartNumber] || p.Size != u.length(p.PartNumber) {
			return fmt.Errorf("part %d is listed with %d bytes and ETag %s, want %d and %s", p.PartNumber, p.Size, p.ETag, u.length(p.PartNumber), u.etags[p.PartNumber])
		}
	}
	if len(listed.Part) != len(u.etags) {
		return fmt.Errorf("%d parts are listed, want %d", len(listed.Part), len(u.etags))
	}
	return nil
}

// finish goes on after the gateway's end.
func (u *upload) finish(from int) error {
	if err := u.wantListed(); err != nil {
		return err
	}
	if err := u.send(from, u.count()); err != nil {
		return err
	}
	if err := u.put(2, u.bytesOf(2), u.length(2)); err != nil {
		return fmt.Errorf("part 2, again: %w", err)
	}
	if err := u.complete(); err != nil {
		return err
	}
	return u.verify()
}

// verify reads the object back, byte for byte.
func (u *upload) verify() error {
	resp, err := u.m.client().Do(u.m.t.Context(), harness.Request{Method: http.MethodGet, Path: u.path})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ContentLength != u.size {
		return fmt.Errorf("reading it: got %s, %d bytes, want %d", resp.Status, resp.ContentLength, u.size)
	}
	return sameBytes(resp.Body, content(u.seed, u.size))
}

// longObject is an object that was uploaded in parts.
func (m *manyClouds) longObject(path string, size int64) *upload {
	m.t.Helper()
	u, err := m.begin(path)
	if err == nil {
		u.seed, u.size = 9, size
		err = u.send(1, u.count())
	}
	if err == nil {
		err = u.complete()
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return u
}

// uploads begins one on each backend, kills the gateway in the middle of a part of each,
// and finishes them through another.
func (m *manyClouds) uploads(t *testing.T) {
	size := int64(22_000_000)
	if allClouds() {
		size = 300_000_000
	}
	var all []*upload
	inner := m.within(t)
	for i, p := range m.places {
		u, err := inner.begin("/" + m.buckets[p.name] + "/long")
		if err != nil {
			t.Fatal(err)
		}
		u.seed, u.size = uint64(100+i), size
		all = append(all, u)
	}
	half := all[0].count() / 2
	each(t, all, func(u *upload) error { return u.send(1, half) })
	m.killWithin(t, all, half+1)
	for _, u := range all {
		u.m = m.within(t)
	}
	each(t, all, func(u *upload) error { return u.finish(half + 1) })
	for _, u := range all {
		bucket, _, _ := strings.Cut(strings.TrimPrefix(u.path, "/"), "/")
		left := inner.do(harness.Request{Method: http.MethodGet, Path: "/" + bucket, Query: url.Values{"uploads": {""}}}).want(http.StatusOK)
		if strings.Contains(string(left.body), u.id) {
			t.Errorf("%s is still listed as an upload: %s", u.path, left.body)
		}
	}
}

// each does something with all uploads at once.
func each(t *testing.T, all []*upload, do func(u *upload) error) {
	t.Helper()
	failed := make([]error, len(all))
	var group errgroup.Group
	for i, u := range all {
		group.Go(func() error {
			if err := do(u); err != nil {
				failed[i] = fmt.Errorf("%s: %w", u.m.placeOf(u.path), err)
			}
			return nil
		})
	}
	_ = group.Wait() // the errors are in failed, all of them
	if err := errors.Join(failed...); err != nil {
		t.Fatal(err)
	}
}

func (m *manyClouds) placeOf(path string) string {
	for name, bucket := range m.buckets {
		if strings.HasPrefix(path, "/"+bucket+"/") {
			return name
		}
	}
	return path
}

// killWithin kills the gateway when it has half of a part of each upload.
func (m *manyClouds) killWithin(t *testing.T, all []*upload, number int) {
	t.Helper()
	arrived, leave := make(chan struct{}), make(chan struct{})
	ended := make(chan error, len(all))
	for _, u := range all {
		go func() {
			h := &hung{arrived: arrived, leave: leave}
			body := io.MultiReader(io.LimitReader(u.bytesOf(number), u.length(number)/2), h)
			ended <- u.put(number, body, u.length(number))
		}()
	}
	for range all {
		select {
		case <-arrived:
		case err := <-ended:
			t.Fatalf("a part ended before its middle: %v", err)
		}
	}
	m.Kill()
	close(leave)
	for range all {
		if err := <-ended; err == nil {
			t.Error("half a part was acknowledged")
		}
	}
	m.up()
}
