package registry_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"chatelaine/kms"
	"chatelaine/kms/registry"
)

// childDir makes a run of this test binary the process that is killed.
const childDir = "CHATELAINE_TEST_REGISTRY_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		commitForEver(dir)
	}
	os.Exit(m.Run())
}

// commitForEver says on standard output what was acknowledged.
func commitForEver(dir string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := registry.Embed(ctx, registry.EmbedConfig{Dir: dir})
	for i := 0; err == nil; i++ {
		if err = s.Commit(ctx, put(fmt.Sprintf("n/%06d", i), strconv.Itoa(i))); err == nil {
			fmt.Println(i)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func TestWhatIsAcknowledgedSurvivesKill9(t *testing.T) {
	dir := t.TempDir()
	acknowledged := -1
	for range 2 {
		acknowledged = max(acknowledged, runUntilKilled(t, dir, 100))
		s, err := registry.Embed(t.Context(), registry.EmbedConfig{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		for i := range acknowledged + 1 {
			item, err := s.Get(t.Context(), fmt.Sprintf("n/%06d", i))
			if err != nil || string(item.Value) != strconv.Itoa(i) {
				t.Fatalf("record %d of %d: %q, %v", i, acknowledged, item.Value, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d acknowledged records survived", acknowledged+1)
}

// runUntilKilled kills the child after it acknowledged some records, and returns
// the last that it acknowledged.
func runUntilKilled(t *testing.T, dir string, records int) int {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), childDir+"="+dir)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	last := -1
	for lines := bufio.NewScanner(out); lines.Scan(); {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatal(err)
		}
		last = n
		if n == records {
			_ = child.Process.Kill()
		}
	}
	if err := child.Wait(); err == nil || last < records {
		t.Fatalf("the child ended by itself after %d records: %v", last, err)
	}
	return last
}

func TestEmbedSaysWhenTheDirectoryIsInUse(t *testing.T) {
	dir := t.TempDir()
	s, err := registry.Embed(t.Context(), registry.EmbedConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if !s.Exclusive() {
		t.Error("an embedded registry counts as shared")
	}
	if _, err := registry.Embed(t.Context(), registry.EmbedConfig{Dir: dir}); !errors.Is(err, registry.ErrLocked) {
		t.Errorf("got %v, want ErrLocked", err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %v to say so", took)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	embedded(t, dir)
}

func TestEmbedWorksInALongPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 40))
	commit(t, embedded(t, dir), put("a", "1"))
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v, want 0700", info.Mode().Perm(), err)
	}
}

func TestEmbedListensNowhere(t *testing.T) {
	before := listeners(t)
	embedded(t, t.TempDir())
	if after := listeners(t); after != before {
		t.Errorf("listening sockets of this process: %d before, %d after", before, after)
	}
	// The count itself works:
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if after := listeners(t); after != before+1 {
		t.Errorf("a listener is not counted: %d, want %d", after, before+1)
	}
}

// listeners counts the listening TCP and Unix sockets of this process.
func listeners(t *testing.T) int {
	t.Helper()
	listening := map[string]bool{}
	for file, columns := range map[string][3]string{
		"/proc/net/tcp": {"3", "0A", "9"}, "/proc/net/tcp6": {"3", "0A", "9"}, "/proc/net/unix": {"3", "00010000", "6"},
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		state, _ := strconv.Atoi(columns[0])
		inode, _ := strconv.Atoi(columns[2])
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) > max(state, inode) && fields[state] == columns[1] {
				listening["socket:["+fields[inode]+"]"] = true
			}
		}
	}
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && listening[target] {
			n++
		}
	}
	return n
}

func TestEmbedIsQuietAndQuick(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	began := time.Now()
	s, err := registry.Embed(t.Context(), registry.EmbedConfig{Dir: t.TempDir(), Logger: zap.New(core)})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("ready after %v", time.Since(began))
	commit(t, s, put("a", "1"))
	stopped := s.Stopped()
	select {
	case <-stopped:
		t.Error("it counts as stopped")
	default:
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	<-stopped
	for _, entry := range logs.All() {
		if entry.Level < zap.WarnLevel || strings.Contains(entry.Message, "single port") {
			t.Errorf("logged: %s %s", entry.Level, entry.Message)
		}
	}
	if _, err := s.Get(t.Context(), "a"); !errors.Is(err, kms.ErrUnavailable) {
		t.Errorf("after Close: got %v, want ErrUnavailable", err)
	}
}

func TestEmbedRefusesWhatItCannotUse(t *testing.T) {
	for _, c := range []registry.EmbedConfig{{}, {Dir: t.TempDir(), Quota: -1}} {
		if _, err := registry.Embed(t.Context(), c); !errors.Is(err, kms.ErrInvalid) {
			t.Errorf("%+v: got %v", c, err)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := registry.Embed(t.Context(), registry.EmbedConfig{Dir: file}); err == nil {
		t.Error("a file as directory: no error")
	}
}
