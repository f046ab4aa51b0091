package s3api

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"chatelaine/gateway/sigv4"
)

// form is a browser's form before it is signed.
type form struct {
	path       string
	fields     map[string]string // that the policy covers
	uncovered  map[string]string
	conditions []any // beside those of fields
	filename   string
	file       string
	tail       string // fields after the file
	expires    time.Duration
	secret     string
	spoil      func(fields map[string]string)
}

// post signs and sends a form.
func (w *world) post(f form) answer {
	w.t.Helper()
	fields := w.signForm(f)
	var body bytes.Buffer
	m := multipart.NewWriter(&body)
	for name, value := range fields {
		if err := m.WriteField(name, value); err != nil {
			w.t.Fatal(err)
		}
	}
	if f.filename != "-" {
		part, err := m.CreateFormFile("file", f.filename)
		if err != nil {
			w.t.Fatal(err)
		}
		_, _ = part.Write([]byte(f.file))
	}
	if f.tail != "" {
		_ = m.WriteField("submit", f.tail)
	}
	_ = m.Close()
	if f.path == "" {
		f.path = "/bucket"
	}
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.server.URL+f.path, &body)
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Content-Type", m.FormDataContentType())
	client := *w.server.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	response, err := client.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer response.Body.Close()
	return w.read(response)
}

// signForm adds the policy and its signature to the fields.
func (w *world) signForm(f form) map[string]string {
	w.t.Helper()
	now := time.Now().UTC()
	scope := sigv4.Scope{AccessKey: annKey, Date: now.Format("20060102"), Region: region, Service: "s3"}
	fields := map[string]string{
		"x-amz-algorithm": "AWS4-HMAC-SHA256", "x-amz-date": now.Format("20060102T150405Z"),
		"x-amz-credential": annKey + "/" + scope.Date + "/" + region + "/s3/aws4_request",
	}
	for name, value := range f.fields {
		fields[name] = value
	}
	conditions := append([]any{map[string]string{"bucket": "bucket"}}, f.conditions...)
	for name := range fields {
		conditions = append(conditions, []string{"starts-with", "$" + name, ""})
	}
	if f.expires == 0 {
		f.expires = time.Minute
	}
	policy, err := json.Marshal(map[string]any{"expiration": now.Add(f.expires).Format(time.RFC3339), "conditions": conditions})
	if err != nil {
		w.t.Fatal(err)
	}
	fields["policy"] = base64.StdEncoding.EncodeToString(policy)
	if f.secret == "" {
		f.secret = annSecret
	}
	key := sigv4.Derive(f.secret, scope)
	mac := hmac.New(sha256.New, key[:])
	mac.Write([]byte(fields["policy"]))
	fields["x-amz-signature"] = hex.EncodeToString(mac.Sum(nil))
	for name, value := range f.uncovered {
		fields[name] = value
	}
	if f.spoil != nil {
		f.spoil(fields)
	}
	return fields
}

func TestAFormIsStored(t *testing.T) {
	large := string(noise(9 << 20)) // more than is held
	for _, tt := range []struct {
		name   string
		form   form
		key    string
		status int
	}{
		{"small", form{fields: map[string]string{"key": "k"}, file: "data"}, "k", 204},
		{"empty", form{fields: map[string]string{"key": "k"}}, "k", 204},
		{"large", form{fields: map[string]string{"key": "k"}, file: large}, "k", 204},
		{"a boundary's beginning", form{fields: map[string]string{"key": "k"}, file: "\r\n--\r\n-" + strings.Repeat("\r\n--x", 1000)}, "k", 204},
		{"fields behind the file", form{fields: map[string]string{"key": "k"}, file: "data", tail: "Upload"}, "k", 204},
		{"fields behind a large file", form{fields: map[string]string{"key": "k"}, file: string(noise(7 << 20)), tail: "Upload"}, "k", 204},
		{"the file's name", form{fields: map[string]string{"key": "in/${filename}"}, filename: `C:\x\ü y.txt`, file: "data"}, "in/%C3%BC%20y.txt", 204},
		{"status 200", form{fields: map[string]string{"key": "k", "success_action_status": "200"}, file: "data"}, "k", 200},
		{"status 201", form{fields: map[string]string{"key": "k", "success_action_status": "201"}, file: "data"}, "k", 201},
		{"another status", form{fields: map[string]string{"key": "k", "success_action_status": "418"}, file: "data"}, "k", 204},
		{"a redirect", form{fields: map[string]string{"key": "k", "success_action_redirect": "https://x.example/?a=b"}, file: "data"}, "k", 303},
		{"a redirect that is none", form{fields: map[string]string{"key": "k", "success_action_redirect": "javascript:x"}, file: "data"}, "k", 204},
		{"ignored", form{fields: map[string]string{"key": "k"}, uncovered: map[string]string{"x-ignore-me": "x"}, file: "data"}, "k", 204},
		{"a checksum", form{fields: map[string]string{"key": "k", "x-amz-checksum-crc32": crc32of("data")}, file: "data"}, "k", 204},
		{"within lengths", form{fields: map[string]string{"key": "k"}, conditions: []any{[]any{"content-length-range", 4, 4}}, file: "data"}, "k", 204},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			a := w.post(tt.form)
			w.wants(a, tt.status, "")
			get := w.send(sent{method: "GET", path: "/bucket/" + tt.key})
			sameBytes(t, bytes.NewReader(get.body), []byte(tt.form.file))
			equal(t, "ETag", a.header.Get("Etag"), get.header.Get("Etag"))
			location := w.server.URL + "/bucket/" + tt.key
			if tt.status == 303 {
				location = "https://x.example/?a=b&bucket=bucket&etag="
			}
			if !strings.HasPrefix(a.header.Get("Location"), location) {
				t.Errorf("got Location %q", a.header.Get("Location"))
			}
			if tt.status == 201 && !strings.Contains(string(a.body), "<PostResponse xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Location>"+location+"</Location><Bucket>bucket</Bucket><Key>k</Key>") {
				t.Errorf("got %s", a.body)
			}
			got := w.access.asked[0]
			equal(t, "asked", got.Action+" "+got.Principal, "s3:PutObject ann")
		})
	}
}

func TestAFormSaysWhatHeadersSay(t *testing.T) {
	w := newWorld(t)
	w.wants(w.post(form{file: "data", fields: map[string]string{
		"key": "k", "Content-Type": "text/x", "Cache-Control": "no-store", "x-amz-meta-a": "b", "acl": "private", "x-amz-storage-class": "STANDARD",
		"tagging": tagSet("t", "1", "u", "2"),
	}}), 204, "")
	head := w.send(sent{method: "HEAD", path: "/bucket/k"})
	for name, want := range map[string]string{"Content-Type": "text/x", "Cache-Control": "no-store", "X-Amz-Meta-A": "b", "X-Amz-Tagging-Count": "2"} {
		equal(t, name, head.header.Get(name), want)
	}
}

func TestABadFormStoresNothing(t *testing.T) {
	drop := func(name string) func(map[string]string) {
		return func(fields map[string]string) { delete(fields, name) }
	}
	key := map[string]string{"key": "k"}
	with := func(name, value string) map[string]string { return map[string]string{"key": "k", name: value} }
	for _, tt := range []struct {
		name   string
		form   form
		status int
		code   string
	}{
		{"wrong secret", form{fields: key, secret: "wrong"}, 403, "SignatureDoesNotMatch"},
		{"another policy", form{fields: key, spoil: func(f map[string]string) { f["policy"] += "IA==" }}, 403, "SignatureDoesNotMatch"},
		{"unknown user", form{fields: key, spoil: func(f map[string]string) { f["x-amz-credential"] = "X" + f["x-amz-credential"] }}, 403, "InvalidAccessKeyId"},
		{"another region", form{fields: key, spoil: func(f map[string]string) {
			f["x-amz-credential"] = strings.Replace(f["x-amz-credential"], region, "mars", 1)
		}}, 400, "InvalidArgument"},
		{"no credential", form{fields: key, spoil: func(f map[string]string) { f["x-amz-credential"] = "x" }}, 400, "InvalidArgument"},
		{"no date", form{fields: key, spoil: func(f map[string]string) { f["x-amz-date"] = "x" }}, 400, "InvalidArgument"},
		{"another algorithm", form{fields: key, spoil: func(f map[string]string) { f["x-amz-algorithm"] = "x" }}, 400, "InvalidArgument"},
		{"a token", form{fields: with("x-amz-security-token", "x")}, 400, "InvalidToken"},
		{"no signature", form{fields: key, spoil: drop("x-amz-signature")}, 400, "InvalidArgument"},
		{"no policy", form{fields: key, spoil: drop("policy")}, 400, "InvalidArgument"},
		{"nobody", form{fields: key, spoil: func(f map[string]string) {
			for name := range f {
				if name != "key" {
					delete(f, name)
				}
			}
		}}, 403, "AccessDenied"},
		{"no key", form{fields: map[string]string{}}, 400, "InvalidArgument"},
		{"no file", form{fields: key, filename: "-"}, 400, "InvalidArgument"},
		{"expired", form{fields: key, expires: -time.Minute}, 403, "AccessDenied"},
		{"a field that is not covered", form{fields: key, uncovered: map[string]string{"x-amz-meta-a": "b"}}, 403, "AccessDenied"},
		{"a condition that does not hold", form{fields: key, conditions: []any{[]string{"eq", "$key", "other"}}}, 403, "AccessDenied"},
		{"a condition on a field that is not there", form{fields: key, conditions: []any{[]string{"eq", "$acl", "private"}}}, 403, "AccessDenied"},
		{"another bucket", form{fields: key, path: "/second"}, 403, "AccessDenied"},
		{"another bucket in a field", form{fields: with("bucket", "second")}, 400, "InvalidArgument"},
		{"too long", form{fields: key, file: "data", conditions: []any{[]any{"content-length-range", 0, 3}}}, 400, "EntityTooLarge"},
		{"too short", form{fields: key, file: "data", conditions: []any{[]any{"content-length-range", 5, 9}}}, 400, "EntityTooSmall"},
		{"a reserved key", form{fields: map[string]string{"key": ".chatelaine/x"}}, 403, "AccessDenied"},
		{"a long key", form{fields: map[string]string{"key": strings.Repeat("k", 1025)}}, 400, "KeyTooLongError"},
		{"a key that is denied", form{fields: map[string]string{"key": "denied"}}, 403, "AccessDenied"},
		{"a public ACL", form{fields: with("acl", "public-read")}, 400, "AccessControlListNotSupported"},
		{"another checksum", form{fields: with("x-amz-checksum-crc32", crc32of("x")), file: "data"}, 400, "BadDigest"},
		{"no checksum", form{fields: with("x-amz-checksum-crc32", "x"), file: "data"}, 400, "InvalidRequest"},
		{"bad tags", form{fields: with("tagging", "x")}, 400, "MalformedXML"},
		{"a customer's key", form{fields: with("x-amz-server-side-encryption-customer-algorithm", "AES256")}, 501, "NotImplemented"},
		{"a redirect of a website", form{fields: with("x-amz-website-redirect-location", "x")}, 400, "InvalidRedirectLocation"},
		{"long fields", form{fields: with("x-amz-meta-a", strings.Repeat("x", 21<<10))}, 400, "MaxPostPreDataLengthExceeded"},
		{"a large one with fields behind the file", form{fields: key, file: string(noise(9 << 20)), tail: "Upload"}, 400, "MalformedPOSTRequest"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.bucket("ann", "second")
			w.wants(w.post(tt.form), tt.status, tt.code)
			equal(t, "stored", len(w.stored()), 0)
		})
	}
}

func TestABodyThatIsNoFormIsRefused(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		name, kind, body string
		status           int
		code             string
	}{
		{"another type", "text/plain", "x", 412, "PreconditionFailed"},
		{"no type", "", "x", 412, "PreconditionFailed"},
		{"no boundary", "multipart/form-data", "x", 400, "MalformedPOSTRequest"},
		{"a long boundary", "multipart/form-data; boundary=" + strings.Repeat("b", 71), "x", 400, "MalformedPOSTRequest"},
		{"nothing", "multipart/form-data; boundary=b", "", 400, "MalformedPOSTRequest"},
		{"no part", "multipart/form-data; boundary=b", "--b--\r\n", 403, "AccessDenied"},
		{"cut in a header", "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data", 400, "MalformedPOSTRequest"},
		{"no name", "multipart/form-data; boundary=b", "--b\r\nContent-Type: x\r\n\r\nv\r\n--b--", 400, "MalformedPOSTRequest"},
		{"a field twice", "multipart/form-data; boundary=b", strings.Repeat("--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nv\r\n", 2) + "--b--", 400, "MalformedPOSTRequest"},
		{"an open file of nobody's", "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nv\r\n", 403, "AccessDenied"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.server.URL+"/bucket", strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			if tt.kind != "" {
				r.Header.Set("Content-Type", tt.kind)
			}
			w.wants(w.do(r), tt.status, tt.code)
		})
	}
}

func TestAFormThatDoesNotEndStoresNothing(t *testing.T) {
	for _, size := range []int{0, 4, 9 << 20} {
		w := newWorld(t)
		var body bytes.Buffer
		m := multipart.NewWriter(&body)
		for name, value := range w.signForm(form{path: "/bucket", fields: map[string]string{"key": "k"}}) {
			_ = m.WriteField(name, value)
		}
		part, _ := m.CreateFormFile("file", "")
		_, _ = part.Write(noise(size)) // and no end
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.server.URL+"/bucket", &body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", m.FormDataContentType())
		w.wants(w.do(r), 400, "MalformedPOSTRequest")
		equal(t, "stored", len(w.stored()), 0)
	}
}

// However the bytes come, a large file ends where its boundary is, and nowhere else.
func TestALargeFileIsWatchedForItsBoundary(t *testing.T) {
	const delimiter, tail = "\r\n--boundary", "\r\n--boundary--\r\n"
	for _, tt := range []struct {
		name, file, end string
		ok              bool
	}{
		{"right", strings.Repeat("x", 500), tail, true},
		{"nearly a boundary", strings.Repeat("\r\n--boundarx", 50), tail, true},
		{"a boundary", strings.Repeat("x", 250) + delimiter + strings.Repeat("x", 250), tail, false},
		{"another end", strings.Repeat("x", 500), "\r\n--boundary!!\r\n", false},
		{"more behind it", strings.Repeat("x", 500), tail + "x", false},
		{"cut", strings.Repeat("x", 500), tail[:5], false},
	} {
		for _, one := range []bool{true, false} {
			s := &formStream{src: strings.NewReader(tt.file + tt.end), left: int64(len(tt.file)), delimiter: []byte(delimiter), tail: tail}
			if one {
				s.src = iotest.OneByteReader(s.src)
			}
			var got bytes.Buffer
			_, err := got.ReadFrom(s)
			if (err == nil) != tt.ok || tt.ok && got.String() != tt.file {
				t.Errorf("%s: got %d bytes and %v", tt.name, got.Len(), err)
			}
		}
	}
}

// FuzzForm checks that what multipart.Writer writes is read back, and that nothing
// makes the reader read more than there is.
func FuzzForm(f *testing.F) {
	f.Add("key", "a/b", "name.txt", []byte("data"), false)
	f.Add("x\"y", "\r\n--", "", []byte("\r\n--b"), true)
	f.Fuzz(func(t *testing.T, name, value, filename string, data []byte, raw bool) {
		if raw {
			fields, file, err := newFormReader(bytes.NewReader(data), "b", int64(len(data))).read()
			if file != nil {
				err = file.open()
			}
			if err == nil && file != nil && file.size > int64(len(data)) || len(fields) > len(data) {
				t.Errorf("%q became %v", data, fields)
			}
			return
		}
		var body bytes.Buffer
		m := multipart.NewWriter(&body)
		_ = m.WriteField(name, value)
		part, _ := m.CreateFormFile("file", filename)
		_, _ = part.Write(data)
		_ = m.Close()
		fields, file, err := newFormReader(&body, m.Boundary(), int64(body.Len())).read()
		if err != nil || file == nil || strings.EqualFold(name, "file") {
			return
		}
		if err := file.open(); err != nil {
			t.Fatalf("opening %d bytes: %v", len(data), err)
		}
		got := new(bytes.Buffer)
		if _, err := got.ReadFrom(file); err != nil || !bytes.Equal(got.Bytes(), data) || file.size != int64(len(data)) {
			t.Errorf("%d bytes became %d (%v)", len(data), got.Len(), err)
		}
		for _, v := range fields {
			if v != value {
				t.Errorf("%q became %q", value, v)
			}
		}
	})
}
