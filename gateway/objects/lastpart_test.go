package objects

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/gateway/sealed"
)

// complete ends an upload that lists just these parts.
func (w *world) complete(u UploadRef, parts ...CompletePart) (PutResult, error) {
	w.t.Helper()
	return w.Complete(w.t.Context(), CompleteRequest{UploadRef: u, Parts: parts, Size: -1})
}

func TestPart10000GoesOnFromListPartsAlone(t *testing.T) {
	w := newWorld(t)
	parts := [][]byte{noise(5 * mib), noise(5*mib + 7), noise(6*mib + 1)}
	u, put := w.uploadParts("key", []int{1, 9999, 10000}, parts)
	var listed []CompletePart
	for i, p := range w.listParts(w.replica(), u, 1) {
		if p.Number != put[i].Number || p.ETag != put[i].ETag || p.Size != int64(len(parts[i])) {
			t.Errorf("listed %+v, want part %d of %d bytes with ETag %s", p, put[i].Number, len(parts[i]), put[i].ETag)
		}
		listed = append(listed, CompletePart{Number: p.Number, ETag: p.ETag})
	}
	if _, err := w.complete(u, listed...); err != nil {
		t.Fatal(err)
	}
	if got := w.mustGet(GetRequest{Key: "key"}); !bytes.Equal(got, slices.Concat(parts...)) || !w.bound("key") {
		t.Error("got other bytes, or unbound salts")
	}
	checkNothingReservedLeft(t, w)
}

func TestPart10000IsReplacedByALaterAttempt(t *testing.T) {
	w := newWorld(t)
	u, first := w.uploadParts("key", []int{1, 10000}, [][]byte{noise(5 * mib), noise(6 * mib)})
	data := noise(5*mib + 1)
	again := CompletePart{Number: 10000, ETag: w.putPart(u, 10000, data).ETag}
	if listed := w.listParts(w.Service, u, 9); len(listed) != 2 || listed[1].ETag != again.ETag {
		t.Errorf("listed %+v, want the later attempt", listed)
	}
	if _, err := w.complete(u, first...); !errors.Is(err, backends.ErrInvalidPart) {
		t.Errorf("with the earlier attempt: got %v, want ErrInvalidPart", err)
	}
	if _, err := w.complete(u, CompletePart{Number: 9999, ETag: again.ETag}); !errors.Is(err, backends.ErrInvalidPart) {
		t.Errorf("as part 9999: got %v, want ErrInvalidPart", err)
	}
	if _, err := w.complete(u, first[0], again); err != nil {
		t.Fatal(err)
	}
	if got := w.mustGet(GetRequest{Key: "key", Part: 10000}); !bytes.Equal(got, data) {
		t.Errorf("got %d other bytes", len(got))
	}
}

func TestPart10000IsLeftOutAndGone(t *testing.T) {
	for name, end := range map[string]func(w *world, u UploadRef, first CompletePart) error{
		"Abort":               func(w *world, u UploadRef, _ CompletePart) error { return w.Abort(w.t.Context(), u) },
		"Complete without it": func(w *world, u UploadRef, first CompletePart) error { _, err := w.complete(u, first); return err },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			data := noise(5*mib + 2)
			u, put := w.uploadParts("key", []int{9999, 10000}, [][]byte{data, noise(5 * mib)})
			if err := end(w, u, put[0]); err != nil {
				t.Fatal(err)
			}
			checkNothingReservedLeft(t, w)
			if _, got, err := w.get(GetRequest{Key: "key"}); err == nil && !bytes.Equal(got, data) {
				t.Errorf("got %d other bytes", len(got))
			}
		})
	}
}

// ending does something when it is read to its middle.
type ending struct {
	src  io.Reader
	left int
	do   func()
}

func (e *ending) Read(p []byte) (int, error) {
	n, err := e.src.Read(p)
	if e.left -= n; e.left < 0 && e.do != nil {
		e.do()
		e.do = nil
	}
	return n, err
}

func TestPart10000OfAnUploadThatEndsMeanwhileLeavesNothing(t *testing.T) {
	w := newWorld(t)
	u, put := w.uploadParts("key", []int{1}, [][]byte{noise(5 * mib)})
	data := noise(6 * mib)
	body := &ending{src: bytes.NewReader(data), left: 3 * mib, do: func() {
		if _, err := w.complete(u, put...); err != nil {
			t.Error(err)
		}
	}}
	_, err := w.PutPart(t.Context(), PutPartRequest{UploadRef: u, Number: 10000, Body: body, Size: int64(len(data))})
	if !errors.Is(err, backends.ErrUploadNotFound) {
		t.Errorf("got %v, want ErrUploadNotFound", err)
	}
	checkNothingReservedLeft(t, w)
}

func TestPart10000LeavesRoomForTheTail(t *testing.T) {
	w := newWorld(t)
	const most = 8 * mib
	s, err := New(Config{
		Keys: w.ring, Stores: map[string]backends.Store{"main": &limited{w.store, most}}, DefaultStore: "main", Logger: zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Service = s
	u, _ := w.uploadParts("key", nil, nil)
	n := int64(most - sealed.MaxTail - sealed.MessageSize(0))
	n -= n / sealed.SealedChunkSize * sealed.TagSize
	data := noise(n + 1)
	_, err = w.PutPart(t.Context(), PutPartRequest{UploadRef: u, Number: 10000, Body: bytes.NewReader(data), Size: n + 1})
	if !errors.Is(err, ErrBodyTooLarge) {
		t.Errorf("a byte too many: got %v, want ErrBodyTooLarge", err)
	}
	last := CompletePart{Number: 10000, ETag: w.putPart(u, 10000, data[:n]).ETag}
	if _, err := w.complete(u, last); err != nil {
		t.Fatal(err)
	}
	if got := w.mustGet(GetRequest{Key: "key"}); !bytes.Equal(got, data[:n]) {
		t.Errorf("got %d other bytes", len(got))
	}
}

func TestPart10000IsCopied(t *testing.T) {
	w := newWorld(t)
	data := noise(7 * mib)
	w.put("source", data)
	u, put := w.uploadParts("key", []int{1}, [][]byte{noise(5 * mib)})
	copied, err := w.CopyPart(t.Context(), CopyPartRequest{
		UploadRef: u, Number: 10000, Source: GetRequest{Bucket: w.bucket, Key: "source", Range: &ByteRange{10, 6 * mib}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.complete(u, put[0], CompletePart{Number: 10000, ETag: copied.ETag}); err != nil {
		t.Fatal(err)
	}
	if got := w.mustGet(GetRequest{Key: "key", Part: 10000}); !bytes.Equal(got, data[10:6*mib+1]) {
		t.Errorf("got %d other bytes", len(got))
	}
}

// TestAFailedCompleteLeavesThePartsAsTheyWere is about one whose tail is stored and
// whose object is not: ListParts must not take what it stored for a client's part.
func TestAFailedCompleteLeavesThePartsAsTheyWere(t *testing.T) {
	for name, numbers := range map[string][]int{"a tail of its own": {1, 4}, "a staged last part": {1, 3}, "part 10000": {1, 10000}} {
		for _, crash := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, crash %t", name, crash), func(t *testing.T) {
				w := newWorld(t)
				w.put("key", []byte("already there"))
				parts := [][]byte{noise(5 * mib), noise(5*mib + 3)}
				if numbers[1] == 3 {
					parts[1] = noise(5*mib - 1) // with its tail it is as long as a part of the backend's
				}
				u, put := w.uploadParts("key", numbers, parts)
				before := w.listParts(w.Service, u, 9)
				r := CompleteRequest{UploadRef: u, Parts: put, Size: -1, IfNoneMatch: []string{"*"}}
				want := backends.ErrPrecondition
				if crash {
					r.IfNoneMatch, want = nil, errLost
					w.Service = w.replicaOn(&flaky{counting: w.store, op: "complete"})
				}
				if _, err := w.Complete(t.Context(), r); !errors.Is(err, want) {
					t.Fatalf("got %v, want %v", err, want)
				}
				w.Service = w.replica()
				after := w.listParts(w.Service, u, 9)
				if fmt.Sprint(after) != fmt.Sprint(before) || len(after) != 2 {
					t.Fatalf("listed %+v, before %+v", after, before)
				}
				if _, err := w.complete(u, put...); err != nil {
					t.Fatal(err)
				}
				if got := w.mustGet(GetRequest{Key: "key"}); !bytes.Equal(got, slices.Concat(parts...)) {
					t.Errorf("got %d other bytes", len(got))
				}
				checkNothingReservedLeft(t, w)
			})
		}
	}
}
