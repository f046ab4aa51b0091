package breakglass

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/backends/memstore"
	"chatelaine/gateway/objects"
	"chatelaine/gateway/sealed"
	"chatelaine/kms"
	"chatelaine/kms/softkey"
)

const bucket = "bucket"

// site is a cloud with one bucket, and what holds its KEK.
type site struct {
	t        *testing.T
	store    backends.Store
	provider kms.Provider
	keys     map[string]sealed.Key // by space
	ids      map[string]sealed.KeyID
}

func newSite(t *testing.T) *site {
	t.Helper()
	provider, err := softkey.New(softkey.Config{Name: softkey.Name, Dir: filepath.Join(t.TempDir(), "keys"), Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = provider.Close() })
	if _, err := provider.Create(t.Context(), kms.KeyRef{Name: "main", Version: 1}); err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, store: memstore.New(), provider: provider, keys: map[string]sealed.Key{}, ids: map[string]sealed.KeyID{}}
	if err := s.store.CreateBucket(t.Context(), bucket); err != nil {
		t.Fatal(err)
	}
	return s
}

// space makes a bucket key of a new space, and its mirror. Its id begins with first.
func (s *site) space(first byte) string {
	s.t.Helper()
	space, id, raw := uuid.NewString(), kms.KeyID{first, 1}, bytes.Repeat([]byte{first}, 32)
	binding := kms.Binding{Purpose: "bucket-key", Space: space, ID: id.String()}
	wrapped, err := s.provider.Wrap(s.t.Context(), kms.KeyRef{Name: "main", Version: 1}, binding, raw)
	if err != nil {
		s.t.Fatal(err)
	}
	record, err := json.Marshal(struct {
		Chatelaine string `json:"chatelaine"`
		kms.Mirror
	}{"bucket-key/1", kms.Mirror{ID: id, Space: space, Epoch: 1, KEK: "main", KEKVersion: 1, Created: time.Now(), Wrapped: wrapped, Bucket: bucket}})
	if err != nil {
		s.t.Fatal(err)
	}
	key, err := sealed.NewKey(raw)
	if err != nil {
		s.t.Fatal(err)
	}
	s.keys[space], s.ids[space] = key, sealed.KeyID(id)
	s.put(objects.MirrorPrefix+id.String(), record, nil)
	return space
}

func (s *site) put(key string, data []byte, metadata map[string]string) {
	s.t.Helper()
	opts := &backends.PutOptions{Attributes: backends.Attributes{Metadata: metadata}}
	if _, err := s.store.Put(s.t.Context(), backends.ObjectID{Bucket: bucket, Key: key}, backends.Body{Reader: bytes.NewReader(data), Size: int64(len(data))}, opts); err != nil {
		s.t.Fatal(err)
	}
}

// plain is the content of an object of n bytes.
func plain(n int) []byte { return bytes.Repeat([]byte("chatelaine "), n/11+1)[:n] }

// seal stores an object. Of several parts, all but the last have sealed.MinPartSize.
func (s *site) seal(space, key string, parts ...int) (stored []byte, header string) {
	s.t.Helper()
	var suite sealed.Suite
	dek, err := suite.NewDEK()
	must(s.t, err)
	e := sealed.Envelope{DEK: dek, Created: time.Now(), Attributes: sealed.Attributes{ContentType: "text/plain"}}
	if len(parts) == 1 {
		sealer, err := suite.NewSealer(bytes.NewReader(plain(parts[0])), int64(parts[0]), dek, sealed.Options{})
		must(s.t, err)
		stored, err = io.ReadAll(sealer)
		must(s.t, err)
		e.Length, e.Salt = int64(parts[0]), sealer.Part().Salt
	} else {
		stored, e.Kind = sealParts(s.t, dek, parts), sealed.Multipart
	}
	u := sealed.Space(uuid.MustParse(space))
	header, err = suite.SealEnvelope(s.ids[space], s.keys[space], sealed.ObjectName{Space: u, Key: key}, e)
	must(s.t, err)
	s.put(key, stored, map[string]string{sealed.MetadataName: header})
	return stored, header
}

func sealParts(t *testing.T, dek sealed.Key, lengths []int) (stored []byte) {
	t.Helper()
	var parts []sealed.Part
	for i, n := range lengths {
		sealer, err := sealed.Suite{}.NewPartSealer(bytes.NewReader(plain(n)), int64(n), dek, i+1, sealed.Options{})
		must(t, err)
		b, err := io.ReadAll(sealer)
		must(t, err)
		stored, parts = append(stored, b...), append(parts, sealer.Part())
	}
	tail, err := sealed.Suite{}.NewTail(dek, parts, nil, nil)
	must(t, err)
	b, err := io.ReadAll(tail.Reader())
	must(t, err)
	return append(stored, b...)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// reader is one as the command makes it.
func (s *site) reader(source Source, space string, providers ...kms.Provider) Reader {
	if len(providers) == 0 {
		providers = []kms.Provider{s.provider}
	}
	return Reader{Source: source, Keys: NewKeys(KeysConfig{Mirrors: BesideObjects(s.store, bucket), Providers: providers, Space: space})}
}

func (s *site) verification() Verification {
	return Verification{Reader: s.reader(s.store, ""), Store: s.store, Bucket: bucket, Workers: 3}
}

func open(t *testing.T, r Reader, key string) (string, error) {
	t.Helper()
	o, err := r.Open(t.Context(), backends.ObjectID{Bucket: bucket, Key: key})
	if err != nil {
		return "", err
	}
	defer o.Close()
	var out strings.Builder
	_, err = o.WriteTo(&out)
	return out.String(), err
}

func TestObjectsOpenFromAStoreAndFromAFile(t *testing.T) {
	s := newSite(t)
	space := s.space(1)
	for name, parts := range map[string][]int{"empty": {0}, "small": {5}, "chunk": {sealed.ChunkSize}, "parts": {sealed.MinPartSize, 7}} {
		stored, header := s.seal(space, name, parts...)
		var want string
		for _, n := range parts {
			want += string(plain(n))
		}
		path := filepath.Join(t.TempDir(), "sealed")
		must(t, os.WriteFile(path, stored, 0o600))
		for place, source := range map[string]Source{"store": s.store, "file": File{Path: path, Envelope: header}} {
			if got, err := open(t, s.reader(source, space), name); err != nil || got != want {
				t.Errorf("%s from a %s: got %d bytes, %v, want %d", name, place, len(got), err, len(want))
			}
			id := backends.ObjectID{Bucket: bucket, Key: name}
			d, err := s.reader(source, "").Inspect(t.Context(), id)
			if err != nil || d.Table.Len() != len(parts) || d.Table.Length() != int64(len(want)) || d.Envelope.Attributes.ContentType != "text/plain" {
				t.Errorf("inspecting %s in a %s: got %+v, %v", name, place, d, err)
			}
			o, err := s.reader(source, "").Look(t.Context(), id)
			if err != nil || o.Parts != len(parts) || o.Length != int64(len(want)) || o.Mirror == nil || o.Mirror.Space != space {
				t.Errorf("looking at %s in a %s: got %+v, %v", name, place, o, err)
			}
		}
	}
}

func TestWhatIsNotAsItWasSealedIsRefusedAndNotReleased(t *testing.T) {
	s := newSite(t)
	space, other := s.space(1), s.space(2)
	stored, header := s.seal(space, "o", 70_000)
	_, others := s.seal(other, "other", 70_000)
	want := string(plain(70_000))
	flip := func(at int) []byte { b := bytes.Clone(stored); b[at] ^= 1; return b }
	for name, tc := range map[string]struct {
		stored []byte
		header string
		want   error
	}{
		"salt":             {flip(0), header, sealed.ErrCorrupt},
		"chunk":            {flip(20_000), header, sealed.ErrCorrupt},
		"last chunk":       {flip(68_000), header, sealed.ErrCorrupt},
		"trailer":          {flip(len(stored) - 40), header, sealed.ErrCorrupt},
		"footer":           {flip(len(stored) - 1), header, sealed.ErrCorrupt},
		"cut":              {stored[:len(stored)-1], header, sealed.ErrCorrupt},
		"extended":         {append(bytes.Clone(stored), 0), header, sealed.ErrCorrupt},
		"nothing":          {nil, header, sealed.ErrCorrupt},
		"other's envelope": {stored, others, sealed.ErrCorrupt},
		"no envelope":      {stored, "", sealed.ErrUnsupported},
		"letter":           {stored, header[:100] + "A" + header[101:] + "A", sealed.ErrCorrupt},
	} {
		path := filepath.Join(t.TempDir(), "sealed")
		must(t, os.WriteFile(path, tc.stored, 0o600))
		got, err := open(t, s.reader(File{Path: path, Envelope: tc.header}, ""), "o")
		if !errors.Is(err, tc.want) || !strings.HasPrefix(want, got) || len(got) == len(want) {
			t.Errorf("%s: got %d bytes, %v, want %v", name, len(got), err, tc.want)
		}
	}
	if _, err := open(t, s.reader(s.store, ""), "O"); !errors.Is(err, backends.ErrNotFound) {
		t.Errorf("no such object: got %v", err)
	}
}

// refusing is a provider that has no key, or does not serve.
type refusing struct {
	kms.Provider
	err error
}

func (p refusing) Unwrap(context.Context, kms.KeyRef, kms.Binding, []byte) ([]byte, error) {
	return nil, p.err
}

func TestAKeyIsTakenFromWhicheverProviderHasIt(t *testing.T) {
	s := newSite(t)
	space := s.space(1)
	s.seal(space, "o", 5)
	none, away := refusing{err: kms.ErrNotFound}, refusing{err: kms.ErrUnavailable}
	for name, tc := range map[string]struct {
		providers []kms.Provider
		space     string
		want      error
	}{
		"the second":    {[]kms.Provider{none, s.provider}, "", nil},
		"none":          {[]kms.Provider{none, none}, "", ErrNoKey},
		"one is away":   {[]kms.Provider{none, away}, "", kms.ErrUnavailable},
		"its own space": {[]kms.Provider{s.provider}, space, nil},
		"another space": {[]kms.Provider{s.provider}, uuid.NewString(), ErrNoKey},
	} {
		if _, err := open(t, s.reader(s.store, tc.space, tc.providers...), "o"); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
	}
	mirror := objects.MirrorPrefix + fmt.Sprintf("%x", s.ids[space])
	record, err := readMirror(t.Context(), s.store, backends.ObjectID{Bucket: bucket, Key: mirror})
	must(t, err)
	given, err := Given(record)
	must(t, err)
	_, err = s.store.Delete(t.Context(), backends.ObjectID{Bucket: bucket, Key: mirror}, nil)
	must(t, err)
	if _, err := open(t, s.reader(s.store, ""), "o"); !errors.Is(err, ErrNoKey) {
		t.Errorf("without a mirror: got %v, want ErrNoKey", err)
	}
	r := s.reader(s.store, "")
	r.Keys = NewKeys(KeysConfig{Mirrors: given, Providers: []kms.Provider{s.provider}})
	if got, err := open(t, r, "o"); err != nil || got != string(plain(5)) {
		t.Errorf("with the mirror given: got %q, %v", got, err)
	}
	if _, err := Given([]byte("{}")); !errors.Is(err, kms.ErrInvalid) {
		t.Errorf("what is no mirror: got %v", err)
	}
}

// changing is a store that gives objects out with a change, or not at all.
type changing struct {
	backends.Store
	get  func(id backends.ObjectID, opts *backends.GetOptions) error
	list func(e *backends.Info)
}

func (c changing) Get(ctx context.Context, id backends.ObjectID, opts *backends.GetOptions) (*backends.Object, error) {
	if c.get != nil {
		if err := c.get(id, opts); err != nil {
			return nil, err
		}
	}
	return c.Store.Get(ctx, id, opts)
}

func (c changing) List(ctx context.Context, bucket string, opts *backends.ListOptions) (*backends.Page, error) {
	page, err := c.Store.List(ctx, bucket, opts)
	for i := 0; err == nil && c.list != nil && i < len(page.Entries); i++ {
		c.list(&page.Entries[i])
	}
	return page, err
}

func TestAnObjectThatIsReplacedMeanwhileIsBegunAgain(t *testing.T) {
	s := newSite(t)
	s.seal(s.space(1), "o", sealed.MinPartSize, 7)
	for failures, want := range map[int]error{1: nil, attempts: backends.ErrPrecondition} {
		left := failures
		source := changing{Store: s.store, get: func(_ backends.ObjectID, opts *backends.GetOptions) error {
			if opts == nil || left == 0 {
				return nil
			}
			left--
			return backends.ErrPrecondition
		}}
		if _, err := open(t, s.reader(source, ""), "o"); !errors.Is(err, want) {
			t.Errorf("replaced %d times: got %v, want %v", failures, err, want)
		}
	}
}

func TestVerifyCountsAndNamesEachBadObject(t *testing.T) {
	s := newSite(t)
	space := s.space(1)
	s.put("a/foreign", []byte("plain"), nil)
	stored, header := s.seal(space, "a/flipped", 50_000)
	stored[30_000] ^= 1
	s.put("a/flipped", stored, map[string]string{sealed.MetadataName: header})
	s.seal(space, "a/good", 50_000)
	s.seal(space, "a/parts", sealed.MinPartSize, 1)
	s.put("a/size", stored[:16_680], map[string]string{sealed.MetadataName: header})
	stored, header = s.seal(space, "b/moved", 5)
	s.put("b/to", stored, map[string]string{sealed.MetadataName: header})
	s.put(".chatelaine/config", []byte("x"), nil)
	s.put(objects.MirrorPrefix+strings.Repeat("f", 32), []byte("{}"), nil)
	other := s.space(2)
	s.seal(other, "c/other space", 5)

	r, err := s.verification().Verify(t.Context(), Report{})
	must(t, err)
	got := map[string]ProblemKind{}
	for _, p := range r.Bad {
		got[p.Key] = p.Kind
	}
	want := map[string]ProblemKind{
		"a/foreign": NotSealed, "a/flipped": Corrupt, "a/size": Corrupt, "b/to": Corrupt, "c/other space": OtherSpace,
		objects.MirrorPrefix + strings.Repeat("f", 32): NoKey, objects.MirrorPrefix + fmt.Sprintf("%x", s.ids[other]): OtherSpace,
	}
	want["a/size"] = BadSize
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if r.Good != 3 || r.Mirrors != 1 || r.Reserved != 1 || r.Bytes != 50_000+sealed.MinPartSize+1+5 || !r.Done || r.Space != space {
		t.Errorf("got %+v", r)
	}
	v := s.verification()
	v.Prefix = "b/m"
	if r, err := v.Verify(t.Context(), Report{}); err != nil || r.Good != 1 || len(r.Bad) != 0 {
		t.Errorf("below a prefix: got %+v, %v", r, err)
	}
}

func TestVerifyHearsTheListContradicted(t *testing.T) {
	s := newSite(t)
	s.seal(s.space(1), "o", 5)
	v := s.verification()
	v.Store = changing{Store: s.store, list: func(e *backends.Info) {
		if e.Key == "o" {
			e.Size++
		}
	}}
	r, err := v.Verify(t.Context(), Report{})
	if err != nil || len(r.Bad) != 1 || r.Bad[0].Kind != BadSize {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestVerifyGoesOnWhereItWasStopped(t *testing.T) {
	s := newSite(t)
	space := s.space(1)
	const objectsMade = 40
	for i := range objectsMade {
		s.seal(space, fmt.Sprintf("o/%02d", i), i)
	}
	want, err := s.verification().Verify(t.Context(), Report{})
	must(t, err)
	var r Report
	stops := 0
	for !r.Done && stops < 100 {
		ctx, cancel := context.WithCancel(t.Context())
		v, n := s.verification(), 0
		v.Observe = func(Report) {
			if n++; n == 7 {
				cancel()
			}
		}
		if r, err = v.Verify(ctx, r); err != nil {
			stops++
			if !errors.Is(err, context.Canceled) || r.Done {
				t.Fatalf("got %+v, %v", r, err)
			}
		}
		cancel()
		r = throughJSON(t, r)
	}
	if stops < 4 || r.Good != want.Good || r.Bytes != want.Bytes || r.Mirrors != want.Mirrors || r.After != want.After || len(r.Bad) != 0 {
		t.Errorf("after %d stops: got %+v, want %+v", stops, r, want)
	}
	if again, err := s.verification().Verify(t.Context(), r); err != nil || !reflect.DeepEqual(again, r) {
		t.Errorf("one that is done: got %+v, %v", again, err)
	}
	v := s.verification()
	v.Prefix = "o/"
	if _, err := v.Verify(t.Context(), r); !errors.Is(err, ErrOtherReport) {
		t.Errorf("with another prefix: got %v, want ErrOtherReport", err)
	}
}

// throughJSON is a report as it comes back from a file.
func throughJSON(t *testing.T, r Report) (out Report) {
	t.Helper()
	b, err := json.Marshal(r)
	must(t, err)
	must(t, json.Unmarshal(b, &out))
	return out
}

func TestVerifyStopsWhenTheKeysOrTheCloudDoNotServeAndCallsNothingBad(t *testing.T) {
	s := newSite(t)
	space := s.space(1)
	s.seal(space, "o", 5)
	away := s.verification()
	away.Reader = s.reader(s.store, "", refusing{err: kms.ErrUnavailable})
	if r, err := away.Verify(t.Context(), Report{}); !errors.Is(err, kms.ErrUnavailable) || len(r.Bad) != 0 || r.Done {
		t.Errorf("without the HSM: got %+v, %v", r, err)
	}
	store := func(fails error) Verification {
		v := s.verification()
		v.Store = changing{Store: s.store, get: func(id backends.ObjectID, _ *backends.GetOptions) error {
			if id.Key == "o" {
				return fails
			}
			return nil
		}}
		v.Source = v.Store
		return v
	}
	if r, err := store(backends.ErrUnavailable).Verify(t.Context(), Report{}); !errors.Is(err, backends.ErrUnavailable) || len(r.Bad) != 0 || r.After.Key == "o" {
		t.Errorf("without the cloud: got %+v, %v", r, err)
	}
	if r, err := store(backends.ErrDenied).Verify(t.Context(), Report{}); err != nil || len(r.Bad) != 1 || r.Bad[0].Kind != Unreadable {
		t.Errorf("an object that is not given: got %+v, %v", r, err)
	}
	if r, err := store(backends.ErrNotFound).Verify(t.Context(), Report{}); err != nil || len(r.Bad) != 0 || r.Gone != 1 {
		t.Errorf("an object that is gone: got %+v, %v", r, err)
	}
}

func TestVerifyLooksAtOlderVersionsWhereAsked(t *testing.T) {
	s := newSite(t)
	space := s.space(1)
	versions, ok := backends.As[backends.Versioner](s.store)
	if !ok {
		t.Fatal("memstore has no versions")
	}
	must(t, versions.SetVersioning(t.Context(), bucket, backends.VersioningEnabled))
	stored, header := s.seal(space, "o", 5)
	stored[60] ^= 1
	s.put("o", stored, map[string]string{sealed.MetadataName: header})
	s.seal(space, "o", 6)
	v := s.verification()
	if r, err := v.Verify(t.Context(), Report{}); err != nil || r.Good != 1 || len(r.Bad) != 0 {
		t.Errorf("the newest: got %+v, %v", r, err)
	}
	v.Versions = true
	if r, err := v.Verify(t.Context(), Report{}); err != nil || r.Good != 2 || len(r.Bad) != 1 || r.Bad[0].Version == "" || r.Bad[0].Kind != Corrupt {
		t.Errorf("all: got %+v, %v", r, err)
	}
}
