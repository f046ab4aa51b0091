package s3store

import (
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"chatelaine/backends"
)

const usualListing = `<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bucket</Name><Prefix></Prefix><KeyCount>2</KeyCount>
<MaxKeys>1000</MaxKeys><Delimiter>/</Delimiter><IsTruncated>true</IsTruncated><NextContinuationToken>n&amp;t</NextContinuationToken>
<Contents><Key>a%2Fb</Key><LastModified>2026-11-22T05:18:28.536Z</LastModified><ETag>&#34;e&quot;</ETag><Size>165</Size><Owner><ID></ID><DisplayName/></Owner><StorageClass>STANDARD</StorageClass></Contents>
<Contents><Key>c</Key><LastModified>2026-11-22T05:18:28Z</LastModified><ETag>"e"</ETag><ChecksumAlgorithm>CRC32</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType><Size>0</Size></Contents>
<CommonPrefixes><Prefix>d/</Prefix></CommonPrefixes><EncodingType>url</EncodingType></ListBucketResult>
`

// answering is an HTTP client that sends nothing and answers with a document.
type answering string

func (a answering) Do(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(string(a)))}, nil
}

func (a answering) client() *s3.Client {
	return s3.New(s3.Options{Region: "eu-west-1", HTTPClient: a, Credentials: aws.AnonymousCredentials{}})
}

// bySDK is the page that the SDK alone makes of a document.
func bySDK(t *testing.T, document string) (*backends.Page, error) {
	t.Helper()
	bucket := "bucket"
	out, err := answering(document).client().ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &bucket}, once)
	if err != nil {
		return nil, err
	}
	return objectsPage(out, "")
}

func TestListingsAreScannedAsTheSDKReadsThem(t *testing.T) {
	for name, tc := range map[string]struct {
		document string
		scanned  bool
	}{
		"usual":                   {usualListing, true},
		"of nothing":              {`<ListBucketResult><Name>bucket</Name></ListBucketResult>`, true},
		"nothing at all":          {`<ListBucketResult/>`, true},
		"with an unknown element": {strings.Replace(usualListing, "<Size>", "<Weight>1</Weight><Size>", 1), false},
		"in another case":         {strings.NewReplacer("<Key>", "<key>", "</Key>", "</key>").Replace(usualListing), false},
		"with an attribute":       {strings.Replace(usualListing, "<Key>", `<Key a="b">`, 1), false},
		"with a comment":          {strings.Replace(usualListing, "<Key>", "<!-- <Key>x</Key> --><Key>", 1), false},
		"with CDATA":              {strings.Replace(usualListing, "a%2Fb", "<![CDATA[a%2Fb]]>", 1), false},
		"with another entity":     {strings.Replace(usualListing, "a%2Fb", "a&#x2F;b", 1), false},
		"with another root":       {strings.ReplaceAll(usualListing, listRoot, "ListVersionsResult"), false},
		"cut off":                 {usualListing[:len(usualListing)/2], false},
		"with an element inside":  {strings.Replace(usualListing, "<Key>c", "<Key><b></b>c", 1), false},
		"with a mute size":        {strings.Replace(usualListing, "165", "many", 1), false},
		"with half a rune":        {strings.Replace(usualListing, "a%2Fb", "a\xc3", 1), false},
		"with a control":          {strings.Replace(usualListing, "a%2Fb", "a\x01", 1), false},
	} {
		t.Run(name, func(t *testing.T) {
			out := scanListing(tc.document)
			if (out != nil) != tc.scanned {
				t.Fatalf("got %+v, want it scanned: %v", out, tc.scanned)
			}
			want, wantErr := bySDK(t, tc.document)
			got, err := (&Store{client: answering(tc.document).client()}).List(t.Context(), "bucket", nil)
			if (err == nil) != (wantErr == nil) || err == nil && !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v and %v, want %+v and %v", got, err, want, wantErr)
			}
		})
	}
}

// FuzzScanListing compares with the SDK what is scanned. What either finds wrong does
// not have to be the same.
func FuzzScanListing(f *testing.F) {
	f.Add(usualListing)
	f.Add(`<ListBucketResult><Name>b</Name><Contents><Key>&lt;&gt;&apos;</Key><Size>-1</Size></Contents></ListBucketResult> `)
	f.Fuzz(func(t *testing.T, document string) {
		out := scanListing(document)
		if out == nil {
			return
		}
		got, err := objectsPage(out, "")
		if err != nil {
			return
		}
		want, err := bySDK(t, document)
		if err != nil {
			t.Fatalf("%q: got %+v, and the SDK fails: %v", document, got, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %+v, and the SDK %+v", document, got, want)
		}
	})
}
