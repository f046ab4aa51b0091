package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/backends/filestore"
	"chatelaine/test/e2e/harness"
)

const breakGlass = "../../deploy/break-glass"

// ruins is what is left when there is no gateway, no KMS and no registry any more: the
// token, and the bytes in the cloud.
type ruins struct {
	*world
	bucket  string
	objects map[string][]byte // plaintext by key
	signer  string            // of recovery copies
	store   *filestore.Store
}

// ruin writes objects of every kind, stops the product and takes its state away.
func ruin(t *testing.T) *ruins {
	t.Helper()
	w := newWorld(t, cloud{}, func(o *harness.Options) { o.Args = []string{"--recovery-public-key", recoveryFile(t, "public.pem")} })
	r := &ruins{world: w, bucket: w.bucket(), objects: map[string][]byte{}}
	for _, size := range []int{0, 1, 16383, 16384, 16385, 70_000, 1<<20 + 1} {
		r.single(fmt.Sprintf("single/%d", size), size)
	}
	attributes := http.Header{}
	for name, value := range map[string]string{
		"Content-Type": "text/plain", "Cache-Control": "no-store", "x-amz-meta-colour": "sinople", "x-amz-tagging": "a=b", "x-amz-website-redirect-location": "/x",
	} {
		attributes.Set(name, value)
	}
	r.put("attributes ä", contentBytes(3, 40_000), attributes)
	r.multipart("multipart/staged tail", 5<<20, 5<<20, 10)
	r.multipart("multipart/whole parts", 5<<20, 5<<20)
	r.multipart("multipart/one", 16384)
	for i, from := range []string{"single/16384", "multipart/staged tail"} {
		key := fmt.Sprintf("copy/%d", i)
		source := http.Header{"X-Amz-Copy-Source": {"/" + r.bucket + "/" + strings.ReplaceAll(from, " ", "%20")}}
		w.do(harness.Request{Method: http.MethodPut, Path: "/" + r.bucket + "/" + key, Header: source}).want(http.StatusOK)
		r.objects[key] = r.objects[from]
	}
	r.signer = strings.TrimSpace(w.must("report", "key"))
	w.must("key", "rotate", "main")
	w.loseState()
	store, err := filestore.New(filestore.Config{Root: w.cloud.dir, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	r.store = store
	t.Cleanup(func() { _ = store.Close() })
	return r
}

func (r *ruins) single(key string, size int) { r.put(key, contentBytes(uint64(size), size), nil) }

func (r *ruins) put(key string, body []byte, header http.Header) {
	r.t.Helper()
	r.do(harness.Request{
		Method: http.MethodPut, Path: "/" + r.bucket + "/" + key, Header: header, Body: bytes.NewReader(body), Size: int64(len(body)),
	}).want(http.StatusOK)
	r.objects[key] = body
}

func (r *ruins) multipart(key string, sizes ...int) {
	r.t.Helper()
	client := r.sdk()
	made, err := client.CreateMultipartUpload(r.t.Context(), &s3.CreateMultipartUploadInput{Bucket: &r.bucket, Key: &key})
	if err != nil {
		r.t.Fatal(err)
	}
	parts := &types.CompletedMultipartUpload{}
	var whole []byte
	for i, size := range sizes {
		number, body := int32(2*i+1), contentBytes(uint64(100+i), size) // with gaps
		part, err := client.UploadPart(r.t.Context(), &s3.UploadPartInput{Bucket: &r.bucket, Key: &key, UploadId: made.UploadId, PartNumber: &number, Body: bytes.NewReader(body)})
		if err != nil {
			r.t.Fatal(err)
		}
		parts.Parts = append(parts.Parts, types.CompletedPart{PartNumber: &number, ETag: part.ETag, ChecksumCRC32: part.ChecksumCRC32})
		whole = append(whole, body...)
	}
	if _, err := client.CompleteMultipartUpload(r.t.Context(), &s3.CompleteMultipartUploadInput{Bucket: &r.bucket, Key: &key, UploadId: made.UploadId, MultipartUpload: parts}); err != nil {
		r.t.Fatal(err)
	}
	r.objects[key] = whole
}

// exec runs a program with the token at hand.
func (r *ruins) exec(name string, args ...string) (stdout, stderr string, code int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+filepath.Join(r.Home(), "token", "softhsm2.conf"))
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	return out.String(), complaints.String(), cmd.ProcessState.ExitCode()
}

// object is `chatelaine object` on the files of the cloud.
func (r *ruins) object(command string, args ...string) (stdout, stderr string, code int) {
	r.t.Helper()
	places := []string{"object", command, "--backend", r.backendURL(), "--kms-config", filepath.Join(r.Home(), "run", "kms.yaml")}
	return r.exec(product, append(places, args...)...)
}

// stored is what the cloud has of an object: its bytes, and its envelope.
func (r *ruins) stored(key string) ([]byte, backends.Attributes) {
	r.t.Helper()
	o, err := r.store.Get(r.t.Context(), backends.ObjectID{Bucket: r.bucket, Key: key}, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	defer o.Body.Close()
	b, err := io.ReadAll(o.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return b, o.Attributes
}

// replace plays the provider.
func (r *ruins) replace(key string, stored []byte, a backends.Attributes) {
	r.t.Helper()
	a.Tags = nil
	id := backends.ObjectID{Bucket: r.bucket, Key: key}
	if _, err := r.store.Put(r.t.Context(), id, backends.Body{Reader: bytes.NewReader(stored), Size: int64(len(stored))}, &backends.PutOptions{Attributes: a}); err != nil {
		r.t.Fatal(err)
	}
}

// verified is what of a report is looked at here.
type verified struct {
	Done    bool
	Good    int
	Mirrors int
	Bytes   int64
	Bad     []struct{ Key, Kind string }
}

func (r *ruins) verify(want int, args ...string) verified {
	r.t.Helper()
	out, complaints, code := r.object("verify", append([]string{r.bucket, "--json"}, args...)...)
	if code != want {
		r.t.Fatalf("verify: code %d, want %d: %s", code, want, complaints)
	}
	var v verified
	if err := json.Unmarshal([]byte(out), &v); err != nil || !v.Done {
		r.t.Fatalf("verify: %v: %s", err, out)
	}
	return v
}

// TestEverythingIsReadWithTheTokenAndTheCloudAlone reads objects of every kind twice,
// when nothing else is left: by `chatelaine object`, and by the reader that shares no
// code with it. Then the provider changes some.
func TestEverythingIsReadWithTheTokenAndTheCloudAlone(t *testing.T) {
	r := ruin(t)
	var total int64
	for _, body := range r.objects {
		total += int64(len(body))
	}
	report := filepath.Join(t.TempDir(), "report.json")
	if v := r.verify(0, "--report", report); v.Good != len(r.objects) || v.Bytes != total || v.Mirrors == 0 || len(v.Bad) != 0 {
		t.Errorf("verify: got %+v, want %d objects of %d bytes", v, len(r.objects), total)
	}
	r.openAll()
	r.inspects()
	python := &pythonReader{ruins: r, keys: t.TempDir()}
	python.unwrap()
	python.readAll()
	python.refusesWhatWasTamperedWith()
	r.findsWhatWasTamperedWith(report)
}

func (r *ruins) openAll() {
	r.t.Helper()
	out := filepath.Join(r.t.TempDir(), "plain")
	for _, key := range []string{"single/0", "multipart/staged tail", "copy/0"} { // verify has read all
		if got, complaints, code := r.object("open", r.bucket, key); code != 0 || got != string(r.objects[key]) {
			r.t.Errorf("opening %q: code %d, %d bytes, want %d: %s", key, code, len(got), len(r.objects[key]), complaints)
		}
	}
	if _, complaints, code := r.object("open", r.bucket, "attributes ä", "--out", out); code != 0 {
		r.t.Errorf("opening into a file: code %d: %s", code, complaints)
	}
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, r.objects["attributes ä"]) {
		r.t.Errorf("the file: %d bytes, %v", len(got), err)
	}
	recovery := []string{"object", "open", "--backend", r.backendURL(), "--recovery-key", recoveryFile(r.t, "private.pem"), r.bucket, "copy/1", "--signer"}
	if got, complaints, code := r.exec(product, append(recovery, r.signer)...); code != 0 || got != string(r.objects["copy/1"]) {
		r.t.Errorf("opening with the recovery key: code %d, %d bytes: %s", code, len(got), complaints)
	}
	if got, complaints, code := r.exec(product, append(recovery, "SHA256:another")...); code != 1 || got != "" || !strings.Contains(complaints, "it is signed by "+r.signer) {
		r.t.Errorf("with another signer: code %d: %s", code, complaints)
	}
	if _, complaints, code := r.object("open", r.bucket, "single/1", "--out", out); code != 2 || !strings.Contains(complaints, "there already") {
		r.t.Errorf("opening over a file: code %d: %s", code, complaints)
	}
}

func (r *ruins) inspects() {
	r.t.Helper()
	text, complaints, code := r.object("inspect", r.bucket, "attributes ä")
	for _, want := range []string{"main.v1", "sinople", "text/plain", "single", "40000", "NOT AUTHENTICATED"} {
		if code != 0 || !strings.Contains(text, want) {
			r.t.Errorf("inspect: code %d, no %q in %s%s", code, want, text, complaints)
		}
	}
	text, complaints, code = r.exec(product, "object", "inspect", "--backend", r.backendURL(), r.bucket, "multipart/staged tail")
	if code != 0 || !strings.Contains(text, "for 3 parts") || strings.Contains(text, "\nAUTHENTICATED") {
		r.t.Errorf("inspect without the HSM: code %d: %s%s", code, text, complaints)
	}
}

// findsWhatWasTamperedWith changes objects in the cloud.
func (r *ruins) findsWhatWasTamperedWith(report string) {
	r.t.Helper()
	want := map[string]string{}
	change := func(key, kind string, f func(stored []byte, a *backends.Attributes) []byte) {
		stored, a := r.stored(key)
		r.replace(key, f(stored, &a), a)
		want[key] = kind
	}
	change("single/70000", "corrupt", func(b []byte, _ *backends.Attributes) []byte { b[40_000] ^= 1; return b })
	change("single/16385", "corrupt", func(b []byte, _ *backends.Attributes) []byte { return append(b, 0, 0) })
	change("single/16384", "size", func(b []byte, _ *backends.Attributes) []byte { return append(b[:len(b)-16], 0, 0) })
	change("single/1", "not sealed", func(_ []byte, a *backends.Attributes) []byte { a.Metadata = nil; return []byte("plain") })
	change("multipart/whole parts", "corrupt", func(b []byte, _ *backends.Attributes) []byte { b[len(b)-20] ^= 1; return b })
	change("single/0", "corrupt", func([]byte, *backends.Attributes) []byte { b, _ := r.stored("copy/0"); return b })
	if v := r.verify(0, "--report", report); len(v.Bad) != 0 {
		r.t.Errorf("a report that was done is not shown again: %+v", v)
	}
	v := r.verify(1, "--report", report+".2")
	got := map[string]string{}
	for _, bad := range v.Bad {
		got[bad.Key] = bad.Kind
	}
	for key, kind := range want {
		if got[key] != kind {
			r.t.Errorf("%q: got %q, want %q", key, got[key], kind)
		}
	}
	if len(got) != len(want) || v.Good != len(r.objects)-len(want) {
		r.t.Errorf("got %v and %d good ones, want %v", got, v.Good, want)
	}
	dir := r.t.TempDir()
	if _, complaints, code := r.object("open", r.bucket, "multipart/whole parts", "--out", filepath.Join(dir, "plain")); code != 1 || !strings.Contains(complaints, "not authentic") {
		r.t.Errorf("opening what was changed: code %d: %s", code, complaints)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		r.t.Errorf("it left %v, %v", left, err)
	}
	if _, complaints, code := r.object("open", r.bucket, "single/70000", "--space", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"); code != 1 || !strings.Contains(complaints, "another bucket's") {
		r.t.Errorf("with another space: code %d: %s", code, complaints)
	}
}

// pythonReader is deploy/break-glass.
type pythonReader struct {
	*ruins
	keys   string // folder of mirrors and, beside them, opened keys
	mirror string // the only one's file
	python string
}

// unwrap opens the mirror by the token's library.
func (p *pythonReader) unwrap() {
	p.t.Helper()
	p.python = program(p.t, "python3")
	page, err := p.store.List(p.t.Context(), p.bucket, &backends.ListOptions{Prefix: ".chatelaine/keys/"})
	if err != nil || len(page.Entries) != 1 {
		p.t.Fatalf("mirrors: got %+v, %v, want one", page, err)
	}
	record, _ := p.stored(page.Entries[0].Key)
	p.mirror = p.write("mirror", record)
	config, err := os.ReadFile(filepath.Join(p.Home(), "run", "kms.yaml"))
	if err != nil {
		p.t.Fatal(err)
	}
	setting := func(name string) string { return strings.Trim(between(string(config), name+": ", "\n"), `"' `) }
	args := []string{
		filepath.Join(breakGlass, "unwrap.py"), "--mirror", p.mirror, "--out", p.mirror + ".key",
		"--module", setting("module"), "--token", setting("token"), "--pin-file", setting("pin_file"),
	}
	if _, complaints, code := p.exec(p.python, args...); code != 0 {
		p.t.Fatalf("unwrap.py: code %d: %s", code, complaints)
	}
	opened, err := os.ReadFile(p.mirror + ".key")
	if err != nil {
		p.t.Fatal(err)
	}
	recovery := []string{args[0], "--mirror", p.mirror, "--out", p.mirror + ".copy", "--recovery-key", recoveryFile(p.t, "private.pem"), "--signer", p.signer}
	if _, complaints, code := p.exec(p.python, recovery...); code != 0 {
		p.t.Errorf("unwrap.py with the recovery key: code %d: %s", code, complaints)
	}
	if copied, err := os.ReadFile(p.mirror + ".copy"); err != nil || !bytes.Equal(copied, opened) {
		p.t.Errorf("the recovery copy is another key, %v", err)
	}
	recovery[4], recovery[8] = p.mirror+".other", "SHA256:another"
	if _, complaints, code := p.exec(p.python, recovery...); code == 0 || !strings.Contains(complaints, "REFUSED") {
		p.t.Errorf("unwrap.py with another signer: code %d: %s", code, complaints)
	}
	swapped := p.write("swapped", bytes.Replace(record, []byte(`"space":"`+between(string(record), `"space":"`, `"`)), []byte(`"space":"6ba7b810-9dad-11d1-80b4-00c04fd430c8`), 1))
	args[2], args[4] = swapped, swapped+".key"
	if _, complaints, code := p.exec(p.python, args...); code == 0 || complaints == "" {
		p.t.Errorf("unwrap.py opens a mirror whose space was changed")
	}
}

func (p *pythonReader) write(name string, b []byte) string {
	p.t.Helper()
	name = filepath.Join(p.keys, name)
	if err := os.WriteFile(name, b, 0o600); err != nil {
		p.t.Fatal(err)
	}
	return name
}

// read returns what read.py makes of stored bytes; nothing where it makes no file.
func (p *pythonReader) read(key string, stored []byte, envelope string) (plain []byte, said string, code int) {
	p.t.Helper()
	out := filepath.Join(p.keys, "out")
	text, complaints, code := p.exec(p.python, filepath.Join(breakGlass, "read.py"), "--object", p.write("object", stored), "--envelope", p.write("envelope", []byte(envelope)),
		"--key", key, "--mirror", p.mirror, "--bucket-key", p.mirror+".key", "--out", out)
	plain, err := os.ReadFile(out)
	if err == nil {
		err = os.Remove(out)
	}
	if code == 0 && err != nil {
		p.t.Errorf("read.py: %v", err)
	}
	return plain, text + complaints, code
}

func (p *pythonReader) readAll() {
	p.t.Helper()
	for key, want := range p.objects {
		stored, a := p.stored(key)
		got, said, code := p.read(key, stored, a.Metadata["cho1"])
		if code != 0 || !bytes.Equal(got, want) {
			p.t.Errorf("read.py on %q: code %d, %d bytes, want %d: %s", key, code, len(got), len(want), said)
		}
		if key == "attributes ä" && (!strings.Contains(said, "sinople") || !strings.Contains(said, "text/plain")) {
			p.t.Errorf("read.py: the attributes are not in %s", said)
		}
	}
}

func (p *pythonReader) refusesWhatWasTamperedWith() {
	p.t.Helper()
	stored, a := p.stored("multipart/staged tail")
	other, b := p.stored("single/70000")
	envelope := a.Metadata["cho1"]
	flip := func(at int) []byte { c := slices.Clone(stored); c[at] ^= 1; return c }
	for name, tc := range map[string]struct {
		key      string
		stored   []byte
		envelope string
	}{
		"a byte of the data":     {"multipart/staged tail", flip(6 << 20), envelope},
		"a byte of the trailer":  {"multipart/staged tail", flip(len(stored) - 30), envelope},
		"a cut":                  {"multipart/staged tail", stored[:len(stored)-1], envelope},
		"another name":           {"multipart/another", stored, envelope},
		"another's envelope":     {"multipart/staged tail", stored, b.Metadata["cho1"]},
		"another's bytes":        {"multipart/staged tail", other, envelope},
		"no envelope":            {"multipart/staged tail", stored, ""},
		"a letter of the header": {"multipart/staged tail", stored, strings.Replace(envelope, envelope[60:70], "AAAAAAAAAA", 1)},
		"nothing":                {"multipart/staged tail", nil, envelope},
	} {
		if got, said, code := p.read(tc.key, tc.stored, tc.envelope); code == 0 || len(got) > 0 || !strings.Contains(said, "REFUSED") {
			p.t.Errorf("read.py with %s: code %d, %d bytes: %s", name, code, len(got), said)
		}
	}
}
