package e2e

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/backends/filestore"
	"chatelaine/backends/memstore"
	"chatelaine/gateway"
	"chatelaine/gateway/access"
	"chatelaine/gateway/keys/keystest"
	"chatelaine/gateway/sealed"
	"chatelaine/test/e2e/harness"
)

// nonces remembers each pair of key and nonce that something was sealed with. It is
// shared by all gateways of a test: a pair may not repeat between replicas either.
type nonces struct {
	mu       sync.Mutex
	seen     map[[sha256.Size]byte]bool
	repeated int // panics in a handler end in a log that nobody reads
}

func newNonces() *nonces { return &nonces{seen: map[[sha256.Size]byte]bool{}} }

// newAEAD is AES-256-GCM that panics when it is to seal a second time with a pair.
func (n *nonces) newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &watched{gcm, sha256.Sum256(key), n}, nil
}

type watched struct {
	cipher.AEAD
	key    [sha256.Size]byte
	nonces *nonces
}

// Seal implements cipher.AEAD.
func (w *watched) Seal(dst, nonce, plaintext, data []byte) []byte {
	pair := sha256.Sum256(append(w.key[:], nonce...))
	w.nonces.mu.Lock()
	again := w.nonces.seen[pair]
	w.nonces.seen[pair] = true
	if again {
		w.nonces.repeated++
	}
	w.nonces.mu.Unlock()
	if again {
		panic("a nonce is used twice with one key")
	}
	return w.AEAD.Seal(dst, nonce, plaintext, data)
}

func TestTheWatchedAEADPanicsWhenAPairRepeats(t *testing.T) {
	n := newNonces()
	key, nonce := bytes.Repeat([]byte{1}, 32), make([]byte, 12)
	seal := func(key, nonce []byte) (panicked bool) {
		defer func() { panicked = recover() != nil }()
		aead, err := n.newAEAD(key) // another instance each time, as in another process
		if err != nil {
			t.Fatal(err)
		}
		aead.Seal(nil, nonce, []byte("text"), nil)
		return false
	}
	other := bytes.Repeat([]byte{2}, 32)
	for i, tt := range []struct {
		key, nonce []byte
		want       bool
	}{{key, nonce, false}, {other, nonce, false}, {key, []byte("another one."), false}, {key, nonce, true}} {
		if got := seal(tt.key, tt.nonce); got != tt.want {
			t.Errorf("seal %d: got panic %t, want %t", i, got, tt.want)
		}
	}
	if n.repeated != 1 {
		t.Errorf("got %d repetitions counted, want 1", n.repeated)
	}
}

// watchedGateways are replicas in this process, with a client for each.
func watchedGateways(t *testing.T, n *nonces, store backends.Store, count int) []*s3.Client {
	t.Helper()
	ring, user := keystest.New(), harness.NewCredentials()
	ring.AddUser(user.AccessKeyID, user.SecretAccessKey, "somebody")
	clients := make([]*s3.Client, count)
	for i := range clients {
		g, err := gateway.New(gateway.Config{
			Keys: readyRing{ring}, Stores: map[string]backends.Store{"main": store}, DefaultStore: "main",
			Authorizer: access.New(access.Default(), access.NewLog(io.Discard)), Region: "us-east-1",
			Metrics: prometheus.NewRegistry(), Logger: zap.NewNop(), Suite: sealed.Suite{NewAEAD: n.newAEAD},
		})
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewServer(g.S3())
		t.Cleanup(server.Close)
		clients[i] = sdkClient(server.URL, user, server.Client())
	}
	return clients
}

// readyRing is a keyring that is always ready.
type readyRing struct{ *keystest.Ring }

func (readyRing) Ready(context.Context) error { return nil }

func TestNoNonceIsUsedTwice(t *testing.T) {
	files, err := filestore.New(filestore.Config{Root: t.TempDir(), Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	for name, store := range map[string]backends.Store{"memstore": memstore.New(), "filestore": files} {
		t.Run(name, func(t *testing.T) {
			n := newNonces()
			s := &sealing{t: t, clients: watchedGateways(t, n, store, 2), bucket: newName()}
			s.run()
			if n.repeated > 0 {
				t.Errorf("%d seals with a pair that had been used", n.repeated)
			}
			if len(n.seen) < 2000 {
				t.Errorf("got %d seals, want thousands: the AEAD is not the one that is used", len(n.seen))
			}
			t.Logf("%d seals", len(n.seen))
		})
	}
}

// sealing does all that seals anything, again and again with the same content, names
// and part numbers.
type sealing struct {
	t       *testing.T
	clients []*s3.Client
	bucket  string
}

func (s *sealing) run() {
	if _, err := s.clients[0].CreateBucket(s.t.Context(), &s3.CreateBucketInput{Bucket: &s.bucket}); err != nil {
		s.t.Fatal(err)
	}
	var wait sync.WaitGroup
	for worker := range 4 {
		wait.Go(func() { s.puts(worker) })
	}
	wait.Go(func() { s.failingPuts() })
	for upload := range 2 {
		wait.Go(func() { s.upload(fmt.Sprintf("uploaded-%d", upload)) })
	}
	wait.Wait()
}

// puts stores the same content under the same name, which is what a retry does.
func (s *sealing) puts(worker int) {
	for i, size := range []int{0, 1, 16384, 1 << 20, 0, 16384, 3<<20 + 5, 1, 1 << 20} {
		client := s.clients[(worker+i)%2]
		body := contentBytes(1, size)
		_, err := client.PutObject(s.t.Context(), &s3.PutObjectInput{
			Bucket: &s.bucket, Key: aws.String("same"), Body: bytes.NewReader(body), Metadata: map[string]string{"note": "same"},
		})
		if err != nil {
			s.t.Error(err)
		}
	}
}

// failingPuts are refused at the end of their bodies, when all but the last batch has
// been sealed, and then come again.
func (s *sealing) failingPuts() {
	body := contentBytes(1, 4<<20)
	for i := range 6 {
		in := &s3.PutObjectInput{Bucket: &s.bucket, Key: aws.String("same"), Body: bytes.NewReader(body)}
		in.ChecksumCRC32 = aws.String("AAAAAA==")
		if _, err := s.clients[i%2].PutObject(s.t.Context(), in); err == nil || !strings.Contains(err.Error(), "BadDigest") {
			s.t.Errorf("a wrong checksum: got %v, want BadDigest", err)
		}
	}
}

// upload sends each part three times through both replicas, once with other bytes.
func (s *sealing) upload(key string) {
	in := &s3.CreateMultipartUploadInput{Bucket: &s.bucket, Key: &key}
	created, err := s.clients[0].CreateMultipartUpload(s.t.Context(), in)
	if err != nil {
		s.t.Error(err)
		return
	}
	var parts []types.CompletedPart
	var whole []byte
	for number, size := range map[int32]int{1: 5 << 20, 2: 6<<20 + 1, 3: 100_000} {
		for i, seed := range []uint64{9, 7, 9} {
			part, err := s.clients[i%2].UploadPart(s.t.Context(), &s3.UploadPartInput{
				Bucket: &s.bucket, Key: &key, UploadId: created.UploadId, PartNumber: &number, Body: bytes.NewReader(contentBytes(seed, size)),
			})
			if err != nil {
				s.t.Errorf("part %d: %v", number, err)
				return
			}
			if i == 2 {
				parts = append(parts, types.CompletedPart{PartNumber: aws.Int32(number), ETag: part.ETag, ChecksumCRC32: part.ChecksumCRC32})
			}
		}
	}
	sortParts(parts)
	for _, size := range []int{5 << 20, 6<<20 + 1, 100_000} {
		whole = append(whole, contentBytes(9, size)...)
	}
	s.complete(key, created.UploadId, parts, whole)
}

func sortParts(parts []types.CompletedPart) {
	for i := range parts {
		for j := range parts[:i] {
			if *parts[i].PartNumber < *parts[j].PartNumber {
				parts[i], parts[j] = parts[j], parts[i]
			}
		}
	}
}

func (s *sealing) complete(key string, id *string, parts []types.CompletedPart, want []byte) {
	_, err := s.clients[1].CompleteMultipartUpload(s.t.Context(), &s3.CompleteMultipartUploadInput{
		Bucket: &s.bucket, Key: &key, UploadId: id, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	})
	if err != nil {
		s.t.Error(err)
		return
	}
	got, err := s.clients[0].GetObject(s.t.Context(), &s3.GetObjectInput{Bucket: &s.bucket, Key: &key})
	if err != nil {
		s.t.Error(err)
		return
	}
	defer got.Body.Close()
	if err := sameBytes(got.Body, bytes.NewReader(want)); err != nil {
		s.t.Error(err)
	}
}
