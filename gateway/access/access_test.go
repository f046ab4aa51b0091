package access

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func TestOwnerMayDoEverythingAndNobodyElseAnything(t *testing.T) {
	tests := []struct {
		name string
		r    Request
		want error
	}{
		{"owner reads", Request{Principal: "ann", Action: "s3:GetObject", Bucket: "b", Owner: "ann"}, nil},
		{"stranger reads", Request{Principal: "bob", Action: "s3:GetObject", Bucket: "b", Owner: "ann"}, ErrDenied},
		{"nobody reads", Request{Action: "s3:GetObject", Bucket: "b", Owner: "ann"}, ErrDenied},
		{"nobody reads what nobody owns", Request{Action: "s3:GetObject", Bucket: "b"}, ErrDenied},
		{"a bucket without an owner", Request{Principal: "ann", Action: "s3:GetObject", Bucket: "b"}, ErrDenied},
		{"anyone lists buckets", Request{Principal: "bob", Action: "s3:ListAllMyBuckets"}, nil},
		{"anyone makes buckets", Request{Principal: "bob", Action: "s3:CreateBucket", Bucket: "c"}, nil},
		{"nobody makes buckets", Request{Action: "s3:CreateBucket", Bucket: "c"}, ErrDenied},
		{"an unknown action without a bucket", Request{Principal: "bob", Action: "s3:Everything"}, ErrDenied},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			tt.r.Source = netip.MustParseAddr("127.0.0.1")
			got := New(Default(), NewLog(&out)).Authorize(t.Context(), tt.r)
			if !errors.Is(got, tt.want) || (tt.want == nil) != (got == nil) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			if out.Len() == 0 {
				t.Error("the decision was not recorded")
			}
		})
	}
}

func TestDecisionsAreRecordedOneALine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	for range 2 { // the second opening goes on where the first ended
		log, closer, err := OpenLog(path)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				_ = New(Default(), log).Authorize(t.Context(), Request{
					Principal: "ann", AccessKey: "AK", Action: "s3:PutObject", Bucket: "b", Owner: "ann",
					Key: "a\nb\"", Source: netip.MustParseAddr("127.0.0.1"), RequestID: "r1",
				})
			})
		}
		wg.Wait()
		_ = closer.Close()
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))
	if len(lines) != 100 {
		t.Fatalf("got %d lines, want 100", len(lines))
	}
	for _, line := range lines {
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("reading %q: %v", line, err)
		}
		if e.Decision != "allow" || e.Key != "a\nb\"" || e.Source != "127.0.0.1" || e.Principal != "ann" {
			t.Fatalf("got %+v", e)
		}
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, want 0600", info.Mode().Perm())
	}
}

// fullDisk takes some bytes and then none.
type fullDisk struct {
	bytes.Buffer
	left int
}

func (d *fullDisk) Write(p []byte) (int, error) {
	n := min(len(p), d.left)
	d.left -= n
	d.Buffer.Write(p[:n])
	if n < len(p) {
		return n, io.ErrShortWrite
	}
	return n, nil
}

func TestWhatCannotBeRecordedIsRefused(t *testing.T) {
	for _, space := range []int{0, 10} {
		r := Request{Principal: "ann", Action: "s3:GetObject", Bucket: "b", Owner: "ann", Source: netip.MustParseAddr("127.0.0.1")}
		disk := &fullDisk{left: space}
		owners := New(Default(), NewLog(disk))
		for range 2 {
			if err := owners.Authorize(t.Context(), r); !errors.Is(err, ErrUnrecorded) {
				t.Errorf("with space for %d bytes: got %v, want ErrUnrecorded", space, err)
			}
		}
		disk.left = 1 << 20
		if err := owners.Authorize(t.Context(), r); err != nil {
			t.Errorf("once there is space again: got %v, want nil", err)
		}
		lines := bytes.Split(bytes.TrimSpace(disk.Bytes()), []byte("\n"))
		if last := lines[len(lines)-1]; !json.Valid(last) {
			t.Errorf("the line after a torn one does not read: %q", last)
		}
	}
}
