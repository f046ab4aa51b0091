package s3api

import (
	"bytes"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"chatelaine/gateway/objects"
)

// level is what a request is about.
type level int

const (
	levelService level = iota
	levelBucket
	levelObject
)

// target is a bucket and a key as the client names them.
type target struct {
	level      level
	bucketName string
	key        string
}

// parseTarget reads bucket and key from host and path. The path is split as it
// was sent and decoded then, so that an escaped slash stays in its part.
func parseTarget(r *http.Request, domain string) (target, error) {
	path := r.URL.EscapedPath()
	if !strings.HasPrefix(path, "/") {
		return target{}, invalidURI()
	}
	if bucket := hostedBucket(r.Host, domain); bucket != "" {
		return newTarget(bucket, path[1:])
	}
	rawBucket, key, _ := strings.Cut(path[1:], "/")
	bucket, err := url.PathUnescape(rawBucket)
	if err != nil {
		return target{}, invalidURI()
	}
	return newTarget(bucket, key)
}

func newTarget(bucket, rawKey string) (target, error) {
	key, err := url.PathUnescape(rawKey)
	if err != nil {
		return target{}, invalidURI()
	}
	t := target{bucketName: bucket, key: key}
	switch {
	case t.key != "" && t.bucketName == "":
		return target{}, invalidBucketName("")
	case len(t.key) > objects.MaxKey:
		return target{}, keyTooLong(len(t.key))
	case t.key != "":
		t.level = levelObject
	case t.bucketName != "":
		t.level = levelBucket
	}
	return t, nil
}

// hostedBucket is the bucket of a virtual-hosted address, or "".
func hostedBucket(host, domain string) string {
	if domain == "" {
		return ""
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	bucket, ok := strings.CutSuffix(strings.ToLower(host), "."+domain)
	if !ok {
		return ""
	}
	return bucket
}

// validBucketName follows "Bucket naming rules" of the S3 User Guide.
func validBucketName(name string) bool {
	if len(name) < 3 || len(name) > 63 || strings.Contains(name, "..") {
		return false
	}
	for _, ch := range []byte(name) {
		if (ch < 'a' || ch > 'z') && (ch < '0' || ch > '9') && ch != '-' && ch != '.' {
			return false
		}
	}
	if !alphanumeric(name[0]) || !alphanumeric(name[len(name)-1]) {
		return false
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return false
	}
	return !reservedBucketName(name)
}

func alphanumeric(ch byte) bool { return 'a' <= ch && ch <= 'z' || '0' <= ch && ch <= '9' }

func reservedBucketName(name string) bool {
	for _, prefix := range []string{"xn--", "sthree-", "amzn-s3-demo-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	for _, suffix := range []string{"-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

// split separates what a request asks for from what signs it. A presigned request
// may carry x-amz-* headers, and the gateway's own, as parameters; they count as
// headers.
func split(r *http.Request) (http.Header, url.Values, error) {
	all, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, nil, invalidURI()
	}
	dropHollowChecksum(all)
	header, query := r.Header, url.Values{}
	cloned := false
	for name, values := range all {
		low := strings.ToLower(name)
		switch {
		case signingParameter(low):
		case strings.HasPrefix(low, "x-amz-"), strings.HasPrefix(low, ownPrefix):
			if !cloned {
				header, cloned = header.Clone(), true
			}
			canonical := http.CanonicalHeaderKey(name)
			header[canonical] = append(header[canonical], values...)
		case strings.HasPrefix(low, "x-"): // for logs: S3 ignores them too
		default:
			query[name] = values
		}
	}
	return header, query, nil
}

// dropHollowChecksum takes the checksum of an empty body out of a presigned request.
// SDKs put it there when they presign a PUT, since the body is not known yet, and
// name the algorithm beside it; S3 takes no notice of either. A checksum of something
// binds the request to a body, and is kept.
func dropHollowChecksum(query url.Values) {
	for name, values := range query {
		suffix, ok := strings.CutPrefix(strings.ToLower(name), checksumPrefix)
		algorithm := algorithmOf(suffix)
		if !ok || algorithm == "" || len(values) != 1 {
			continue
		}
		if sum, ok := decodeChecksum(algorithm, values[0]); ok && bytes.Equal(sum, algorithm.NewHash().Sum(nil)) {
			delete(query, name)
			for other := range query {
				if strings.EqualFold(other, "x-amz-sdk-checksum-algorithm") {
					delete(query, other)
				}
			}
		}
	}
}

func signingParameter(low string) bool {
	switch low {
	case "x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-expires",
		"x-amz-signedheaders", "x-amz-signature", "x-amz-content-sha256", "x-amz-security-token":
		return true
	}
	return false
}
