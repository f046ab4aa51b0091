package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"chatelaine/test/e2e/harness"
)

// allClouds says that everything runs on every cloud: `make clouds`.
func allClouds() bool { return os.Getenv("CHATELAINE_TEST_CLOUDS") != "" }

// place is one of the backends of a gateway that has them all.
type place struct {
	name string
	make func(t *testing.T) cloud
	// answers are the codes for wishes(), empty where they come true. What is not
	// mentioned is NotImplemented there.
	answers map[string]string
}

func places() []place {
	return []place{
		{name: "files", make: onFiles, answers: map[string]string{"tags": "", "tags of a new object": "", "versions": "", "a lock": ""}},
		{name: "minio", make: onMinIO, answers: map[string]string{
			"tags": "", "tags of a new object": "", "lifecycle rules": "", "versions": "",
			"a lock": "InvalidBucketState", // only a new bucket can have one there
		}},
		{name: "versitygw", make: onVersityGW},
		{name: "azurite", make: onAzurite, answers: map[string]string{"tags": "", "tags of a new object": ""}},
		{name: "gcs", make: onFakeGCS, answers: map[string]string{"tags": "", "tags of a new object": "", "versions": ""}},
	}
}

func onFiles(t *testing.T) cloud {
	t.Helper()
	dir := t.TempDir()
	return cloud{url: "file://" + dir, dir: dir}
}

func onVersityGW(t *testing.T) cloud {
	t.Helper()
	return speaking(versitygw.VersityGW(t), "versitygw")
}

// manyClouds is one product with a bucket on each place.
type manyClouds struct {
	*world
	config  string
	places  []place
	clouds  map[string]cloud  // by place
	buckets map[string]string // by place
}

func newManyClouds(t *testing.T) *manyClouds {
	t.Helper()
	m := &manyClouds{config: filepath.Join(t.TempDir(), "gateway.yaml"), places: places(), clouds: map[string]cloud{}}
	var env []string
	text := "default_backend: files\nbackends:\n"
	for _, p := range m.places {
		c := p.make(t)
		m.clouds[p.name] = c
		text += fmt.Sprintf("  %s:\n    url: '%s'\n    offered: %t\n", p.name, c.url, p.name != "gcs")
		if len(c.env) > 0 {
			account := strings.ToUpper(p.name)
			text += fmt.Sprintf("    access_key_id_env: %s_ACCESS_KEY_ID\n    secret_access_key_env: %[1]s_SECRET_ACCESS_KEY\n", account)
			for _, v := range c.env {
				env = append(env, account+"_"+strings.TrimPrefix(v, "CHATELAINE_BACKEND_"))
			}
		}
	}
	if err := os.WriteFile(m.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m.world = newWorld(t, cloud{env: env}, func(o *harness.Options) { o.Config = m.config })
	m.buckets = m.newBuckets()
	return m
}

// newBuckets makes one on each place, all at once: a gateway takes a while to hear of one.
func (m *manyClouds) newBuckets() map[string]string {
	m.t.Helper()
	made := map[string]string{}
	var group errgroup.Group
	for _, p := range m.places {
		name := newName()
		made[p.name] = name
		group.Go(func() error {
			_, err := m.bucketCommand("create", name, "--owner", "first-user", "--backend", p.name)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		m.t.Fatal(err)
	}
	return made
}

// within is the same product in a subtest.
func (m *manyClouds) within(t *testing.T) *manyClouds {
	w, inner := *m.world, *m
	w.t, inner.world = t, &w
	return &inner
}

// TestOneEndpointServesManyClouds has buckets on every backend behind one gateway at the
// same time. Its uploads, and the moves from each to each, are large in `make clouds`.
func TestOneEndpointServesManyClouds(t *testing.T) {
	large(t)
	m := newManyClouds(t)
	for _, tt := range []struct {
		name string
		run  func(m *manyClouds)
	}{
		{"buckets lie where they were made", (*manyClouds).wantBuckets},
		{"clients choose among the backends that are offered", (*manyClouds).choices},
		{"what a backend lacks is not implemented", (*manyClouds).wantRefusals},
		{"objects and parts are copied from each to each", (*manyClouds).copies},
		{"part numbers go to 10000", (*manyClouds).farNumbers},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(m.within(t)) })
	}
	t.Run("uploads outlive the gateway", func(t *testing.T) { m.uploads(t) })
	if allClouds() {
		t.Run("a bucket moves from each to each", func(t *testing.T) { m.within(t).moves() })
	}
	for name, c := range m.clouds {
		if m.searchFolder(c.dir, nil) == 0 {
			t.Errorf("%s holds nothing", name)
		}
	}
	m.assertDiscreet()
}

// wantBuckets lists them all, and looks for each at every provider.
func (m *manyClouds) wantBuckets() {
	listed := m.do(harness.Request{Method: http.MethodGet, Path: "/"}).want(http.StatusOK)
	for _, p := range m.places {
		bucket := m.buckets[p.name]
		if !bytes.Contains(listed.body, []byte("<Name>"+bucket+"</Name>")) {
			m.t.Errorf("ListBuckets lacks the one on %s: %s", p.name, listed.body)
		}
		m.put("/"+bucket+"/first", []byte("where?")).want(http.StatusOK)
		for name, c := range m.clouds {
			if got, want := mentions(m.t, c.dir, bucket), name == p.name; got != want {
				m.t.Errorf("the bucket made on %s: seen on %s: %t, want %t", p.name, name, got, want)
			}
		}
	}
}

// mentions says whether a text is in the name or the bytes of any file of a folder.
func mentions(t *testing.T, dir, text string) bool {
	t.Helper()
	found := false
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case os.IsNotExist(err): // it is a live system
			return nil
		case err != nil:
			return err
		case strings.Contains(path, text):
			found = true
			return fs.SkipAll
		case !entry.Type().IsRegular():
			return nil
		}
		f, err := os.Open(path)
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		defer f.Close()
		_, hit, err := search(f, [][]byte{[]byte(text)})
		if hit != nil {
			found = true
			return fs.SkipAll
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// wish is something that not every backend can do. The last cannot be taken back.
type wish struct {
	name, query, header, body string
	path                      string // below the bucket
}

func wishes() []wish {
	const tagging = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"
	return []wish{
		{name: "tags", path: "/first", query: "tagging", body: tagging},
		{name: "tags of a new object", path: "/tagged", header: "X-Amz-Tagging: a=b", body: "x"},
		{name: "lifecycle rules", query: "lifecycle", body: "<LifecycleConfiguration><Rule><ID>r</ID><Status>Enabled</Status><Filter><Prefix>old/</Prefix></Filter>" +
			"<Expiration><Days>9</Days></Expiration></Rule></LifecycleConfiguration>"},
		{name: "versions", query: "versioning", body: "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"},
		{name: "a lock", query: "object-lock", body: "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>"},
	}
}

// wantRefusals: what is beyond a backend is answered with NotImplemented, exactly, and
// changes nothing; the rest works. Locks stay, so it is done to buckets of their own.
// choices has a client make buckets by LocationConstraint.
func (m *manyClouds) choices() {
	aws, ok := newDebianAWS(m.t, m.world).(awsCLI)
	if !ok {
		m.t.Fatal("not the command line")
	}
	bucket := newName()
	aws.run(m.t, "s3api", "create-bucket", "--bucket", bucket, "--create-bucket-configuration", "LocationConstraint=azurite")
	if got := aws.run(m.t, "s3api", "get-bucket-location", "--bucket", bucket); strings.Contains(got, "azurite") {
		m.t.Errorf("clients sign for the region, and GetBucketLocation says %s", got)
	}
	head := m.do(harness.Request{Method: http.MethodHead, Path: "/" + bucket}).want(http.StatusOK)
	if got := head.header.Get("X-Amz-Bucket-Location-Name"); got != "azurite" {
		m.t.Errorf("the bucket is said to lie on %q, want azurite", got)
	}
	m.put("/"+bucket+"/first", []byte("chosen")).want(http.StatusOK)
	for name, c := range m.clouds {
		if got, want := mentions(m.t, c.dir, bucket), name == "azurite"; got != want {
			m.t.Errorf("seen on %s: %t, want %t", name, got, want)
		}
	}
	for _, name := range []string{"gcs", "nowhere"} {
		body := "<CreateBucketConfiguration><LocationConstraint>" + name + "</LocationConstraint></CreateBucketConfiguration>"
		a := m.do(harness.Request{Method: http.MethodPut, Path: "/" + newName(), Body: strings.NewReader(body), Size: int64(len(body))})
		if a.status != http.StatusBadRequest || a.code() != "InvalidLocationConstraint" {
			m.t.Errorf("on %s: %d %s, want InvalidLocationConstraint", name, a.status, a.code())
		}
	}
}

func (m *manyClouds) wantRefusals() {
	buckets := m.newBuckets()
	for _, p := range m.places {
		bucket := buckets[p.name]
		m.put("/"+bucket+"/first", []byte("first")).want(http.StatusOK)
		for _, wish := range wishes() {
			r := harness.Request{
				Method: http.MethodPut, Path: "/" + bucket + wish.path, Header: http.Header{}, Body: strings.NewReader(wish.body), Size: int64(len(wish.body)),
			}
			if wish.query != "" {
				r.Query = url.Values{wish.query: {""}}
			}
			if name, value, ok := strings.Cut(wish.header, ": "); ok {
				r.Header.Set(name, value)
			}
			a := m.do(r)
			code, ok := p.answers[wish.name]
			if !ok {
				code = "NotImplemented"
			}
			status := map[string]int{"": http.StatusOK, "NotImplemented": http.StatusNotImplemented, "InvalidBucketState": http.StatusConflict}[code]
			if a.status != status || a.code() != code {
				m.t.Errorf("%s: %s: got %d %q, want %d %q: %.300s", p.name, wish.name, a.status, a.code(), status, code, a.body)
			}
			if a.status == http.StatusNotImplemented && wish.path == "/tagged" {
				m.get("/" + bucket + wish.path).want(http.StatusNotFound)
			}
		}
	}
}

// copies copies one object from every bucket to every bucket, whole and as a part.
func (m *manyClouds) copies() {
	body := contentBytes(77, 5<<20+3)
	for _, bucket := range m.buckets {
		m.do(harness.Request{
			Method: http.MethodPut, Path: "/" + bucket + "/source", Body: bytes.NewReader(body), Size: int64(len(body)),
			Header: http.Header{"X-Amz-Meta-Note": {"travels too"}},
		}).want(http.StatusOK)
	}
	var group errgroup.Group
	group.SetLimit(4)
	for _, from := range m.places {
		for _, to := range m.places {
			group.Go(func() error {
				err := m.copyOne(m.buckets[from.name], m.buckets[to.name], from.name, body)
				if err != nil {
					err = fmt.Errorf("from %s to %s: %w", from.name, to.name, err)
				}
				return err
			})
		}
	}
	if err := group.Wait(); err != nil {
		m.t.Error(err)
	}
}

func (m *manyClouds) copyOne(from, to, name string, body []byte) error {
	source := http.Header{"X-Amz-Copy-Source": {"/" + from + "/source"}}
	whole, parts := "/"+to+"/whole-from-"+name, "/"+to+"/parts-from-"+name
	if _, err := m.ask(harness.Request{Method: http.MethodPut, Path: whole, Header: source}); err != nil {
		return err
	}
	got, err := m.ask(harness.Request{Method: http.MethodGet, Path: whole})
	if err != nil {
		return err
	}
	if note := got.header.Get("X-Amz-Meta-Note"); note != "travels too" || !bytes.Equal(got.body, body) {
		return fmt.Errorf("the copy has %d other bytes, or other metadata: %q", len(got.body), note)
	}
	u, err := m.begin(parts)
	if err != nil {
		return err
	}
	if err := u.copyPart(1, source); err != nil {
		return err
	}
	tail := []byte("and a part of its own")
	if err := u.put(2, bytes.NewReader(tail), int64(len(tail))); err != nil {
		return err
	}
	if err := u.complete(); err != nil {
		return err
	}
	if got, err = m.ask(harness.Request{Method: http.MethodGet, Path: parts}); err == nil && !bytes.Equal(got.body, append(bytes.Clone(body), tail...)) {
		err = fmt.Errorf("put together from parts: got %d other bytes", len(got.body))
	}
	return err
}

// ask is do where all but 200 is an error, in a test of its own goroutine.
func (m *manyClouds) ask(r harness.Request) (*answer, error) {
	a, err := trySend(m.t, m.client(), r)
	if err == nil && (a.status != http.StatusOK || a.code() != "") { // copies and completions fail within a 200
		err = fmt.Errorf("%s %s: got %d: %.300s", r.Method, r.Path, a.status, a.body)
	}
	return a, err
}

// moves has a bucket travel along every way between two places once, sealed, and reads it
// wherever it is.
func (m *manyClouds) moves() {
	bucket, at := newName(), 0
	if _, err := m.bucketCommand("create", bucket, "--owner", "first-user", "--backend", m.places[0].name); err != nil {
		m.t.Fatal(err)
	}
	objects := map[string][]byte{}
	m.fill(objects, 0, bucket)
	long := m.longObject("/"+bucket+"/long", 11<<20)
	for _, next := range everyWay(len(m.places)) {
		m.move(bucket, m.places[at].name, m.places[next].name)
		at = next
		m.allThere(objects)
		if err := long.verify(); err != nil {
			m.t.Errorf("on %s: %v", m.places[at].name, err)
		}
	}
	if at != 0 {
		m.t.Errorf("it ends on %s", m.places[at].name)
	}
}

func (m *manyClouds) move(bucket, from, to string) {
	m.t.Helper()
	args := []string{"copy", bucket, "--to", to + "/" + newName(), "--switch", "--config", m.config}
	out, err := m.bucketCommandWith(m.cloud.env, args...)
	if err != nil || !strings.Contains(out, "5 objects") {
		m.t.Fatalf("from %s to %s: %v: %s", from, to, err, out)
	}
}

// everyWay is a tour of n places, from 0, that goes every way between two of them once in
// each direction.
func everyWay(n int) (tour []int) {
	for i := range n - 1 {
		for j := i + 2; j < n; j++ {
			tour = append(tour, j, i)
		}
		tour = append(tour, i+1)
	}
	for i := n - 2; i >= 0; i-- {
		tour = append(tour, i)
	}
	return tour
}

func TestEveryWayIsGoneOnce(t *testing.T) {
	for _, n := range []int{2, 3, 5} {
		gone, at := map[[2]int]int{}, 0
		for _, next := range everyWay(n) {
			gone[[2]int{at, next}]++
			at = next
		}
		if len(gone) != n*(n-1) || len(everyWay(n)) != n*(n-1) || at != 0 {
			t.Errorf("%d places: %v, ending at %d", n, gone, at)
		}
	}
}
