package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"chatelaine/test/e2e/harness"
)

// TestReplicasTakeTurnsOnOneUpload sends each part to the other replica, some parts
// again with other bytes, and has the upload completed by one that has seen only half.
func TestReplicasTakeTurnsOnOneUpload(t *testing.T) {
	for name, make := range clouds() {
		t.Run(name, func(t *testing.T) {
			k := newCluster(t, make(t), 2)
			bucket := k.bucket()
			for _, last := range []int{700_000, 6 << 20} { // one is staged, one is a part of its own
				u := &turns{cluster: k, path: fmt.Sprintf("/%s/last-%d", bucket, last), parts: map[int][]byte{}}
				u.run(t, last)
			}
		})
	}
}

// turns is an upload whose requests go to one replica after another.
type turns struct {
	*cluster
	path  string
	id    string
	turn  int
	parts map[int][]byte
	etags map[int]string
	seed  uint64
}

// next has the other replica answer.
func (u *turns) next(r harness.Request) *answer {
	u.t.Helper()
	u.turn++
	r.Path = u.path
	return u.send(u.turn, r)
}

func (u *turns) put(number, size int) {
	u.t.Helper()
	u.seed++
	piece := contentBytes(u.seed, size)
	a := u.next(harness.Request{
		Method: http.MethodPut, Body: bytes.NewReader(piece), Size: int64(size),
		Query: url.Values{"partNumber": {fmt.Sprint(number)}, "uploadId": {u.id}},
	}).want(200)
	u.parts[number], u.etags[number] = piece, a.header.Get("ETag")
}

func (u *turns) run(t *testing.T, last int) {
	u.etags = map[int]string{}
	created := u.next(harness.Request{Method: http.MethodPost, Query: url.Values{"uploads": {""}}}).want(200)
	u.id = between(string(created.body), "<UploadId>", "</UploadId>")
	numbers := []int{1, 2, 5, 9} // gaps are allowed
	for _, n := range []int{2, 1, 9, 5} {
		size := 5<<20 + n
		if n == 9 {
			size = last
		}
		u.put(n, size)
		u.put(n, size) // again, by the other replica, with other bytes
	}
	stale := u.etags[1]
	u.put(1, 5<<20)

	listed := u.next(harness.Request{Method: http.MethodGet, Query: url.Values{"uploadId": {u.id}}}).want(200)
	for _, n := range numbers {
		if want := fmt.Sprintf("<Size>%d</Size>", len(u.parts[n])); !strings.Contains(string(listed.body), want) {
			t.Errorf("ListParts: got no %s: %s", want, listed.body)
		}
	}
	fresh := u.etags[1]
	u.etags[1] = stale
	if a := u.complete(numbers); a.code() != "InvalidPart" {
		t.Errorf("completing with the ETag of a part that was replaced: got %d %s, want InvalidPart", a.status, a.code())
	}
	u.etags[1] = fresh
	u.complete(numbers).want(200)
	u.assertWhole(numbers)
}

func (u *turns) complete(numbers []int) *answer {
	u.t.Helper()
	var list strings.Builder
	list.WriteString("<CompleteMultipartUpload>")
	for _, n := range numbers {
		fmt.Fprintf(&list, "<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", n, u.etags[n])
	}
	list.WriteString("</CompleteMultipartUpload>")
	return u.next(harness.Request{
		Method: http.MethodPost, Body: strings.NewReader(list.String()), Size: int64(list.Len()), Query: url.Values{"uploadId": {u.id}},
	})
}

// assertWhole reads the object, and a range across a seam, through each replica.
func (u *turns) assertWhole(numbers []int) {
	u.t.Helper()
	var whole []byte
	for _, n := range numbers {
		whole = append(whole, u.parts[n]...)
	}
	for range u.replicas {
		if got := u.next(harness.Request{Method: http.MethodGet}).want(200); !bytes.Equal(got.body, whole) {
			u.t.Errorf("%s: got %d bytes, want these %d", u.path, len(got.body), len(whole))
		}
		seam := len(u.parts[1])
		got := u.next(harness.Request{Method: http.MethodGet, Header: http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", seam-10, seam+9)}}}).want(206)
		if !bytes.Equal(got.body, whole[seam-10:seam+10]) {
			u.t.Errorf("%s: the range across a seam differs", u.path)
		}
	}
}

// TestOneOfManyCreatesWins races If-None-Match: * through two replicas.
func TestOneOfManyCreatesWins(t *testing.T) {
	for name, make := range clouds() {
		t.Run(name, func(t *testing.T) {
			k := newCluster(t, make(t), 2)
			bucket := k.bucket()
			for round := range 8 {
				raceToCreate(t, k, fmt.Sprintf("/%s/race-%d", bucket, round))
			}
		})
	}
}

func raceToCreate(t *testing.T, k *cluster, path string) {
	const racers = 12
	answers := make([]*answer, racers)
	var wait sync.WaitGroup
	for i := range racers {
		wait.Go(func() {
			answers[i], _ = trySend(t, k.replicas[i%2].client, harness.Request{
				Method: http.MethodPut, Path: path, Header: http.Header{"If-None-Match": {"*"}},
				Body: content(uint64(i), 20_000), Size: 20_000,
			})
		})
	}
	wait.Wait()
	winner := -1
	for i, a := range answers {
		switch {
		case a == nil:
			t.Fatalf("racer %d got no answer", i)
		case a.status == http.StatusOK && winner >= 0:
			t.Errorf("%s: both %d and %d have won", path, winner, i)
		case a.status == http.StatusOK:
			winner = i
		case a.code() != "PreconditionFailed" && a.code() != "ConditionalRequestConflict":
			t.Errorf("%s: a loser got %d %s", path, a.status, a.code())
		}
	}
	if winner < 0 {
		t.Fatalf("%s: nobody has won", path)
	}
	for i := range k.replicas {
		if got := k.send(i, harness.Request{Method: http.MethodGet, Path: path}).want(200); !bytes.Equal(got.body, contentBytes(uint64(winner), 20_000)) {
			t.Errorf("%s: the bytes are not the winner's", path)
		}
	}
}

// TestWithoutTheKMSALeaseServesAWhileAndThenNothing kills the KMS. Nobody starts it
// again but the test.
func TestWithoutTheKMSALeaseServesAWhileAndThenNothing(t *testing.T) {
	k := newCluster(t, cloud{}, 1)
	path := "/" + k.bucket() + "/object"
	body := contentBytes(1, 100_000)
	get := harness.Request{Method: http.MethodGet, Path: path}
	k.send(0, harness.Request{Method: http.MethodPut, Path: path, Body: bytes.NewReader(body), Size: int64(len(body))}).want(200)
	k.send(0, get).want(200)

	killed := time.Now()
	k.kms.Kill()
	if got := k.send(0, get).want(200); !bytes.Equal(got.body, body) {
		t.Errorf("under the lease: got %d other bytes", len(got.body))
	}
	for k.send(0, get).status == http.StatusOK {
		if time.Since(killed) > lease+2*time.Second {
			t.Fatalf("keys are used %v after the KMS has gone; the lease is %v", time.Since(killed), lease)
		}
		time.Sleep(50 * time.Millisecond)
	}
	refused := k.send(0, get).want(http.StatusServiceUnavailable)
	if refused.header.Get("Retry-After") == "" {
		t.Errorf("the answer does not say when to come back: %v", refused.header)
	}
	if err := k.replicas[0].ready(t.Context()); err == nil {
		t.Error("/readyz says that S3 can be served")
	}
	k.send(0, harness.Request{Method: http.MethodPut, Path: path, Body: strings.NewReader("new"), Size: 3}).want(http.StatusServiceUnavailable)

	k.startKMS()
	if err := k.replicas[0].Await(t.Context(), stopPatience, k.replicas[0].ready); err != nil {
		t.Fatal(err)
	}
	if got := k.send(0, get).want(200); !bytes.Equal(got.body, body) {
		t.Errorf("with the KMS back: got %d other bytes", len(got.body))
	}
}
