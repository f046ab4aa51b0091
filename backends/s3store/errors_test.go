package s3store_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"chatelaine/backends"
	"chatelaine/backends/s3store"
)

func TestErrorsAreThoseOfTheContract(t *testing.T) {
	for _, tt := range []struct {
		call   string
		status int
		code   string
		want   error
	}{
		{"Get", 404, "NoSuchKey", backends.ErrNotFound},
		{"Get", 404, "NoSuchVersion", backends.ErrVersionNotFound},
		{"Get", 404, "NoSuchBucket", backends.ErrBucketNotFound},
		{"Get", 404, "", backends.ErrNotFound},
		{"Get", 412, "PreconditionFailed", backends.ErrPrecondition},
		{"Get", 403, "AccessDenied", backends.ErrDenied},
		{"Get", 403, "InvalidAccessKeyId", backends.ErrDenied},
		{"Get", 403, "SignatureDoesNotMatch", backends.ErrDenied},
		{"Get", 403, "RequestTimeTooSkewed", backends.ErrDenied},
		{"Get", 403, "SomethingNew", backends.ErrDenied},
		{"Get", 401, "", backends.ErrDenied},
		{"Get", 403, "InvalidObjectState", backends.ErrUnsupported},
		{"Get", 405, "MethodNotAllowed", nil},
		{"Head", 404, "", backends.ErrNotFound},
		{"Head", 403, "", backends.ErrDenied},
		{"Head", 412, "", backends.ErrPrecondition},
		{"Put", 404, "NoSuchBucket", backends.ErrBucketNotFound},
		{"Put", 404, "NoSuchKey", backends.ErrNotFound},
		{"Put", 409, "ConditionalRequestConflict", backends.ErrConflict},
		{"Put", 409, "OperationAborted", backends.ErrConflict},
		{"Put", 409, "", backends.ErrConflict},
		{"Put", 412, "PreconditionFailed", backends.ErrPrecondition},
		{"Put", 400, "EntityTooLarge", backends.ErrTooLarge},
		{"Put", 400, "MetadataTooLarge", backends.ErrTooLarge},
		{"Put", 413, "", backends.ErrTooLarge},
		{"Put", 400, "KeyTooLongError", backends.ErrInvalidName},
		{"Put", 400, "XMinioInvalidObjectName", backends.ErrInvalidName},
		{"Put", 400, "BadDigest", backends.ErrUnavailable},
		{"Put", 507, "XMinioStorageFull", backends.ErrFull},
		{"Put", 507, "", backends.ErrFull},
		{"Put", 400, "XMinioAdminBucketQuotaExceeded", backends.ErrFull},
		{"Put", 501, "NotImplemented", backends.ErrUnsupported},
		{"Put", 501, "", backends.ErrUnsupported},
		{"Put", 400, "InvalidArgument", nil},
		{"Put", 307, "TemporaryRedirect", nil},
		{"Complete", 503, "SlowDown", backends.ErrUnavailable},
		{"Complete", 500, "InternalError", backends.ErrUnavailable},
		{"Complete", 502, "", backends.ErrUnavailable},
		{"Complete", 429, "", backends.ErrUnavailable},
		{"Complete", 404, "NoSuchUpload", backends.ErrUploadNotFound},
		{"Complete", 404, "", backends.ErrUploadNotFound},
		{"Complete", 400, "InvalidPart", backends.ErrInvalidPart},
		{"Complete", 400, "InvalidPartOrder", backends.ErrInvalidPart},
		{"Complete", 400, "EntityTooSmall", backends.ErrTooSmall},
		{"Complete", 200, "InternalError", backends.ErrUnavailable},
		{"Complete", 200, "PreconditionFailed", backends.ErrPrecondition},
		{"PutPart", 404, "NoSuchUpload", backends.ErrUploadNotFound},
		{"Abort", 404, "NoSuchUpload", backends.ErrUploadNotFound},
		{"ListParts", 404, "NoSuchUpload", backends.ErrUploadNotFound},
		{"ListUploads", 404, "NoSuchBucket", backends.ErrBucketNotFound},
		{"List", 404, "NoSuchBucket", backends.ErrBucketNotFound},
		{"List", 404, "", backends.ErrBucketNotFound},
		{"CreateUpload", 404, "NoSuchBucket", backends.ErrBucketNotFound},
		{"CreateBucket", 409, "BucketAlreadyExists", backends.ErrBucketExists},
		{"CreateBucket", 409, "BucketAlreadyOwnedByYou", backends.ErrBucketExists},
		{"CreateBucket", 400, "InvalidBucketName", backends.ErrInvalidName},
		{"HeadBucket", 404, "", backends.ErrBucketNotFound},
		{"HeadBucket", 403, "", backends.ErrDenied},
		{"DeleteBucket", 409, "BucketNotEmpty", backends.ErrBucketNotEmpty},
		{"DeleteBucket", 404, "NoSuchBucket", backends.ErrBucketNotFound},
		{"ListBuckets", 403, "AccessDenied", backends.ErrDenied},
		{"Copy", 404, "NoSuchKey", backends.ErrNotFound},
		{"Copy", 404, "NoSuchBucket", backends.ErrBucketNotFound},
		{"Copy", 412, "PreconditionFailed", backends.ErrPrecondition},
		{"Copy", 200, "InternalError", backends.ErrUnavailable},
		{"Copy", 200, "SlowDown", backends.ErrUnavailable},
		{"Copy", 200, "PreconditionFailed", backends.ErrPrecondition},
		{"CopyPart", 404, "NoSuchUpload", backends.ErrUploadNotFound},
		{"CopyPart", 404, "NoSuchKey", backends.ErrNotFound},
		{"CopyPart", 412, "PreconditionFailed", backends.ErrPrecondition},
		{"CopyPart", 416, "InvalidRange", backends.ErrRange},
		{"CopyPart", 200, "InternalError", backends.ErrUnavailable},
		{"Versioning", 404, "NoSuchBucket", backends.ErrBucketNotFound},
		{"SetVersioning", 404, "NoSuchBucket", backends.ErrBucketNotFound},
		{"ListVersions", 404, "NoSuchBucket", backends.ErrBucketNotFound},
		{"ListVersions", 501, "NotImplemented", backends.ErrUnsupported},
		{"Tags", 404, "NoSuchKey", backends.ErrNotFound},
		{"Tags", 404, "NoSuchVersion", backends.ErrVersionNotFound},
		{"SetTags", 400, "InvalidTag", backends.ErrInvalidName},
		{"SetTags", 404, "NoSuchKey", backends.ErrNotFound},
		{"LockConfig", 404, "NoSuchBucket", backends.ErrBucketNotFound},
		{"LockConfig", 404, "ObjectLockConfigurationNotFoundError", backends.ErrBucketNotFound},
		{"CreateLockedBucket", 409, "BucketAlreadyExists", backends.ErrBucketExists},
		{"Lock", 404, "NoSuchKey", backends.ErrNotFound},
		{"Lock", 403, "AccessDenied", backends.ErrDenied},
		{"SetHold", 404, "NoSuchVersion", backends.ErrVersionNotFound},
	} {
		t.Run(fmt.Sprintf("%s %d %s", tt.call, tt.status, tt.code), func(t *testing.T) {
			s := scripted(t, failure(tt.status, tt.code, nil))
			err := calls(s)[tt.call](t.Context())
			if tt.want == nil && (err == nil || isOfContract(err)) {
				t.Errorf("got %v, want an error outside of the contract", err)
			}
			if tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if n := countOfContract(err); tt.want != nil && n != 1 {
				t.Errorf("got %v, which is %d errors of the contract, want 1", err, n)
			}
		})
	}
}

// A HEAD has no body to say why it is refused; the GET after it has.
func TestTheReasonOfARefusedHeadIsAskedFor(t *testing.T) {
	for code, want := range map[string]error{
		"XMinioInvalidResourceName": backends.ErrInvalidName, "AuthorizationHeaderMalformed": backends.ErrDenied, "SomethingNew": nil,
	} {
		_, err := scripted(t, failure(http.StatusBadRequest, code, nil)).Head(t.Context(), object, nil)
		if err == nil || want == nil && isOfContract(err) || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", code, err, want)
		}
	}
	refusing := func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusBadRequest)
		}
	}
	if _, err := scripted(t, refusing).Head(t.Context(), object, nil); err == nil || isOfContract(err) {
		t.Errorf("refused for no reason: got %v", err)
	}
}

func isOfContract(err error) bool { return countOfContract(err) > 0 }

func countOfContract(err error) (n int) {
	for _, kind := range []error{
		backends.ErrNotFound, backends.ErrBucketNotFound, backends.ErrUploadNotFound, backends.ErrBucketExists,
		backends.ErrBucketNotEmpty, backends.ErrPrecondition, backends.ErrConflict, backends.ErrNotModified,
		backends.ErrRange, backends.ErrInvalidPart, backends.ErrTooSmall, backends.ErrTooLarge, backends.ErrInvalidName,
		backends.ErrDenied, backends.ErrUnavailable, backends.ErrFull, backends.ErrUnsupported,
		backends.ErrVersionNotFound, backends.ErrDeleteMarker, backends.ErrLocked, backends.ErrNoLock, backends.ErrBucketState,
		context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, kind) {
			n++
		}
	}
	return n
}

func TestNotModifiedCarriesETagAndTime(t *testing.T) {
	modified := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	s := scripted(t, failure(http.StatusNotModified, "", http.Header{
		"Etag": {`"abc"`}, "Last-Modified": {modified.Format(http.TimeFormat)},
	}))
	for _, call := range []string{"Get", "Head"} {
		var got *backends.NotModified
		if err := calls(s)[call](t.Context()); !errors.As(err, &got) {
			t.Errorf("%s: got %v, want a NotModified", call, err)
		} else if got.ETag != "abc" || !got.Modified.Equal(modified) {
			t.Errorf("%s: got %+v, want abc and %v", call, got, modified)
		}
	}
}

func TestRangeErrorCarriesTheSize(t *testing.T) {
	for header, want := range map[string]int64{"bytes */42": 42, "": -1, "bytes */x": -1, "bytes */-3": -1} {
		s := scripted(t, failure(http.StatusRequestedRangeNotSatisfiable, "InvalidRange", http.Header{"Content-Range": {header}}))
		var got *backends.RangeError
		err := get(t.Context(), s, &backends.GetOptions{Range: &backends.Range{Offset: 50, Length: 1}})
		if !errors.As(err, &got) || got.Size != want {
			t.Errorf("Content-Range %q: got %v, want a RangeError of %d", header, err, want)
		}
	}
}

func TestDeleteMarkerIsNamedAndDated(t *testing.T) {
	modified := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	header := http.Header{"X-Amz-Delete-Marker": {"true"}, "X-Amz-Version-Id": {"v1"}, "Last-Modified": {modified.Format(http.TimeFormat)}}
	for status, want := range map[int]error{404: backends.ErrNotFound, 405: backends.ErrDeleteMarker} {
		s := scripted(t, failure(status, "", header))
		for _, call := range []string{"Get", "Head", "Tags", "Lock", "Copy"} {
			var marker *backends.MarkerError
			err := calls(s)[call](t.Context())
			if !errors.Is(err, want) || !errors.As(err, &marker) || countOfContract(err) != 1 {
				t.Errorf("%s: got %v for %d, want a MarkerError that is %v alone", call, err, status, want)
			} else if marker.Version != "v1" || !marker.Modified.Equal(modified) || marker.Asked != (status == 405) {
				t.Errorf("%s: got %+v for %d, want v1 of %v", call, marker, status, modified)
			}
		}
	}
}

func TestErrorsThatShareACodeAreToldApartByTheirMessage(t *testing.T) {
	for _, tt := range []struct {
		call    string
		status  int
		code    string
		message string
		want    error
	}{
		{"Delete", 403, "AccessDenied", "Access Denied because object protected by object lock.", backends.ErrLocked},
		{"Delete", 403, "AccessDenied", "Access Denied", backends.ErrDenied},
		{"Delete", 400, "InvalidRequest", "Object is WORM protected and cannot be overwritten", backends.ErrLocked},
		{"SetRetention", 403, "AccessDenied", "Access Denied because object protected by object lock.", backends.ErrLocked},
		{"SetRetention", 400, "ObjectLocked", "", backends.ErrLocked},
		{"SetRetention", 400, "InvalidRequest", "Bucket is missing Object Lock Configuration", backends.ErrNoLock},
		{"SetHold", 400, "InvalidRequest", "Bucket is missing ObjectLockConfiguration", backends.ErrNoLock},
		{"SetHold", 400, "InvalidRequest", "Something else", nil},
		{"Get", 400, "InvalidArgument", "Invalid version id specified", backends.ErrVersionNotFound},
		{"Get", 400, "InvalidArgument", "Something else", nil},
		{"Copy", 400, "InvalidRequest", "The specified copy source is larger than the maximum allowable size for a copy source: 5368709120", backends.ErrTooLarge},
		{"Copy", 400, "InvalidRequest", "The source of a copy request may not specifically refer to a delete marker by version id.", backends.ErrDeleteMarker},
		{"CopyPart", 400, "InvalidArgument", "Range specified is not valid for source object of size: 12", backends.ErrRange},
		{"CopyPart", 400, "InvalidArgument", "The x-amz-copy-source-range value must be of the form bytes=first-last", backends.ErrRange},
		{"SetVersioning", 409, "InvalidBucketState", "An Object Lock configuration is present on this bucket", backends.ErrBucketState},
		{"SetLockConfig", 409, "InvalidBucketState", "Versioning must be 'Enabled' on the bucket", backends.ErrBucketState},
		{"SetLockConfig", 409, "InvalidBucketState", "Object Lock configuration cannot be enabled on existing buckets", backends.ErrBucketState},
	} {
		t.Run(tt.call+" "+tt.message, func(t *testing.T) {
			s := scripted(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodHead { // of the bucket: it is there
					return
				}
				w.WriteHeader(tt.status)
				fmt.Fprintf(w, "<Error><Code>%s</Code><Message>%s</Message></Error>", tt.code, tt.message)
			})
			err := calls(s)[tt.call](t.Context())
			if tt.want == nil && (err == nil || isOfContract(err)) || tt.want != nil && (!errors.Is(err, tt.want) || countOfContract(err) != 1) {
				t.Errorf("got %v, want %v alone", err, tt.want)
			}
		})
	}
}

func TestUnreachableStoreIsUnavailable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	s := open(t, s3store.Config{
		Endpoint: "http://" + address, PathStyle: true, AccessKeyID: "id", SecretAccessKey: s3store.NewSecret("s"),
	})
	if _, err := s.Put(t.Context(), object, text("x"), nil); !errors.Is(err, backends.ErrUnavailable) || countOfContract(err) != 1 {
		t.Errorf("got %v, want ErrUnavailable alone", err)
	}
}

func TestEndedContextComesBackFromEveryCall(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := scripted(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was made") })
	for name, call := range calls(s) {
		if err := call(ctx); !errors.Is(err, context.Canceled) || countOfContract(err) != 1 {
			t.Errorf("%s: got %v, want context.Canceled alone", name, err)
		}
	}
}

// stuck is a server that takes requests and never answers.
func stuck(t *testing.T) http.HandlerFunc {
	t.Helper()
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	return func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-done:
		case <-r.Context().Done():
		}
	}
}

func TestContextThatEndsWhileTheStoreIsSilent(t *testing.T) {
	s := scripted(t, stuck(t))
	for _, name := range []string{"Put", "Get", "Complete", "List"} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := calls(s)[name](ctx)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || countOfContract(err) != 1 {
			t.Errorf("%s: got %v, want context.DeadlineExceeded alone", name, err)
		}
	}
}

func TestSilentStoreIsUnavailableAndNotTheCallersDeadline(t *testing.T) {
	s := scriptedWith(t, s3store.Config{Stall: 50 * time.Millisecond}, stuck(t))
	for _, name := range []string{"CreateBucket", "Complete"} { // calls that are made once
		if err := calls(s)[name](t.Context()); !errors.Is(err, backends.ErrUnavailable) || countOfContract(err) != 1 {
			t.Errorf("%s: got %v, want ErrUnavailable alone", name, err)
		}
	}
}

func TestBodyThatStallsIsUnavailable(t *testing.T) {
	s := scriptedWith(t, s3store.Config{Stall: 50 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "some")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	if err := get(t.Context(), s, nil); !errors.Is(err, backends.ErrUnavailable) || countOfContract(err) != 1 {
		t.Errorf("got %v, want ErrUnavailable alone", err)
	}
}

func TestSlowBodyThatMovesIsNotCutOff(t *testing.T) {
	s := scriptedWith(t, s3store.Config{Stall: 500 * time.Millisecond}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "8")
		for range 8 {
			time.Sleep(100 * time.Millisecond)
			_, _ = io.WriteString(w, "x")
			_ = http.NewResponseController(w).Flush()
		}
	})
	if err := get(t.Context(), s, nil); err != nil {
		t.Error(err)
	}
}

func TestStoreThatTakesNothingIsUnavailable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := open(t, s3store.Config{
		Endpoint: "http://" + l.Addr().String(), PathStyle: true, Stall: 100 * time.Millisecond,
		AccessKeyID: "id", SecretAccessKey: s3store.NewSecret("s"),
	})
	const size = 64 << 20 // more than the sockets hold
	_, err = s.Put(t.Context(), object, backends.Body{Reader: &zeros{left: size}, Size: size}, nil)
	if !errors.Is(err, backends.ErrUnavailable) || countOfContract(err) != 1 {
		t.Errorf("got %v, want ErrUnavailable alone", err)
	}
}
