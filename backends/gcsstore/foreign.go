package gcsstore

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"cloud.google.com/go/storage"

	"chatelaine/backends"
)

// defaultCache is what the service says of every private object that has no Cache-Control
// ("Object metadata", Cache-Control). No answer to a read tells the two apart.
const defaultCache = "private, max-age=0"

var errGenerations = errors.New("the bucket keeps noncurrent generations, which would stay plaintext and which the gateway does not see: " +
	"switch its versioning off, and delete the noncurrent ones")

// Foreign implements backends.Foreigner: keys are names as they are. A bucket with
// versioning is ErrUnsupported. It takes storage.buckets.get; without that right it is ErrDenied.
func (s *Store) Foreign(ctx context.Context, bucket string) error {
	ctx, doing := withBudget(ctx), fmt.Sprintf("looking at the settings of bucket %q", bucket)
	attrs, err := s.settings(ctx, bucket, errMayNotSee)
	if err == nil && attrs.VersioningEnabled {
		err = fmt.Errorf("%w: %w", backends.ErrUnsupported, errGenerations)
	}
	return wrap(ctx, doing, err)
}

func headersOf(attrs *storage.ObjectAttrs) backends.Headers {
	return backends.Headers{
		ContentEncoding: attrs.ContentEncoding, ContentDisposition: attrs.ContentDisposition,
		ContentLanguage: attrs.ContentLanguage, CacheControl: cacheControl(attrs.CacheControl),
	}
}

// answerHeaders are headersOf from the answer to a read, of which the SDK tells half.
func answerHeaders(answer http.Header) backends.Headers {
	return backends.Headers{
		ContentEncoding: answer.Get("Content-Encoding"), ContentDisposition: answer.Get("Content-Disposition"),
		ContentLanguage: answer.Get("Content-Language"), CacheControl: cacheControl(answer.Get("Cache-Control")),
	}
}

// cacheControl is none for the service's own.
func cacheControl(value string) string {
	if value == defaultCache {
		return ""
	}
	return value
}
