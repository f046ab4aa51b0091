package harness

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// Unsigned says that a body is not part of the signature.
const Unsigned = "UNSIGNED-PAYLOAD"

// Client is an S3 client that costs next to nothing: it signs and sends, and does not
// look at what comes back. It may be used concurrently.
type Client struct {
	Endpoint string // a URL
	Region   string // us-east-1 where empty
	User     Credentials
	HTTP     *http.Client // NewHTTP() is made for it
	// Now is the clock that requests are signed by; nil means time.Now.
	Now func() time.Time
}

// NewHTTP makes an HTTP client for large bodies and many connections at once.
func NewHTTP() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			MaxIdleConnsPerHost: 256, DisableCompression: true,
			WriteBufferSize: 256 << 10, ReadBufferSize: 256 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Request is one request. Path is /bucket/key as it is to be sent: escaped.
type Request struct {
	Method, Path string
	Query        url.Values
	Header       http.Header
	Body         io.Reader
	Size         int64  // of Body in bytes
	Hash         string // x-amz-content-sha256; empty means Unsigned
}

// Do signs and sends a request. The caller closes the answer's body.
func (c *Client) Do(ctx context.Context, r Request) (*http.Response, error) {
	req, err := c.Sign(ctx, r)
	if err != nil {
		return nil, err
	}
	return c.HTTP.Do(req)
}

// Sign makes the signed request, for those who send it themselves.
func (c *Client) Sign(ctx context.Context, r Request) (*http.Request, error) {
	req, err := c.prepare(ctx, r)
	if err != nil {
		return nil, err
	}
	hash := r.Hash
	if hash == "" {
		hash = Unsigned
	}
	req.Header.Set("X-Amz-Content-Sha256", hash)
	err = signer().SignHTTP(ctx, c.credentials(), req, hash, "s3", c.region(), c.now())
	return req, err
}

// Presign is a URL that works without credentials for a while.
func (c *Client) Presign(ctx context.Context, r Request, life time.Duration) (string, error) {
	if r.Query == nil {
		r.Query = url.Values{}
	}
	r.Query.Set("X-Amz-Expires", fmt.Sprint(int(life.Seconds())))
	req, err := c.prepare(ctx, r)
	if err != nil {
		return "", err
	}
	signed, _, err := signer().PresignHTTP(ctx, c.credentials(), req, Unsigned, "s3", c.region(), c.now())
	return signed, err
}

func (c *Client) prepare(ctx context.Context, r Request) (*http.Request, error) {
	target := strings.TrimSuffix(c.Endpoint, "/") + r.Path
	if len(r.Query) > 0 {
		target += "?" + r.Query.Encode()
	}
	body := r.Body
	if r.Size == 0 && r.Hash == "" {
		body = nil
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, target, body)
	if err != nil {
		return nil, fmt.Errorf("harness: making a request: %w", err)
	}
	if body != nil {
		req.ContentLength = r.Size
	}
	for name, values := range r.Header {
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	return req, nil
}

func (c *Client) credentials() aws.Credentials {
	return aws.Credentials{AccessKeyID: c.User.AccessKeyID, SecretAccessKey: c.User.SecretAccessKey}
}

func (c *Client) region() string {
	if c.Region == "" {
		return "us-east-1"
	}
	return c.Region
}

func (c *Client) now() time.Time {
	if c.Now == nil {
		return time.Now()
	}
	return c.Now()
}

// signer signs paths as S3 does: as they are.
func signer() *v4.Signer {
	return v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
}

// Hash is the x-amz-content-sha256 of a body.
func Hash(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}
