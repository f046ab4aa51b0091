package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"chatelaine/test/e2e/harness"
)

// guarded makes a bucket with the rollback guard, as an administrator does.
func (w *world) guarded() string {
	w.t.Helper()
	name := newName()
	if out, err := w.bucketCommand("create", name, "--owner", "first-user", "--rollback-guard"); err != nil || !strings.Contains(out, "on") {
		w.t.Fatalf("%s: %v", out, err)
	}
	return name
}

// copyOf copies the cloud's files elsewhere, as they are.
func (w *world) copyOf() string {
	w.t.Helper()
	dir := filepath.Join(w.t.TempDir(), "copy")
	if err := os.CopyFS(dir, os.DirFS(w.cloud.dir)); err != nil {
		w.t.Fatal(err)
	}
	return dir
}

// becomes has the cloud be as it was when it was copied.
func (w *world) becomes(dir string) {
	w.t.Helper()
	entries, err := os.ReadDir(w.cloud.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(w.cloud.dir, e.Name())); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := os.CopyFS(w.cloud.dir, os.DirFS(dir)); err != nil {
		w.t.Fatal(err)
	}
}

// TestACloudThatIsRolledBackIsFoundOut takes a copy of the whole cloud, lets an hour's
// work happen, and puts the copy back.
func TestACloudThatIsRolledBackIsFoundOut(t *testing.T) {
	w := newWorld(t, cloud{})
	bucket, plain := "/"+w.guarded(), "/"+w.bucket()
	old, now := contentBytes(1, 40000), contentBytes(2, 40000)
	for _, b := range []string{bucket, plain} {
		w.put(b+"/written", old).want(http.StatusOK)
		w.put(b+"/deleted", old).want(http.StatusOK)
		w.put(b+"/same", old).want(http.StatusOK)
	}
	was := w.copyOf()
	for _, b := range []string{bucket, plain} {
		w.put(b+"/written", now).want(http.StatusOK)
		w.put(b+"/new", now).want(http.StatusOK)
		w.do(harness.Request{Method: http.MethodDelete, Path: b + "/deleted"}).want(http.StatusNoContent)
	}
	is := w.copyOf()
	w.becomes(was)
	for _, key := range []string{"/written", "/deleted", "/new"} {
		if a := w.get(bucket + key).want(http.StatusInternalServerError); a.code() != "InternalError" || bytes.Contains(a.body, old[:16]) {
			t.Errorf("%s: got %.300s", key, a.body)
		}
		w.do(harness.Request{Method: http.MethodHead, Path: bucket + key}).want(http.StatusInternalServerError)
	}
	if a := w.get(bucket + "/same").want(http.StatusOK); !bytes.Equal(a.body, old) {
		t.Error("what is as it was cannot be read")
	}
	if a := w.get(plain + "/written").want(http.StatusOK); !bytes.Equal(a.body, old) {
		t.Error("the attack is none that a guard must find")
	}
	w.get(plain + "/new").want(http.StatusNotFound)
	if !strings.Contains(w.Stderr(), "the rollback guard has found") {
		t.Error("the log does not say so")
	}
	w.becomes(is)
	if a := w.get(bucket + "/written").want(http.StatusOK); !bytes.Equal(a.body, now) {
		t.Error("the true version is not readable")
	}
	w.get(bucket + "/deleted").want(http.StatusNotFound)
	w.becomes(was)
	if out, err := w.bucketCommand("set", bucket[1:], "--rollback-guard", "off", "--reason", "a test"); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	if a := w.get(bucket + "/written").want(http.StatusOK); !bytes.Equal(a.body, old) {
		t.Error("with the guard off, it guards")
	}
	w.killedWhileItWrites()
}

// killedWhileItWrites has the product killed, -9, while many overwrite few objects of a
// guarded bucket: nothing that was acknowledged is lost, and everything is readable.
func (w *world) killedWhileItWrites() {
	w.t.Helper()
	bucket := w.guarded()
	var mu sync.Mutex
	acknowledged, sent := map[string]int{}, map[string]int{}
	var writers sync.WaitGroup
	stop := make(chan struct{})
	for i := range 6 {
		key := fmt.Sprintf("/%s/%d", bucket, i)
		writers.Go(func() {
			for n := 1; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				mu.Lock()
				sent[key] = n
				mu.Unlock()
				body := contentBytes(uint64(n), 1000)
				a, err := trySend(w.t, w.client(), harness.Request{Method: http.MethodPut, Path: key, Body: bytes.NewReader(body), Size: 1000})
				if err != nil || a.status != http.StatusOK {
					return // it is dead
				}
				mu.Lock()
				acknowledged[key] = n
				mu.Unlock()
			}
		})
	}
	time.Sleep(700 * time.Millisecond)
	w.Kill()
	close(stop)
	writers.Wait()
	w.up()
	total := 0
	for key, last := range acknowledged {
		a := w.get(key).want(http.StatusOK)
		if !bytes.Equal(a.body, contentBytes(uint64(last), 1000)) && !bytes.Equal(a.body, contentBytes(uint64(sent[key]), 1000)) {
			w.t.Errorf("%s: what was acknowledged is lost", key)
		}
		w.put(key, a.body).want(http.StatusOK)
		w.get(key).want(http.StatusOK)
		total += last
	}
	if total == 0 {
		w.t.Error("nothing was written before the end")
	}
}
