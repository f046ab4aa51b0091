package s3api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"chatelaine/backends"
	"chatelaine/gateway/access"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/objects"
	"chatelaine/gateway/sealed"
	"chatelaine/gateway/sigv4"
)

// failing is a service whose Head and Get fail.
type failing struct {
	Service
	err error
}

func (f *failing) Get(context.Context, objects.GetRequest) (*objects.Reader, error) {
	return nil, f.err
}

func (f *failing) Head(context.Context, objects.GetRequest) (objects.Stat, objects.Span, error) {
	return objects.Stat{}, objects.Span{}, f.err
}

// rows are what clients must see of each error, written down a second time.
func rows() map[error]string {
	return map[error]string{
		sigv4.ErrIncomplete: "400 IncompleteBody", sigv4.ErrLength: "400 IncompleteBody", sigv4.ErrChunkSize: "400 InvalidChunkSizeError",
		sigv4.ErrTrailer: "400 MalformedTrailerError", sigv4.ErrBodyHash: "400 XAmzContentSHA256Mismatch",
		sigv4.ErrAnonymous: "403 AccessDenied", sigv4.ErrVersion2: "400 InvalidRequest", sigv4.ErrToken: "400 InvalidToken", sigv4.ErrQuery: "400 InvalidURI",
		sigv4.ErrTwoSignatures: "400 InvalidArgument", sigv4.ErrDuplicate: "400 InvalidRequest", sigv4.ErrAsymmetric: "400 InvalidArgument",
		sigv4.ErrHeaderForm: "400 InvalidArgument", sigv4.ErrScheme: "400 InvalidArgument",
		sigv4.ErrComponents: "400 AuthorizationHeaderMalformed", sigv4.ErrComponent: "400 AuthorizationHeaderMalformed",
		sigv4.ErrNoCredential: "400 AuthorizationHeaderMalformed", sigv4.ErrNoSignedHeaders: "400 AuthorizationHeaderMalformed",
		sigv4.ErrNoSignature: "400 AuthorizationHeaderMalformed", sigv4.ErrCredential: "400 AuthorizationHeaderMalformed",
		sigv4.ErrTerminator: "400 AuthorizationHeaderMalformed", sigv4.ErrService: "400 AuthorizationHeaderMalformed",
		sigv4.ErrRegion: "400 AuthorizationHeaderMalformed", sigv4.ErrScopeDate: "400 AuthorizationHeaderMalformed",
		sigv4.ErrDateMismatch: "400 AuthorizationHeaderMalformed",
		sigv4.ErrNoDate:       "403 AccessDenied", sigv4.ErrSkew: "403 RequestTimeTooSkewed",
		sigv4.ErrExpiresNumber: "400 AuthorizationQueryParametersError", sigv4.ErrExpiresNegative: "400 AuthorizationQueryParametersError",
		sigv4.ErrExpiresTooLarge: "400 AuthorizationQueryParametersError", sigv4.ErrExpired: "403 AccessDenied", sigv4.ErrNotYet: "403 AccessDenied",
		sigv4.ErrUnsignedHeaders: "403 AccessDenied", sigv4.ErrNoContentHash: "400 InvalidRequest", sigv4.ErrContentHash: "400 InvalidArgument",
		sigv4.ErrUnknownKey: "403 InvalidAccessKeyId", sigv4.ErrSignature: "403 SignatureDoesNotMatch",

		sigv4.ErrField: "400 InvalidArgument", sigv4.ErrPolicy: "400 InvalidPolicyDocument", sigv4.ErrPolicyExpired: "403 AccessDenied",
		sigv4.ErrCondition: "403 AccessDenied", sigv4.ErrExtraField: "403 AccessDenied",

		access.ErrDenied: "403 AccessDenied", access.ErrUnrecorded: "503 ServiceUnavailable retry",
		access.ErrUndecided: "503 ServiceUnavailable retry",
		keys.ErrBlocked:     "403 AccessDenied", keys.ErrUnavailable: "503 ServiceUnavailable retry", keys.ErrBucketNotFound: "404 NoSuchBucket",
		keys.ErrBucketOwned: "409 BucketAlreadyOwnedByYou", keys.ErrBucketExists: "409 BucketAlreadyExists", keys.ErrBucketBusy: "409 OperationAborted", keys.ErrKeyNotFound: "500 InternalError alarm",
		keys.ErrLedgerBusy: "503 SlowDown retry", keys.ErrLedgerChanged: "503 SlowDown retry", keys.ErrLedgerLost: "500 InternalError alarm",
		keys.ErrLedgerFull:    "507 InsufficientStorage alarm",
		objects.ErrRolledBack: "500 InternalError alarm", objects.ErrGuarded: "409 InvalidBucketState",

		sealed.ErrShortBody: "400 IncompleteBody", sealed.ErrLongBody: "400 IncompleteBody", sealed.ErrCorrupt: "500 InternalError alarm", sealed.ErrUnsupported: "500 InternalError alarm",
		objects.ErrReserved: "403 AccessDenied", objects.ErrKeyName: "400 InvalidURI", objects.ErrMetadataTooLarge: "400 MetadataTooLarge",
		objects.ErrBodyTooLarge: "400 EntityTooLarge", objects.ErrPartNumber: "400 InvalidArgument", objects.ErrPartOrder: "400 InvalidPartOrder",
		objects.ErrChecksumAlgorithm: "400 InvalidRequest", objects.ErrChecksumType: "400 InvalidRequest",
		objects.ErrChecksumMissing: "400 InvalidRequest", objects.ErrChecksumMismatch: "400 BadDigest", objects.ErrSizeMismatch: "400 InvalidRequest",
		objects.ErrUnsupported: "501 NotImplemented", objects.ErrRuleScope: "501 NotImplemented", objects.ErrNotSealed: "500 InternalError alarm",

		backends.ErrUploadNotFound: "404 NoSuchUpload", backends.ErrInvalidPart: "400 InvalidPart", backends.ErrNotFound: "404 NoSuchKey",
		backends.ErrBucketNotFound: "404 NoSuchBucket", backends.ErrBucketExists: "409 BucketAlreadyExists", backends.ErrBucketNotEmpty: "409 BucketNotEmpty",
		backends.ErrPrecondition: "412 PreconditionFailed", backends.ErrConflict: "409 ConditionalRequestConflict", backends.ErrNotModified: "304 NotModified",
		backends.ErrVersionNotFound: "404 NoSuchVersion", backends.ErrDeleteMarker: "405 MethodNotAllowed", backends.ErrLocked: "403 AccessDenied",
		backends.ErrNoLock: "400 InvalidRequest", backends.ErrBucketState: "409 InvalidBucketState",
		backends.ErrRange: "416 InvalidRange", backends.ErrTooSmall: "400 EntityTooSmall", backends.ErrTooLarge: "400 EntityTooLarge",
		backends.ErrInvalidName: "400 InvalidArgument", backends.ErrInvalidTag: "400 InvalidTag", backends.ErrUnsupported: "501 NotImplemented", backends.ErrFull: "507 InsufficientStorage alarm",
		backends.ErrDenied: "500 InternalError alarm", backends.ErrUnavailable: "503 SlowDown retry",

		os.ErrDeadlineExceeded: "400 RequestTimeout", context.DeadlineExceeded: "503 SlowDown retry", context.Canceled: "499 RequestTimeout",
	}
}

func TestEveryRowOfTheErrorTable(t *testing.T) {
	want := rows()
	service := &failing{}
	w := newWorld(t, func(c *Config) { service.Service, c.Service = c.Service, service })
	for _, row := range causes() {
		expected, ok := want[row.err]
		if !ok {
			t.Errorf("%v: a row that this test does not know", row.err)
			continue
		}
		delete(want, row.err)
		service.err = fmt.Errorf("what the backend said of %q: %w", "k", row.err)
		w.logs.TakeAll()
		a := w.send(sent{method: "GET", path: "/bucket/k"})
		entry := w.logs.All()[0]
		got := fmt.Sprint(a.status, " ", entry.ContextMap()["code"])
		if a.header.Get("Retry-After") != "" {
			got += " retry"
		}
		if entry.Level == zapcore.ErrorLevel {
			got += " alarm"
		}
		equal(t, row.err.Error(), got, expected)
		if a.status != http.StatusNotModified && a.fault.Code != entry.ContextMap()["code"] {
			t.Errorf("%v: the log says %v, the client got %q", row.err, entry.ContextMap()["code"], a.fault.Code)
		}
		if strings.Contains(string(a.body), "what the backend said") {
			t.Errorf("%v: its own text is shown to the client: %s", row.err, a.body)
		}
		if h := w.send(sent{method: "HEAD", path: "/bucket/k"}); h.status != a.status || len(h.body) > 0 {
			t.Errorf("%v: HEAD got %d with %d bytes", row.err, h.status, len(h.body))
		}
	}
	for err := range want {
		t.Errorf("%v: has no row", err)
	}
}

func TestAnErrorThatNobodyExpectsStaysInTheLog(t *testing.T) {
	service := &failing{err: errors.New("the secret of the backend")}
	w := newWorld(t, func(c *Config) { service.Service, c.Service = c.Service, service })
	a := w.send(sent{method: "GET", path: "/bucket/k"})
	w.wants(a, 500, "InternalError")
	if strings.Contains(string(a.body), "secret") {
		t.Errorf("the client is told: %s", a.body)
	}
	entry := w.logs.All()[0]
	if entry.Level != zapcore.ErrorLevel || !strings.Contains(fmt.Sprint(entry.ContextMap()["error"]), "the secret of the backend") {
		t.Errorf("the log says %v", entry)
	}
}

// The closer error counts: a backend's complaint about a body that was cut says
// less than why it was cut.
func TestTheCauseOfACutBodyWins(t *testing.T) {
	c := &call{Handler: newWorld(t).handler, r: httptest.NewRequest("PUT", "/b/k", nil), header: http.Header{}}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("%w (the backend said: %w)", badDigest(objects.CRC32), backends.ErrUnavailable), "BadDigest"},
		{fmt.Errorf("%w (the backend said: %w)", &sigv4.Error{Err: sigv4.ErrSignature}, backends.ErrConflict), "SignatureDoesNotMatch"},
		{fmt.Errorf("%w: %w", keys.ErrBucketExists, backends.ErrBucketExists), "BucketAlreadyExists"},
		{fmt.Errorf("%w: %w", backends.ErrUploadNotFound, backends.ErrNotFound), "NoSuchUpload"},
		{fmt.Errorf("%w: %w", objects.ErrMetadataTooLarge, sealed.ErrTooLarge), "MetadataTooLarge"},
		{&objects.RangeError{Size: 3}, "InvalidRange"},
		{&backends.NotModified{ETag: "x", Modified: time.Now()}, "NotModified"},
	} {
		equal(t, tt.err.Error(), c.faultOf(tt.err).code, tt.want)
	}
}

// corrupt flips a byte of what is stored, at an offset from the end.
func (w *world) corrupt(key string, fromEnd int64) {
	w.t.Helper()
	id := backends.ObjectID{Bucket: "there-bucket", Key: key}
	o, err := w.store.Get(w.t.Context(), id, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	defer o.Body.Close()
	raw, err := io.ReadAll(o.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	raw[int64(len(raw))-fromEnd] ^= 1
	body := backends.Body{Reader: strings.NewReader(string(raw)), Size: int64(len(raw))}
	if _, err := w.store.Put(w.t.Context(), id, body, &backends.PutOptions{Attributes: o.Attributes}); err != nil {
		w.t.Fatal(err)
	}
}

// Before the first byte a stored object that does not verify is an error; after it
// the connection is cut. It never ends as if it were whole.
func TestACorruptObjectIsNeverServedAsWhole(t *testing.T) {
	w := newWorld(t)
	data := string(noise(4 << 20))
	w.put("k", data)
	stored, err := w.store.Head(t.Context(), backends.ObjectID{Bucket: "there-bucket", Key: "k"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.corrupt("k", stored.Size-100)
	w.logs.TakeAll()
	a := w.send(sent{method: "GET", path: "/bucket/k"})
	w.wants(a, 500, "InternalError")
	equal(t, "level", w.logs.All()[0].Level, zapcore.ErrorLevel)

	w.put("k", data)
	w.corrupt("k", 20<<10) // the last chunks, after several batches
	response, err := w.server.Client().Do(w.request(sent{method: "GET", path: "/bucket/k"}))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if err == nil || len(got) >= len(data) || !strings.HasPrefix(data, string(got)) {
		t.Errorf("got %d of %d bytes and %v, want a cut connection", len(got), len(data), err)
	}
}

func TestAnUnavailableKMSIsAnsweredWithRetry(t *testing.T) {
	w := newWorld(t)
	w.ring.Fail(fmt.Errorf("keys: asking: %w", keys.ErrUnavailable))
	a := w.send(sent{method: "GET", path: "/bucket/k"})
	w.wants(a, 503, "ServiceUnavailable")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}
