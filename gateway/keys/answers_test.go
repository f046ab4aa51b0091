package keys

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
)

// says changes what the KMS answers to an operation, on its way to the client.
func says[M any, P interface {
	*M
	proto.Message
}](w *world, op string, change func(P)) {
	w.network.lies.Store(op, func(answer *http.Response) {
		message := P(new(M))
		body, err := io.ReadAll(answer.Body)
		if err == nil {
			err = proto.Unmarshal(body, message)
		}
		change(message)
		body, marshalling := proto.Marshal(message)
		if err = errors.Join(err, marshalling); err != nil {
			panic(err)
		}
		answer.Header.Del("Content-Length")
		answer.Body, answer.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	})
}

// wantFault expects an error that no waiting and no administrator mends: the KMS answers
// what it must not.
func wantFault(t *testing.T, name string, err error) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error", name)
	}
	for _, other := range []error{ErrUnavailable, ErrBlocked, ErrKeyNotFound, ErrAccessKeyNotFound, ErrBucketNotFound} {
		if errors.Is(err, other) {
			t.Errorf("%s: got %v, which tells the caller to do something useless", name, err)
		}
	}
}

func TestAnAnswerThatIsNotTheKeyIsRefused(t *testing.T) {
	w := newStillWorld(t, Config{})
	b := w.bucket(t, "b")
	id := w.current(t, b).ID
	current := func() error { _, err := w.Current(t.Context(), b); return err }
	byID := func() error { _, err := w.ByID(t.Context(), b, id); return err }
	for _, tt := range []struct {
		name, op string
		ask      func() error
		lie      func(*kmsv1.BucketKeyResponse)
	}{
		{"an id that is too long", "Current", current, func(m *kmsv1.BucketKeyResponse) { m.KeyId = append(m.KeyId, 0) }},
		{"an id that is too short", "Current", current, func(m *kmsv1.BucketKeyResponse) { m.KeyId = m.KeyId[:15] }},
		{"the key of another id", "BucketKey", byID, func(m *kmsv1.BucketKeyResponse) { m.KeyId[0] ^= 1 }},
		{"a key that is too long", "Current", current, func(m *kmsv1.BucketKeyResponse) { m.Key = append(m.Key, 0) }},
		{"a key that is too short", "BucketKey", byID, func(m *kmsv1.BucketKeyResponse) { m.Key = m.Key[:31] }},
		{"zeros", "BucketKey", byID, func(m *kmsv1.BucketKeyResponse) { clear(m.Key) }},
		{"no key", "BucketKey", byID, func(m *kmsv1.BucketKeyResponse) { m.Key = nil }},
		{"nothing", "Current", current, func(m *kmsv1.BucketKeyResponse) { proto.Reset(m) }},
	} {
		w.keys.entries.Purge()
		w.Client.current.entries.Purge()
		says(w, tt.op, tt.lie)
		wantFault(t, tt.name, tt.ask())
		if n := w.keys.entries.Len() + w.Client.current.entries.Len(); n != 0 {
			t.Errorf("%s: kept", tt.name)
		}
		w.network.lies.Clear()
		wantErr(t, tt.ask(), nil)
	}
}

func TestASigningKeyOfAWrongLengthIsRefused(t *testing.T) {
	w := newStillWorld(t, Config{})
	day := today()
	ask := func() error { _, err := w.SigningKey(t.Context(), accessKeyID, day, "eu", "s3"); return err }
	for _, tt := range []struct {
		name string
		lie  func(*kmsv1.SigningKeyResponse)
	}{
		{"too long", func(m *kmsv1.SigningKeyResponse) { m.Key = append(m.Key, 0) }},
		{"too short", func(m *kmsv1.SigningKeyResponse) { m.Key = m.Key[:31] }},
		{"none", func(m *kmsv1.SigningKeyResponse) { m.Key = nil }},
		{"an old one that is too long", func(m *kmsv1.SigningKeyResponse) { m.OldKey = make([]byte, 33) }},
		{"an old one that is too short", func(m *kmsv1.SigningKeyResponse) { m.OldKey = make([]byte, 31) }},
	} {
		says(w, "SigningKey", tt.lie)
		wantFault(t, tt.name, ask())
		if w.signing.entries.Len() != 0 {
			t.Errorf("%s: kept", tt.name)
		}
	}
	w.network.lies.Clear()
	wantErr(t, ask(), nil)
}

func TestASigningKeyLivesFromWhenItWasAskedForAndNoLongerThanTheOldSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStillWorld(t, Config{})
		wantErr(t, w.Ready(t.Context()), nil)
		w.network.delay.Store(int64(time.Second))
		s := scope{accessKeyID, today(), "eu", "s3"}
		for name, tt := range map[string]struct {
			ttl, oldTTL time.Duration
			old         []byte
			want        time.Duration
		}{
			"one secret":           {ttl: time.Minute, want: time.Minute},
			"one that ends sooner": {ttl: time.Minute, old: make([]byte, 32), oldTTL: time.Second, want: time.Second},
			"one that ends later":  {ttl: time.Second, old: make([]byte, 32), oldTTL: time.Minute, want: time.Second},
			"one that has ended":   {ttl: time.Minute, old: make([]byte, 32), oldTTL: -time.Hour, want: -time.Hour},
		} {
			says(w, "SigningKey", func(m *kmsv1.SigningKeyResponse) {
				m.Ttl, m.OldTtl, m.OldKey = durationpb.New(tt.ttl), durationpb.New(tt.oldTTL), tt.old
			})
			w.signing.entries.Purge()
			sent := w.clock.now()
			_, err := w.SigningKey(t.Context(), s.accessKey, s.date, s.region, s.service)
			wantErr(t, err, nil)
			e, ok := w.signing.entries.Peek(s)
			if !ok || time.Duration(e.expires.Load()-int64(sent)) != tt.want {
				t.Errorf("%s: it does not live for %v", name, tt.want)
			}
		}
	})
}

func TestABucketThatIsNotUnderstoodIsRefused(t *testing.T) {
	w := newStillWorld(t, Config{})
	b := w.bucket(t, "b")
	if _, err := w.kms.StartAdoption(t.Context(), kms.NewBucket{Name: "plain", Store: "files", StoreName: "plain", Owner: "ann"}, kms.AdoptionOptions{}); err != nil {
		t.Fatal(err)
	}
	todo, err := w.Work(t.Context())
	if err != nil || len(todo.Adoptions) != 1 {
		t.Fatalf("got %+v, %v", todo, err)
	}
	bad := &kmsv1.Bucket{Name: "b", Space: "no UUID"}
	says(w, "Bucket", func(m *kmsv1.BucketResponse) { m.Bucket = bad })
	says(w, "ListBuckets", func(m *kmsv1.ListBucketsResponse) { m.Buckets = append(m.Buckets, bad) })
	says(w, "RegisterBucket", func(m *kmsv1.RegisterBucketResponse) { m.Bucket = bad })
	says(w, "Adopt", func(m *kmsv1.AdoptResponse) { m.Adoption.Bucket = bad })
	_, err = w.Bucket(t.Context(), "plain")
	wantFault(t, "Bucket", err)
	_, err = w.Buckets(t.Context())
	wantFault(t, "Buckets", err)
	_, err = w.RegisterBucket(t.Context(), NewBucket{Name: "new", Store: "files", StoreName: "new", Owner: "alice"})
	wantFault(t, "RegisterBucket", err)
	_, err = w.Adopt(t.Context(), AdoptionProgress{Bucket: todo.Adoptions[0].Bucket, Runner: runner})
	wantFault(t, "Adopt", err)

	good := &kmsv1.Bucket{Name: "b", Space: b.Space.String()}
	for name, lie := range map[string]func(*kmsv1.UnmirroredResponse){
		"a key's bucket": func(m *kmsv1.UnmirroredResponse) {
			m.Keys = []*kmsv1.UnmirroredKey{{Bucket: bad, KeyId: make([]byte, 16)}}
		},
		"a long key id": func(m *kmsv1.UnmirroredResponse) {
			m.Keys = []*kmsv1.UnmirroredKey{{Bucket: good, KeyId: make([]byte, 17)}}
		},
		"to be made":    func(m *kmsv1.UnmirroredResponse) { m.Unmade = []*kmsv1.Bucket{bad} },
		"to be swept":   func(m *kmsv1.UnmirroredResponse) { m.Unswept = []*kmsv1.Bucket{bad} },
		"to be adopted": func(m *kmsv1.UnmirroredResponse) { m.Adoptions = []*kmsv1.Adoption{{Bucket: bad}} },
		"to be learned": func(m *kmsv1.UnmirroredResponse) { m.Learning = []*kmsv1.Bucket{bad} },
	} {
		says(w, "Unmirrored", lie)
		_, err := w.Work(t.Context())
		wantFault(t, name, err)
	}
}

func TestARecordOfABucketIsReadStrictly(t *testing.T) {
	space, now := Space{1}, time.Unix(1_700_000_000, 0).UTC()
	for name, tt := range map[string]struct {
		record *kmsv1.Bucket
		want   Bucket
		fails  bool
	}{
		"being made":               {record: &kmsv1.Bucket{State: "creating"}},
		"active":                   {record: &kmsv1.Bucket{State: "active"}, want: Bucket{Active: true}},
		"active, with a cut-off":   {record: &kmsv1.Bucket{State: "active", CutOff: timestamppb.New(now)}, want: Bucket{Active: true}},
		"adopting":                 {record: &kmsv1.Bucket{State: "adopting", CutOff: timestamppb.New(now)}, want: Bucket{Active: true, Adopting: Adopting{CutOff: now}}},
		"adopting, with none":      {record: &kmsv1.Bucket{State: "adopting", SealedTo: "k"}, want: Bucket{Active: true}},
		"guarded":                  {record: &kmsv1.Bucket{State: "active", Ledger: "on", LedgerKey: make([]byte, 16)}, want: Bucket{Active: true, Guarded: true}},
		"a ledger's key, too long": {record: &kmsv1.Bucket{State: "active", Ledger: "on", LedgerKey: make([]byte, 17)}, fails: true},
		"a ledger without a key":   {record: &kmsv1.Bucket{State: "active", Ledger: "on"}, fails: true},
	} {
		tt.record.Space = space.String()
		got, err := bucketOf(tt.record)
		if (err != nil) != tt.fails {
			t.Errorf("%s: got %v", name, err)
		}
		got.Created = time.Time{}
		if tt.want.Space = space; err == nil && got != tt.want {
			t.Errorf("%s: got %+v, want %+v", name, got, tt.want)
		}
	}
}

func TestALedgerThatIsLostOrNotUnderstoodVouchesForNothing(t *testing.T) {
	w := newStillWorld(t, Config{})
	b := w.guarded(t, "b")
	write := func(id, tag int) func(*kmsv1.LookLedgerResponse) {
		return func(m *kmsv1.LookLedgerResponse) {
			m.Writes = []*kmsv1.LedgerWrite{{Id: make([]byte, id), Tag: make([]byte, tag), End: 1}}
		}
	}
	for name, tt := range map[string]struct {
		lie  func(*kmsv1.LookLedgerResponse)
		want error
	}{
		"as it is":            {write(16, 16), nil},
		"a long id":           {write(17, 16), kms.ErrInvalid},
		"a short tag":         {write(16, 15), kms.ErrInvalid},
		"lost":                {func(m *kmsv1.LookLedgerResponse) { m.Stage = string(kms.LedgerLost) }, ErrLedgerLost},
		"lost, and long tags": {func(m *kmsv1.LookLedgerResponse) { write(16, 17)(m); m.Stage = string(kms.LedgerLost) }, ErrLedgerLost},
	} {
		says(w, "LookLedger", tt.lie)
		view, err := w.LookLedger(t.Context(), b, Mark{9})
		if !errors.Is(err, tt.want) || view.Guarded != (err == nil) || view.Judge(Mark{}).Known != (err == nil) {
			t.Errorf("%s: got %+v, %v, want %v", name, view, err, tt.want)
		}
	}
	says(w, "LookLedger", func(m *kmsv1.LookLedgerResponse) { m.Stage = "" })
	if view, err := w.LookLedger(t.Context(), b, Mark{9}); err != nil || view.Guarded {
		t.Errorf("where the guard is off: got %+v, %v", view, err)
	}
}

// TestWhatTheKMSDoesNotAnswerWasNotDone: the lease holds, and no call comes through.
func TestWhatTheKMSDoesNotAnswerWasNotDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStillWorld(t, Config{})
		b := w.guarded(t, "b")
		wantErr(t, w.Ready(t.Context()), nil)
		w.network.down.Store(true)
		w.buckets.entries.Purge()
		ctx, attempt, progress := t.Context(), LedgerAttempt{Bucket: b}, AdoptionProgress{Bucket: b, Runner: runner}
		for name, call := range map[string]func() error{
			"Current":          func() error { _, err := w.Current(ctx, b); return err },
			"ByID":             func() error { _, err := w.ByID(ctx, b, b.LedgerKey); return err },
			"SigningKey":       func() error { _, err := w.SigningKey(ctx, accessKeyID, today(), "eu", "s3"); return err },
			"Policies":         func() error { _, err := w.Policies(ctx); return err },
			"Bucket":           func() error { _, err := w.Bucket(ctx, "b"); return err },
			"Buckets":          func() error { _, err := w.Buckets(ctx); return err },
			"RegisterBucket":   func() error { _, err := w.RegisterBucket(ctx, sameName); return err },
			"ActivateBucket":   func() error { return w.ActivateBucket(ctx, "b") },
			"RemoveBucket":     func() error { return w.RemoveBucket(ctx, "b") },
			"RefuseBucket":     func() error { return w.RefuseBucket(ctx, "b") },
			"ConfirmMirror":    func() error { return w.ConfirmMirror(ctx, b, b.LedgerKey, nil) },
			"UnconfirmMirrors": func() error { return w.UnconfirmMirrors(ctx, b) },
			"Work":             func() error { _, err := w.Work(ctx); return err },
			"Swept":            func() error { return w.Swept(ctx, Sweep{Bucket: b}) },
			"BeginAdoption":    func() error { return w.BeginAdoption(ctx, b, runner, time.Now()) },
			"Adopt":            func() error { _, err := w.Adopt(ctx, progress); return err },
			"LookLedger":       func() error { _, err := w.LookLedger(ctx, b, Mark{9}); return err },
			"BeginWrite":       func() error { return w.BeginWrite(ctx, attempt) },
			"EndWrite":         func() error { return w.EndWrite(ctx, attempt, true) },
			"SettleLedger":     func() error { return w.SettleLedger(ctx, Sighting{Bucket: b}) },
			"Learn":            func() error { _, err := w.Learn(ctx, LedgerLesson{Bucket: b, Runner: runner}); return err },
		} {
			if err := call(); !errors.Is(err, ErrUnavailable) {
				t.Errorf("%s: got %v, want %v", name, err, ErrUnavailable)
			}
		}
	})
}

func TestAKeyIsReplacedByItsIDAlone(t *testing.T) {
	w := newStillWorld(t, Config{})
	b := w.bucket(t, "b")
	id := w.current(t, b).ID
	for _, tt := range []struct {
		full [][]byte
		want int64
	}{{[][]byte{append(id[:], 0), id[:3], nil}, 1}, {[][]byte{id[:]}, 2}} {
		says(w, "Renew", func(m *kmsv1.RenewResponse) { m.Full = tt.full })
		wantErr(t, w.lease.renew(t.Context()), nil)
		w.current(t, b)
		if n := w.network.count("Current"); n != tt.want {
			t.Errorf("told of %x: %d calls, want %d", tt.full, n, tt.want)
		}
	}
}

func TestCallersAtTheSameTimeGetWhatEachHasAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStillWorld(t, Config{})
		asked := []Bucket{w.bucket(t, "a"), w.bucket(t, "b")}
		wantErr(t, w.Ready(t.Context()), nil)
		w.buckets.entries.Purge()
		w.network.delay.Store(int64(time.Second))
		var got [2]struct {
			bucket  Bucket
			key     BucketKey
			signing SigningKey
			errs    [3]error
		}
		var wg sync.WaitGroup
		for i, b := range asked {
			g := &got[i]
			wg.Go(func() { g.bucket, g.errs[0] = w.Bucket(t.Context(), b.Name) })
			wg.Go(func() { g.key, g.errs[1] = w.Current(t.Context(), b) })
			wg.Go(func() { g.signing, g.errs[2] = w.SigningKey(t.Context(), accessKeyID, today(), b.Name, "s3") })
		}
		wg.Wait()
		for i, g := range got {
			if err := errors.Join(g.errs[:]...); err != nil || g.bucket.Space != asked[i].Space {
				t.Errorf("asked for bucket %q, got %q, %v", asked[i].Name, g.bucket.Name, err)
			}
		}
		if got[0].key.ID == got[1].key.ID {
			t.Error("two buckets have one key")
		}
		var first, second []byte
		got[0].signing.Use(func(key []byte) { first = bytes.Clone(key) })
		got[1].signing.Use(func(key []byte) { second = bytes.Clone(key) })
		if bytes.Equal(first, second) {
			t.Error("two regions have one signing key")
		}
	})
}
