package s3api

import (
	"context"
	"strings"
	"testing"
	"time"

	"chatelaine/backends"
	"chatelaine/gateway/objects"
)

// slow is a service whose Complete takes its time.
type slow struct {
	Service
	delay time.Duration
	err   error
}

func (s *slow) Complete(context.Context, objects.CompleteRequest) (objects.PutResult, error) {
	time.Sleep(s.delay)
	return objects.PutResult{ETag: "tag", Version: "v"}, s.err
}

func TestACompleteThatTakesLongGivesSignsOfLife(t *testing.T) {
	const document = "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>x</ETag></Part></CompleteMultipartUpload>"
	for _, tt := range []struct {
		name   string
		delay  time.Duration
		err    error
		status int
		want   string
		spaces bool
	}{
		{"fast", 0, nil, 200, "<ETag>&#34;tag&#34;</ETag>", false},
		{"fast and wrong", 0, backends.ErrInvalidPart, 400, "<Code>InvalidPart</Code>", false},
		{"slow", 60 * time.Millisecond, nil, 200, "<ETag>&#34;tag&#34;</ETag>", true},
		{"slow and wrong", 60 * time.Millisecond, backends.ErrInvalidPart, 200, "<Code>InvalidPart</Code>", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.Service = &slow{c.Service, tt.delay, tt.err} })
			w.handler.patience = 10 * time.Millisecond
			a := w.send(sent{method: "POST", path: "/bucket/k?uploadId=u", body: document})
			body := string(a.body)
			equal(t, "status", a.status, tt.status)
			if !strings.HasPrefix(body, "<?xml") || !strings.Contains(body, tt.want) || strings.Count(body, "<?xml") != 1 {
				t.Errorf("got %s", body)
			}
			equal(t, "white space", strings.Contains(body, "?>\n "), tt.spaces)
			code := "OK"
			if tt.err != nil {
				code = "InvalidPart"
			}
			equal(t, "logged", w.logs.All()[0].ContextMap()["code"], any(code))
		})
	}
}

func TestNoPartsAreListedWhereNoneAreWanted(t *testing.T) {
	w := newWorld(t)
	create := string(w.send(sent{method: "POST", path: "/bucket/k?uploads"}).body)
	_, rest, _ := strings.Cut(create, "<UploadId>")
	id, _, _ := strings.Cut(rest, "<")
	w.wants(w.send(sent{method: "PUT", path: "/bucket/k?partNumber=1&uploadId=" + id, body: "x"}), 200, "")
	got := string(w.send(sent{method: "GET", path: "/bucket/k?max-parts=0&uploadId=" + id}).body)
	if strings.Contains(got, "<Part>") || !strings.Contains(got, "<IsTruncated>false</IsTruncated>") {
		t.Errorf("got %s", got)
	}
	w.wants(w.send(sent{method: "GET", path: "/bucket/k?max-parts=0&uploadId=none"}), 404, "NoSuchUpload")
}
