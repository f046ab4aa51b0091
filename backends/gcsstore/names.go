package gcsstore

import (
	"fmt"
	"strconv"
	"strings"

	"chatelaine/backends"
)

const (
	// reserved begins the names of the driver's own objects, and reservedEnd is above all
	// of them. The gateway shows nothing below .chatelaine/ to its clients.
	reserved    = ".chatelaine/gcs/"
	reservedEnd = ".chatelaine/gcs0"
	// challenge is a prefix that Cloud Storage keeps for itself.
	challenge = ".well-known/acme-challenge/"
)

// checkKey says with ErrInvalidName what Cloud Storage cannot hold ("About Cloud Storage
// objects", Object names), and keeps others off the driver's own objects. All other keys
// are names as they are.
func checkKey(key string) error {
	if err := backends.CheckKey(key); err != nil {
		return err
	}
	if key == "." || key == ".." || strings.ContainsAny(key, "\r\n") || strings.HasPrefix(key, challenge) || strings.HasPrefix(key, reserved) {
		return fmt.Errorf("%w: %.80q on Cloud Storage", backends.ErrInvalidName, key)
	}
	return nil
}

// checkID is for calls about an object.
func checkID(id backends.ObjectID) (place, error) {
	if err := backends.CheckBucket(id.Bucket); err != nil {
		return place{}, err
	}
	return place{id.Bucket, id.Key}, checkKey(id.Key)
}

// etagOf is the visible ETag of a generation: its digits, which are at most 19 and so
// never look like an MD5. Each write makes another; no change of metadata does.
func etagOf(generation int64) string { return strconv.FormatInt(generation, 10) }

// generationOf undoes etagOf. False: no object has this ETag.
func generationOf(etag string) (int64, bool) {
	g, err := strconv.ParseInt(etag, 10, 64)
	return g, err == nil && g > 0 && etagOf(g) == etag
}
