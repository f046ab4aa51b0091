package e2e

import (
	"bytes"
	"context"
	"crypto/md5"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"chatelaine/kms"
	"chatelaine/kms/service"
	"chatelaine/kms/service/kmsv1"
	"chatelaine/test/e2e/harness"
)

const (
	adoptKills = 10
	// adoptPatience is how long an adoption may make no progress, with a start in between.
	adoptPatience = time.Minute
)

// adoptCount is how many objects there are: CHATELAINE_ADOPT_OBJECTS, or some.
func adoptCount(t *testing.T) int {
	t.Helper()
	text := os.Getenv("CHATELAINE_ADOPT_OBJECTS")
	if text == "" {
		return 2000
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// plainBucket is a bucket of a cloud that never was the gateway's.
type plainBucket struct {
	t     *testing.T
	cloud *s3.Client
	name  string
	n     int
}

func (p *plainBucket) key(i int) string { return fmt.Sprintf("data/%07d", i) }

// body is small, and different for each key.
func (p *plainBucket) body(i int) []byte {
	return bytes.Repeat([]byte(fmt.Sprintf("plaintext %d of %s\n", i, p.name)), 1+i%40)
}

// headers are those of every object.
func plainHeaders(in *s3.PutObjectInput) *s3.PutObjectInput {
	in.ContentType, in.ContentEncoding, in.ContentLanguage = aws.String("text/csv"), aws.String("identity"), aws.String("de")
	in.ContentDisposition, in.CacheControl = aws.String(`attachment; filename="a.csv"`), aws.String("max-age=60")
	in.Metadata, in.Tagging = map[string]string{"colour": "red", "sent-by": "ann"}, aws.String("class=old")
	return in
}

// newPlainBucket fills one with n objects. It keeps versions, which tell how often each
// was written.
func newPlainBucket(t *testing.T, n int) *plainBucket {
	t.Helper()
	server := minio.MinIO(t)
	p := &plainBucket{
		t: t, name: newName(), n: n,
		cloud: sdkClient(server.Endpoint, harness.Credentials{AccessKeyID: server.AccessKeyID, SecretAccessKey: server.SecretAccessKey}, nil),
	}
	if _, err := p.cloud.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &p.name}); err != nil {
		t.Fatal(err)
	}
	_, err := p.cloud.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{
		Bucket: &p.name, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.each(func(ctx context.Context, i int) error {
		_, err := p.cloud.PutObject(ctx, plainHeaders(&s3.PutObjectInput{Bucket: &p.name, Key: aws.String(p.key(i)), Body: bytes.NewReader(p.body(i))}))
		return err
	})
	return p
}

// each does something for every object, 16 at once.
func (p *plainBucket) each(do func(ctx context.Context, i int) error) {
	p.t.Helper()
	group, ctx := errgroup.WithContext(p.t.Context())
	group.SetLimit(16)
	for i := range p.n {
		group.Go(func() error {
			if err := do(ctx, i); err != nil {
				return fmt.Errorf("object %d: %w", i, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		p.t.Fatal(err)
	}
}

// bucketCommand runs `chatelaine bucket`.
func (w *world) bucketCommand(args ...string) (stdout string, err error) {
	w.t.Helper()
	return w.bucketCommandWith(nil, args...)
}

// bucketCommandWith is bucketCommand with variables of the environment.
func (w *world) bucketCommandWith(env []string, args ...string) (stdout string, err error) {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), product, append([]string{"bucket"}, append(args, "--kms", w.kmsAddress())...)...)
	cmd.Env = append(os.Environ(), env...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s%s", err, out, said.String())
	}
	return string(out), err
}

// awaitAdoption waits until the adoption has come to an object, or has ended.
func (w *world) awaitAdoption(bucket, key string) *kmsv1.AdoptionJob {
	w.t.Helper()
	clients, err := service.Dial(service.DialConfig{Address: w.kmsAddress(), Logger: zap.NewNop()})
	if err != nil {
		w.t.Fatal(err)
	}
	defer clients.Close()
	last, since := "", time.Now()
	for {
		answer, err := clients.Buckets.GetAdoption(w.t.Context(), &kmsv1.GetAdoptionRequest{Name: bucket})
		if err != nil {
			w.t.Fatal(err)
		}
		job := answer.GetAdoption()
		at := job.GetTold().GetPosition()
		if job.GetState() != string(kms.AdoptionRunning) || at >= key {
			return job
		}
		if at != last {
			last, since = at, time.Now()
		}
		if time.Since(since) > adoptPatience {
			w.t.Fatalf("nothing was sealed for %v: %v", adoptPatience, job)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestAnAdoptionIsKilledTenTimes: every object is sealed once and none is lost, with its
// ETag and metadata, and reads and writes go on whenever the gateway is there.
func TestAnAdoptionIsKilledTenTimes(t *testing.T) {
	large(t)
	n := adoptCount(t)
	p := newPlainBucket(t, n)
	w := newWorld(t, onMinIO(t))
	// Slow enough to be killed so often, whatever the machine.
	rate := "--rate=" + strconv.Itoa(max(400, n/200))
	if _, err := w.bucketCommand("adopt", "moved-in", "--owner", "first-user", "--store-name", p.name, "--background", rate); err != nil {
		t.Fatal(err)
	}
	w.awaitBucket("moved-in")
	w.readsFirst(p)
	c := w.newClients(p)
	began := time.Now()
	for kill := range adoptKills {
		job := w.awaitAdoption("moved-in", p.key(n*kill/(adoptKills+1)))
		if job.GetState() != string(kms.AdoptionRunning) {
			t.Fatalf("before it was killed %d times it ended: %v", kill+1, job)
		}
		w.Kill()
		w.up()
	}
	if job := w.awaitAdoption("moved-in", "the end"); job.GetState() != string(kms.AdoptionDone) {
		t.Fatalf("it ended as %v", job)
	}
	t.Logf("%d objects, killed %d times: %v", n, adoptKills, time.Since(began).Round(time.Second))
	overwritten := c.end()
	w.wantAdopted(p, overwritten)
	signed, err := w.bucketCommand("adopt", "moved-in", "--status", "--json")
	if err != nil {
		t.Fatal(err)
	}
	w.wantRecord(p, signed)
}

// awaitBucket waits until a bucket can be used.
func (w *world) awaitBucket(bucket string) {
	w.t.Helper()
	for until := time.Now().Add(adoptPatience); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		if _, err := w.sdk().HeadBucket(w.t.Context(), &s3.HeadBucketInput{Bucket: &bucket}); err == nil {
			return
		}
	}
	w.t.Fatalf("bucket %q cannot be used", bucket)
}

// readsFirst reads an object that surely is plaintext: the last one.
func (w *world) readsFirst(p *plainBucket) {
	w.t.Helper()
	last := p.n - 1
	out, err := w.sdk().GetObject(w.t.Context(), &s3.GetObjectInput{Bucket: aws.String("moved-in"), Key: aws.String(p.key(last))})
	if err != nil {
		w.t.Fatal(err)
	}
	defer out.Body.Close()
	body, err := io.ReadAll(out.Body)
	if err != nil || !bytes.Equal(body, p.body(last)) || out.ServerSideEncryption != "" || aws.ToString(out.ContentType) != "text/csv" {
		w.t.Errorf("plaintext: got %d bytes, encryption %q, type %q and %v", len(body), out.ServerSideEncryption, aws.ToString(out.ContentType), err)
	}
	metrics, err := w.Metrics(w.t.Context())
	if err != nil || !strings.Contains(metrics, `chatelaine_plaintext_reads_total{store="main"} `) {
		w.t.Errorf("the metric does not tell of it: %v", err)
	}
	if !strings.Contains(w.Stderr(), "plaintext is served") {
		w.t.Error("the log does not tell of it")
	}
}

// clients read objects and overwrite some, as well as they can.
type clients struct {
	w       *world
	p       *plainBucket
	stop    context.CancelFunc
	running sync.WaitGroup
	reads   atomic.Int64
	mu      sync.Mutex
	written map[int]bool
}

func (w *world) newClients(p *plainBucket) *clients {
	ctx, stop := context.WithCancel(w.t.Context())
	c := &clients{w: w, p: p, stop: stop, written: map[int]bool{}}
	sdk := w.sdk() // the address stays when the product starts again
	c.running.Go(func() {
		for ctx.Err() == nil {
			c.read(ctx, sdk, rand.IntN(p.n))
			time.Sleep(5 * time.Millisecond)
		}
	})
	c.running.Go(func() {
		for ctx.Err() == nil {
			c.overwrite(ctx, sdk, rand.IntN(p.n))
			time.Sleep(200 * time.Millisecond)
		}
	})
	return c
}

func (c *clients) newer(i int) []byte { return append([]byte("newer "), c.p.body(i)...) }

func (c *clients) read(ctx context.Context, sdk *s3.Client, i int) {
	out, err := sdk.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String("moved-in"), Key: aws.String(c.p.key(i))})
	if err != nil {
		return // it is being killed
	}
	defer out.Body.Close()
	body, err := io.ReadAll(out.Body)
	if err != nil {
		return
	}
	c.reads.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if newer := bytes.Equal(body, c.newer(i)); !bytes.Equal(body, c.p.body(i)) && !(newer && c.written[i]) {
		c.w.t.Errorf("reading %q: got %d bytes that nobody wrote", c.p.key(i), len(body))
	}
}

// overwrite notes first what may be there.
func (c *clients) overwrite(ctx context.Context, sdk *s3.Client, i int) {
	c.mu.Lock()
	c.written[i] = true
	c.mu.Unlock()
	for ctx.Err() == nil {
		_, err := sdk.PutObject(ctx, plainHeaders(&s3.PutObjectInput{Bucket: aws.String("moved-in"), Key: aws.String(c.p.key(i)), Body: bytes.NewReader(c.newer(i))}))
		if err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// end returns the objects that may have been overwritten.
func (c *clients) end() map[int]bool {
	c.w.t.Helper()
	c.stop()
	c.running.Wait()
	if c.reads.Load() == 0 {
		c.w.t.Error("no read succeeded")
	}
	c.w.t.Logf("%d reads meanwhile, %d objects overwritten", c.reads.Load(), len(c.written))
	return c.written
}

// wantAdopted looks at every object in the cloud and through the gateway.
func (w *world) wantAdopted(p *plainBucket, overwritten map[int]bool) {
	w.t.Helper()
	versions := p.versions()
	gateway := w.sdk()
	p.each(func(ctx context.Context, i int) error {
		key := p.key(i)
		stored, err := p.cloud.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &p.name, Key: &key})
		if err != nil || stored.Metadata["cho1"] == "" || len(stored.Metadata) != 1 {
			return fmt.Errorf("is not sealed: %v, %w", stored.Metadata, err)
		}
		seen, err := gateway.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String("moved-in"), Key: &key})
		if err != nil {
			return err
		}
		defer seen.Body.Close()
		body, err := io.ReadAll(seen.Body)
		if err != nil || overwritten[i] {
			return err
		}
		if !bytes.Equal(body, p.body(i)) || versions[key] != 2 {
			return fmt.Errorf("got %d bytes in %d versions, want the plaintext one and one more", len(body), versions[key])
		}
		return sameHeaders(seen, p.body(i))
	})
}

func sameHeaders(out *s3.GetObjectOutput, body []byte) error {
	want := plainHeaders(&s3.PutObjectInput{})
	got := []string{
		aws.ToString(out.ContentType), aws.ToString(out.ContentEncoding), aws.ToString(out.ContentLanguage), aws.ToString(out.ContentDisposition),
		aws.ToString(out.CacheControl), fmt.Sprint(out.Metadata), fmt.Sprint(aws.ToInt32(out.TagCount)), aws.ToString(out.ETag),
	}
	wanted := []string{
		*want.ContentType, *want.ContentEncoding, *want.ContentLanguage, *want.ContentDisposition,
		*want.CacheControl, fmt.Sprint(want.Metadata), "1", fmt.Sprintf(`"%x"`, md5.Sum(body)),
	}
	if fmt.Sprint(got) != fmt.Sprint(wanted) {
		return fmt.Errorf("got %q, want %q", got, wanted)
	}
	return nil
}

// versions counts them by key.
func (p *plainBucket) versions() map[string]int {
	p.t.Helper()
	all := map[string]int{}
	pages := s3.NewListObjectVersionsPaginator(p.cloud, &s3.ListObjectVersionsInput{Bucket: &p.name, Prefix: aws.String("data/")})
	for pages.HasMorePages() {
		page, err := pages.NextPage(p.t.Context())
		if err != nil {
			p.t.Fatal(err)
		}
		for _, v := range page.Versions {
			all[*v.Key]++
		}
	}
	return all
}

// wantRecord verifies the signed record as an auditor would.
func (w *world) wantRecord(p *plainBucket, signed string) {
	w.t.Helper()
	s, by, err := kms.VerifyAdoption([]byte(signed))
	if err != nil {
		w.t.Fatal(err)
	}
	if s.Bucket != "moved-in" || s.StoreName != p.name || s.Told.Problems != 0 || s.Told.Sealed+s.Told.Already < uint64(p.n) || s.Told.OldVersions != uint64(p.n) {
		w.t.Errorf("the record says %+v", s)
	}
	file := filepath.Join(w.t.TempDir(), "record.json")
	if err := os.WriteFile(file, []byte(signed), 0o600); err != nil {
		w.t.Fatal(err)
	}
	out, err := exec.CommandContext(w.t.Context(), product, "report", "verify", file, "--key", kms.Fingerprint(by.Key)).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "moved-in") {
		w.t.Errorf("verifying the record: %v: %s", err, out)
	}
}

// TestAPlaintextObjectAfterAdoptionIsAnError: the cloud, or whoever has its credentials,
// puts plaintext in the place of a sealed object, and while it goes on, beside those of
// the beginning.
func TestAPlaintextObjectAfterAdoptionIsAnError(t *testing.T) {
	large(t)
	p := newPlainBucket(t, 3)
	w := newWorld(t, onMinIO(t))
	out, err := w.bucketCommand("adopt", "moved-in", "--owner", "first-user", "--store-name", p.name)
	if err != nil || !strings.Contains(out, "done") {
		t.Fatalf("%v: %s", err, out)
	}
	key := p.key(1)
	if _, err := p.cloud.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &p.name, Key: &key, Body: bytes.NewReader(p.body(1))}); err != nil {
		t.Fatal(err)
	}
	if a := w.get("/moved-in/" + key); a.status != 500 || !strings.Contains(string(a.body), "not sealed by this gateway") {
		t.Errorf("got %d: %s", a.status, a.body)
	}
	if _, err := w.bucketCommand("adopt", "moved-in", "--store-name", p.name); err == nil || !strings.Contains(err.Error(), "is not adopted: what is in it is sealed") {
		t.Errorf("adopting it again: %v", err)
	}
	if _, err := w.bucketCommand("adopt", "nothing", "--owner", "first-user", "--store-name", "no-such-bucket"); err == nil || !strings.Contains(err.Error(), `has no bucket "no-such-bucket"`) {
		t.Errorf("adopting what is not there: %v", err)
	}
}
