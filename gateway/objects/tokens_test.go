package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"chatelaine/backends"
	"chatelaine/gateway/sealed"
)

// listParts reads all pages of ListParts.
func (w *world) listParts(s *Service, u UploadRef, limit int) (all []PartInfo) {
	w.t.Helper()
	for after := 0; ; {
		page, err := s.ListParts(w.t.Context(), PartsRequest{UploadRef: u, After: after, Limit: limit})
		if err != nil {
			w.t.Fatal(err)
		}
		if len(page.Parts) > limit || page.Next != 0 && len(page.Parts) != limit {
			w.t.Fatalf("a page of %d parts, next %d, limit %d", len(page.Parts), page.Next, limit)
		}
		all = append(all, page.Parts...)
		if after = page.Next; after == 0 {
			return all
		}
	}
}

// bound says whether the salts of all parts of an object are in its table.
func (w *world) bound(key string) bool {
	w.t.Helper()
	q, err := w.newQuery(w.t.Context(), GetRequest{Bucket: w.bucket, Key: key})
	if err != nil {
		w.t.Fatal(err)
	}
	f, _, err := q.source()
	if err != nil {
		w.t.Fatal(err)
	}
	for i := range f.table.Len() {
		if f.table.Entry(i).Salt.IsZero() {
			return false
		}
	}
	return true
}

func TestAnUploadGoesOnFromListPartsAlone(t *testing.T) {
	for name, etag := range map[string]func(string) string{
		"as listed":               func(listed string) string { return listed },
		"as listings had it once": func(listed string) string { return listed[:32] + "-1" },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			parts := [][]byte{noise(5*mib + 100), noise(5 * mib), noise(33)}
			u, put := w.uploadParts("key", []int{1, 7, 9999}, parts)
			var listed []CompletePart
			for i, p := range w.listParts(w.replica(), u, 2) {
				if p.ETag != put[i].ETag || p.Size != int64(len(parts[i])) {
					t.Errorf("part %d: listed %d bytes as %s, put as %s", p.Number, p.Size, p.ETag, put[i].ETag)
				}
				listed = append(listed, CompletePart{Number: p.Number, ETag: etag(p.ETag)})
			}
			if _, err := w.replica().Complete(t.Context(), CompleteRequest{UploadRef: u, Parts: listed, Size: 10*mib + 133}); err != nil {
				t.Fatal(err)
			}
			if !w.bound("key") {
				t.Error("the tokens were not used: a salt is not bound")
			}
			data := slices.Concat(parts...)
			if got := w.mustGet(GetRequest{Key: "key"}); !bytes.Equal(got, data) {
				t.Error("got other bytes")
			}
			checkRanges(t, w, "key", data, 1)
			checkNothingReservedLeft(t, w)
		})
	}
}

// TestPartsWithoutATokenStillCompleteUnbound is about uploads that an older gateway
// began, and tokens that the provider lost.
func TestPartsWithoutATokenStillCompleteUnbound(t *testing.T) {
	w := newWorld(t)
	parts := [][]byte{noise(5*mib + 100), noise(33)}
	u, put := w.uploadParts("key", []int{1, 2}, parts)
	for _, name := range w.folder(u) {
		if strings.Contains(name, ".") {
			w.forget(u, name)
		}
	}
	var listed []CompletePart
	for _, p := range w.listParts(w.Service, u, 9) {
		if p.ETag == put[len(listed)].ETag || p.Checksum != nil {
			t.Errorf("part %d: listed %+v, which nobody can know", p.Number, p)
		}
		listed = append(listed, CompletePart{Number: p.Number, ETag: p.ETag})
	}
	if _, err := w.Complete(t.Context(), CompleteRequest{UploadRef: u, Parts: listed, Size: -1}); err != nil {
		t.Fatal(err)
	}
	data := slices.Concat(parts...)
	if got := w.mustGet(GetRequest{Key: "key"}); !bytes.Equal(got, data) || w.bound("key") {
		t.Error("got other bytes, or bound salts")
	}
	checkRanges(t, w, "key", data, 2) // an unbound part's header is one request more
}

// folder lists the names in an upload's folder.
func (w *world) folder(u UploadRef) (names []string) {
	w.t.Helper()
	dir := sealed.StashDir(u.ID)
	page, err := w.store.Store.List(w.t.Context(), w.bucket.StoreName, &backends.ListOptions{Prefix: dir})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range page.Entries {
		names = append(names, strings.TrimPrefix(e.Key, dir))
	}
	return names
}

func (w *world) forget(u UploadRef, name string) {
	w.t.Helper()
	if _, err := w.store.Store.Delete(w.t.Context(), idOf(w.bucket, sealed.StashDir(u.ID)+name, ""), nil); err != nil {
		w.t.Fatal(err)
	}
}

// plant stores an empty object in an upload's folder, as the provider can.
func (w *world) plant(u UploadRef, name string) {
	w.t.Helper()
	if _, err := w.store.Store.Put(w.t.Context(), idOf(w.bucket, sealed.StashDir(u.ID)+name, ""), backends.Body{Reader: strings.NewReader("")}, nil); err != nil {
		w.t.Fatal(err)
	}
}

func TestTokensOfOtherPartsAndForgedOnesAreNotBelieved(t *testing.T) {
	w := newWorld(t)
	u, put := w.uploadParts("key", []int{1, 2}, [][]byte{noise(5 * mib), noise(5*mib + 1)})
	other, foreign := w.uploadParts("key", []int{1}, [][]byte{noise(5 * mib)})
	token := func(u UploadRef, number int) string {
		i := slices.IndexFunc(w.folder(u), func(name string) bool { return strings.HasPrefix(name, fmt.Sprintf("%05d.", number)) })
		return w.folder(u)[i][len("00001."):]
	}
	kept := token(u, 1)
	forged := "A" + kept[1:]
	if kept[0] == 'A' {
		forged = "B" + kept[1:]
	}
	w.forget(u, "00001."+kept)
	for _, planted := range []string{token(u, 2), token(other, 1), forged, put[0].ETag[33:], foreign[0].ETag[33:], "", "x", strings.Repeat("A", 64), strings.Repeat("-", 99)} {
		w.plant(u, "00001."+planted)
	}
	w.plant(u, "nonsense")
	w.plant(u, "00002x.y")
	parts := w.listParts(w.Service, u, 10)
	if len(parts) != 2 || parts[0].ETag != put[0].ETag[:32]+"-1" || parts[1].ETag != put[1].ETag {
		t.Errorf("listed %+v", parts)
	}
	if err := w.Abort(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	if left := w.folder(u); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestAPartThatIsPutAgainIsListedAsItIsNow(t *testing.T) {
	w := newWorld(t)
	u, _ := w.uploadParts("key", []int{1, 1, 1, 1}, [][]byte{noise(5 * mib), noise(5*mib + 1), noise(5 * mib), noise(4)})
	fresh := w.putPart(u, 1, noise(5*mib+2))
	listed := w.listParts(w.Service, u, 10)
	if len(listed) != 1 || listed[0].ETag != fresh.ETag || listed[0].Size != 5*mib+2 {
		t.Errorf("listed %+v, want %s", listed, fresh.ETag)
	}
}

func TestPartsThatRaceForANumberLeaveOneOfThem(t *testing.T) {
	w := newWorld(t)
	u, _ := w.uploadParts("key", nil, nil)
	gateways := []*Service{w.Service, w.replica()}
	for round := range 5 {
		attempts := make([]string, 4)
		var group sync.WaitGroup
		for i := range attempts {
			group.Go(func() {
				data := noise(5*mib + int64(i))
				p, err := gateways[i%2].PutPart(t.Context(), PutPartRequest{UploadRef: u, Number: 1, Body: bytes.NewReader(data), Size: int64(len(data))})
				if err != nil {
					t.Error(err)
				}
				attempts[i] = p.ETag
			})
		}
		group.Wait()
		listed := w.listParts(w.Service, u, 10)
		if len(listed) != 1 || slices.Index(attempts, listed[0].ETag) != int(listed[0].Size-5*mib) {
			t.Fatalf("round %d: listed %+v, want one of %q", round, listed, attempts)
		}
	}
	listed := w.listParts(w.Service, u, 10)
	if _, err := w.Complete(t.Context(), CompleteRequest{UploadRef: u, Size: -1, Parts: []CompletePart{{Number: 1, ETag: listed[0].ETag}}}); err != nil {
		t.Fatal(err)
	}
	if got := w.mustGet(GetRequest{Key: "key"}); !bytes.Equal(got, noise(listed[0].Size)) {
		t.Error("got the bytes of another attempt")
	}
	checkNothingReservedLeft(t, w)
}

func TestAPartWhoseTokenCannotBeKeptFails(t *testing.T) {
	w, f := newFlakyWorld(t)
	u, _ := w.uploadParts("key", nil, nil)
	data := noise(5 * mib)
	f.op = "put"
	_, err := w.PutPart(t.Context(), PutPartRequest{UploadRef: u, Number: 1, Body: bytes.NewReader(data), Size: int64(len(data))})
	if !errors.Is(err, errLost) {
		t.Errorf("got %v, want the store's error", err)
	}
	p := w.putPart(u, 1, data)
	if listed := w.listParts(w.Service, u, 10); len(listed) != 1 || listed[0].ETag != p.ETag {
		t.Errorf("listed %+v, want %s", listed, p.ETag)
	}
}

func TestAbortedAndCompletedUploadsLeaveNothing(t *testing.T) {
	for _, versioning := range []backends.Versioning{backends.VersioningOff, backends.VersioningEnabled, backends.VersioningSuspended} {
		for _, complete := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,%v", versioning, complete), func(t *testing.T) {
				w := newWorld(t)
				if versioning != backends.VersioningOff {
					if err := w.SetVersioning(t.Context(), w.bucket, versioning); err != nil {
						t.Fatal(err)
					}
				}
				u, listed := w.uploadParts("key", []int{3}, [][]byte{noise(10)})
				for n := range 40 { // more than are deleted at once, and more attempts than one
					listed = w.again(u, listed, n)
				}
				end := w.Abort
				if complete {
					end = func(ctx context.Context, u UploadRef) error {
						_, err := w.Complete(ctx, CompleteRequest{UploadRef: u, Parts: listed, Size: -1})
						return err
					}
				}
				if err := end(t.Context(), u); err != nil {
					t.Fatal(err)
				}
				checkNothingReservedLeft(t, w)
				page, err := w.store.ListVersions(t.Context(), w.bucket.StoreName, &backends.ListVersionsOptions{Prefix: ReservedPrefix + "uploads/"})
				if err != nil || len(page.Versions) != 0 {
					t.Errorf("left behind: %+v, error %v", page.Versions, err)
				}
			})
		}
	}
}

// again puts the one part again.
func (w *world) again(u UploadRef, listed []CompletePart, n int) []CompletePart {
	p := w.putPart(u, listed[0].Number, noise(int64(n)))
	return []CompletePart{{Number: listed[0].Number, ETag: p.ETag}}
}

// TestATokenThatCameTooLateIsUnseen is about a part that was under way when its
// upload ended.
func TestATokenThatCameTooLateIsUnseen(t *testing.T) {
	w := newWorld(t)
	u, _ := w.uploadParts("key", []int{1}, [][]byte{noise(5)})
	names := w.folder(u)
	if err := w.Abort(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if name != "key" {
			w.plant(u, name)
		}
	}
	for n := range 50 {
		w.plant(u, fmt.Sprintf("%05d.%s", n+2, strings.Repeat("A", 147)))
	}
	listed, err := w.List(t.Context(), ListRequest{Bucket: w.bucket})
	if err != nil || len(listed.Entries)+len(listed.Prefixes) != 0 {
		t.Errorf("listed %+v, error %v", listed, err)
	}
	if _, err := w.ListParts(t.Context(), PartsRequest{UploadRef: u}); !errors.Is(err, backends.ErrUploadNotFound) {
		t.Errorf("listing parts: %v, want ErrUploadNotFound", err)
	}
	if err := w.DeleteBucket(t.Context(), w.bucket); err != nil {
		t.Errorf("deleting the bucket: %v", err)
	}
}

func TestAPageOfPartsIsOneListAndTheStash(t *testing.T) {
	w := newWorld(t)
	u, _ := w.uploadParts("key", []int{1, 2, 3}, [][]byte{noise(5 * mib), noise(5 * mib), noise(1)})
	w.store.reset()
	w.listParts(w.Service, u, 1000)
	if w.store.calls["list"] != 1 || w.store.calls["get"] != 1 || w.store.total() != 2 {
		t.Errorf("got %v", w.store.calls)
	}
}

func TestListPartsShowsChecksumsOfParts(t *testing.T) {
	w := newWorld(t)
	u, err := w.CreateUpload(t.Context(), CreateUploadRequest{Bucket: w.bucket, Key: "key", Algorithm: SHA256, Composite: true})
	if err != nil {
		t.Fatal(err)
	}
	p := w.putSummedPart(u, 1, []byte("abc"), SHA256)
	listed := w.listParts(w.Service, u, 10)
	if len(listed) != 1 || listed[0].Checksum == nil || p.Checksum == nil || !bytes.Equal(listed[0].Checksum.Value, p.Checksum.Value) {
		t.Errorf("listed %+v, want the checksum of %+v", listed, p)
	}
	unasked, _ := w.uploadParts("key", []int{1}, [][]byte{[]byte("abc")})
	if listed := w.listParts(w.Service, unasked, 10); len(listed) != 1 || listed[0].Checksum != nil {
		t.Errorf("nothing was asked for: listed %+v", listed)
	}
}

func TestALockedFolderDoesNotFailAnAbort(t *testing.T) {
	w := newWorld(t)
	if err := w.CreateLockedBucketOn(t.Context(), "ann", "locked", ""); err != nil {
		t.Fatal(err)
	}
	b, err := w.Bucket(t.Context(), "locked")
	if err != nil {
		t.Fatal(err)
	}
	w.bucket = b
	for mode, left := range map[backends.LockMode]bool{backends.Governance: false, backends.Compliance: true} {
		if err := w.SetLockConfig(t.Context(), b, backends.LockConfig{Enabled: true, Mode: mode, Days: 1}); err != nil {
			t.Fatal(err)
		}
		u, _ := w.uploadParts("key", []int{1, 2}, [][]byte{noise(5 * mib), noise(5)})
		if err := w.Abort(t.Context(), u); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
		page, err := w.store.ListVersions(t.Context(), b.StoreName, &backends.ListVersionsOptions{Prefix: sealed.StashDir(u.ID)})
		if err != nil || (len(page.Versions) > 0) != left {
			t.Errorf("%s: left behind %+v, error %v", mode, page.Versions, err)
		}
		if _, err := w.ListParts(t.Context(), PartsRequest{UploadRef: u}); !errors.Is(err, backends.ErrUploadNotFound) {
			t.Errorf("%s: listing parts: %v, want ErrUploadNotFound", mode, err)
		}
		versions, err := w.ListVersions(t.Context(), VersionsRequest{Bucket: b})
		if err != nil || len(versions.Versions) != 0 {
			t.Errorf("%s: listed %+v, error %v", mode, versions, err)
		}
	}
}

// TestWhatIsKeptOfTokensShowsNothing: the provider reads names, and a token has
// checksums of the plaintext in it.
func TestWhatIsKeptOfTokensShowsNothing(t *testing.T) {
	w := newWorld(t)
	u, put := w.uploadParts("key", []int{1}, [][]byte{[]byte("abc")})
	_, claims, _ := strings.Cut(put[0].ETag, "-")
	for _, name := range w.folder(u) {
		for i := 0; i+12 <= len(claims); i++ {
			if strings.Contains(name, claims[i:i+12]) {
				t.Fatalf("%q has %q of the token in it", name, claims[i:i+12])
			}
		}
	}
}
