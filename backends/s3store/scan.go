package s3store

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// maxScan is the longest listing that is read whole to be scanned, in bytes. A page
// of 1,000 keys of 1,024 bytes each, url-encoded, takes less.
const maxScan = 4 << 20

// scanned is a middleware that reads a ListBucketResult of the usual form
// (API reference, ListObjectsV2) in a tenth of the time that the SDK takes for it. The
// SDK gets all others as they came, and is who says what is wrong with them.
type scanned struct{ out *s3.ListObjectsV2Output }

func (l *scanned) options(o *s3.Options) {
	o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
		return stack.Deserialize.Insert(l, "OperationDeserializer", middleware.After)
	})
}

// ID implements middleware.DeserializeMiddleware.
func (*scanned) ID() string { return "chatelaine:scanned" }

// HandleDeserialize implements middleware.DeserializeMiddleware.
func (l *scanned) HandleDeserialize(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (
	middleware.DeserializeOutput, middleware.Metadata, error,
) {
	l.out = nil // of an earlier attempt
	out, metadata, err := next.HandleDeserialize(ctx, in)
	resp, ok := out.RawResponse.(*smithyhttp.Response)
	if err != nil || !ok || resp.StatusCode != http.StatusOK {
		return out, metadata, err
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxScan))
	if err == nil && len(text) < maxScan {
		l.out = scanListing(string(text))
	}
	if l.out != nil {
		text = []byte("<ListBucketResult/>")
	}
	resp.Body = &replayed{io.MultiReader(bytes.NewReader(text), failing{err}, resp.Body), resp.Body}
	return out, metadata, nil
}

// replayed is a body of which a part has been read already.
type replayed struct {
	io.Reader
	io.Closer
}

// failing fails with an error, or is empty.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return 0, io.EOF
}

// scanListing is nil for a document that is not of the usual form: elements without
// attributes or prefixes, that are known, of text without anything special in it.
func scanListing(text string) *s3.ListObjectsV2Output {
	s := &scanner{rest: text, odd: !utf8.ValidString(text) || hasControls(text)}
	s.prolog()
	out := &s3.ListObjectsV2Output{}
	s.children(listRoot, func(name string) {
		switch name {
		case "Name":
			out.Name = s.text(name)
		case "EncodingType":
			out.EncodingType = types.EncodingType(deref(s.text(name)))
		case "IsTruncated":
			out.IsTruncated = parsed(s, name, strconv.ParseBool)
		case "NextContinuationToken":
			out.NextContinuationToken = s.text(name)
		case "Contents":
			out.Contents = append(out.Contents, s.object())
		case "CommonPrefixes":
			out.CommonPrefixes = append(out.CommonPrefixes, s.prefix())
		case "Prefix", "Delimiter", "StartAfter", "ContinuationToken":
			s.text(name)
		case "MaxKeys", "KeyCount":
			parsed(s, name, strconv.Atoi)
		default:
			s.odd = true
		}
	})
	if s.space(); s.odd || len(s.rest) > 0 {
		return nil
	}
	return out
}

const listRoot = "ListBucketResult"

// hasControls looks for what XML does not allow, or changes as it reads it.
func hasControls(text string) bool {
	for i := range len(text) {
		if c := text[i]; c < ' ' && c != '\n' && c != '\t' {
			return true
		}
	}
	return strings.Contains(text, "\uFFFE") || strings.Contains(text, "\uFFFF")
}

func (s *scanner) object() (o types.Object) {
	s.children("Contents", func(name string) {
		switch name {
		case "Key":
			o.Key = s.text(name)
		case "LastModified":
			o.LastModified = parsed(s, name, func(at string) (time.Time, error) { return time.Parse(time.RFC3339, at) })
		case "ETag":
			o.ETag = s.text(name)
		case "Size":
			o.Size = parsed(s, name, func(n string) (int64, error) { return strconv.ParseInt(n, 10, 64) })
		case "StorageClass":
			o.StorageClass = types.ObjectStorageClass(deref(s.text(name)))
		case "ChecksumAlgorithm", "ChecksumType":
			s.text(name)
		case "Owner":
			s.children(name, func(name string) {
				s.odd = s.odd || name != "ID" && name != "DisplayName"
				s.text(name)
			})
		default:
			s.odd = true
		}
	})
	return o
}

func (s *scanner) prefix() (p types.CommonPrefix) {
	s.children("CommonPrefixes", func(name string) {
		s.odd = s.odd || name != "Prefix"
		p.Prefix = s.text(name)
	})
	return p
}

// scanner walks through a document without taking it apart first. Once it has met
// something odd, what it returns means nothing.
type scanner struct {
	rest  string
	empty bool // the element just opened ended at once: <Prefix/>
	odd   bool
}

// prolog is up to the end of the root's start tag. Encodings are left to the SDK.
func (s *scanner) prolog() {
	s.space()
	for _, declaration := range []string{`<?xml version="1.0" encoding="UTF-8"?>`, `<?xml version="1.0" encoding="utf-8"?>`} {
		s.rest = strings.TrimPrefix(s.rest, declaration)
	}
	s.space()
	if rest, ok := strings.CutPrefix(s.rest, "<"+listRoot+` xmlns="http://s3.amazonaws.com/doc/2006-03-01/">`); ok {
		s.rest = rest
		return
	}
	s.odd = s.odd || s.open() != listRoot
}

// children calls visit for each element up to the end tag of name. It has to read the
// element to its end.
func (s *scanner) children(name string, visit func(name string)) {
	if s.empty {
		s.empty = false
		return
	}
	for s.space(); !s.odd && !s.closes(name); s.space() {
		visit(s.open())
	}
}

// text is what an element holds that has no others in it, or nil for nothing.
func (s *scanner) text(name string) *string {
	if s.empty {
		s.empty = false
		return nil
	}
	end := strings.IndexByte(s.rest, '<')
	if end < 0 {
		s.odd = true
		return nil
	}
	raw := s.rest[:end]
	s.rest = s.rest[end:]
	if !s.closes(name) || strings.ContainsAny(raw, "\n\t>") {
		s.odd = true
	}
	if len(raw) == 0 {
		return nil
	}
	if strings.Contains(raw, "&") {
		raw = s.unescaped(raw)
	}
	return &raw
}

// unescaped replaces the entities that listings are written with.
func (s *scanner) unescaped(raw string) string {
	var b []byte
	for {
		before, after, found := strings.Cut(raw, "&")
		b = append(b, before...)
		if !found {
			return string(b)
		}
		name, rest, found := strings.Cut(after, ";")
		raw = rest
		switch name {
		case "amp":
			b = append(b, '&')
		case "quot", "#34":
			b = append(b, '"')
		case "apos", "#39":
			b = append(b, '\'')
		case "lt":
			b = append(b, '<')
		case "gt":
			b = append(b, '>')
		default:
			found = false
		}
		if !found {
			s.odd = true
			return ""
		}
	}
}

// parsed is what an element's text means. The SDK says what is wrong with one that
// means nothing.
func parsed[T any](s *scanner, name string, parse func(string) (T, error)) *T {
	text := s.text(name)
	if text == nil {
		return nil
	}
	v, err := parse(*text)
	if err != nil {
		s.odd = true
	}
	return &v
}

// open reads a start tag and returns its name.
func (s *scanner) open() string {
	rest, ok := strings.CutPrefix(s.rest, "<")
	tag, rest, ended := strings.Cut(rest, ">")
	if !ok || !ended {
		s.odd = true
		return ""
	}
	s.rest = rest
	tag, s.empty = strings.CutSuffix(tag, "/")
	return tag
}

// closes reads the end tag of name, if it is next.
func (s *scanner) closes(name string) bool {
	rest, ok := strings.CutPrefix(s.rest, "</")
	if !ok || len(rest) <= len(name) || rest[:len(name)] != name || rest[len(name)] != '>' {
		return false
	}
	s.rest = rest[len(name)+1:]
	return true
}

func (s *scanner) space() { s.rest = strings.TrimLeft(s.rest, " \n\t") }
