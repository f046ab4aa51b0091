package sigv4

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// canonicalRequest builds what is hashed and signed (S3 API Reference, "Signature
// Calculations for the Authorization Header", task 1). For S3 the path is encoded
// once and never normalised.
func canonicalRequest(r *http.Request, c *claim, path, payload string) []byte {
	b := make([]byte, 0, 1024)
	b = append(b, r.Method...)
	b = append(b, '\n')
	b = append(b, path...)
	b = append(b, '\n')
	b = appendQuery(b, c.query)
	b = append(b, '\n')
	for _, name := range c.signedHeaders {
		b = append(b, name...)
		b = append(b, ':')
		b = appendHeader(b, r, name)
		b = append(b, '\n')
	}
	b = append(b, '\n')
	b = append(b, strings.Join(c.signedHeaders, ";")...)
	b = append(b, '\n')
	return append(b, payload...)
}

// canonicalPath decodes an escaped path and encodes it again in AWS's way. What
// cannot be decoded stays as it is.
func canonicalPath(escaped string) string {
	path, err := url.PathUnescape(escaped)
	if err != nil {
		return escaped
	}
	if path == "" {
		return "/"
	}
	return string(appendEscaped(make([]byte, 0, len(escaped)), path, true))
}

// appendQuery sorts by encoded name, then by encoded value.
func appendQuery(b []byte, query []param) []byte {
	encoded := make([]param, len(query))
	for i, p := range query {
		encoded[i] = param{string(appendEscaped(nil, p.name, false)), string(appendEscaped(nil, p.value, false))}
	}
	slices.SortStableFunc(encoded, func(a, b param) int {
		if n := strings.Compare(a.name, b.name); n != 0 {
			return n
		}
		return strings.Compare(a.value, b.value)
	})
	for i, p := range encoded {
		if i > 0 {
			b = append(b, '&')
		}
		b = append(b, p.name...)
		b = append(b, '=')
		b = append(b, p.value...)
	}
	return b
}

// appendHeader appends a header's values: trimmed, runs of spaces made one, and
// joined with commas. What net/http has taken out of the map is put back.
func appendHeader(b []byte, r *http.Request, name string) []byte {
	values := r.Header[http.CanonicalHeaderKey(name)]
	switch {
	case name == "host":
		values = []string{r.Host}
	case name == "content-length" && len(values) == 0 && r.ContentLength >= 0:
		values = []string{strconv.FormatInt(r.ContentLength, 10)}
	case name == "transfer-encoding" && len(values) == 0:
		values = r.TransferEncoding
	}
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendTrimmed(b, v)
	}
	return b
}

// appendTrimmed drops outer white space and collapses inner runs of spaces.
func appendTrimmed(b []byte, v string) []byte {
	v = strings.Trim(v, " \t")
	for i := 0; i < len(v); i++ {
		if v[i] == ' ' && v[i-1] == ' ' {
			continue
		}
		b = append(b, v[i])
	}
	return b
}

// appendEscaped is AWS's UriEncode: everything but unreserved characters, and "/"
// where keepSlash is set, as %XX in upper case.
func appendEscaped(b []byte, s string, keepSlash bool) []byte {
	const digits = "0123456789ABCDEF"
	for i := 0; i < len(s); i++ {
		ch := s[i]
		if unreserved(ch) || keepSlash && ch == '/' {
			b = append(b, ch)
			continue
		}
		b = append(b, '%', digits[ch>>4], digits[ch&15])
	}
	return b
}

func unreserved(ch byte) bool {
	return 'a' <= ch && ch <= 'z' || 'A' <= ch && ch <= 'Z' || '0' <= ch && ch <= '9' ||
		ch == '-' || ch == '.' || ch == '_' || ch == '~'
}
