package frontdoor

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// serveEnv makes the test's own program the gateway, in a process of its own: its
// memory is then the gateway's, and so are its files.
const serveEnv = "CHATELAINE_FRONTDOOR_SERVES"

// serve prints the gateway's address and serves until stdin ends.
func serve(out io.Writer, in io.Reader) error {
	s, err := listen(context.Background(), plan(io.Discard))
	if err != nil {
		return err
	}
	fmt.Fprintln(out, s.Addr())
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, in)
		cancel()
		_ = s.Close()
	}()
	_ = s.Serve(ctx)
	return nil
}

// TestMain is the gateway itself where serveEnv is set.
func TestMain(m *testing.M) {
	if os.Getenv(serveEnv) == "" {
		os.Exit(m.Run())
	}
	if err := serve(os.Stdout, os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// apart starts the gateway in a process of its own, which ends with the test.
func apart(t *testing.T) (w *world, pid int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env, cmd.Stderr = append(os.Environ(), serveEnv+"=1"), os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, addr: strings.TrimSpace(line)}, cmd.Process.Pid
}

// TestTenThousandIdleConnections opens as many as the limit on files lets each of two
// processes have, up to 10,000: half have said nothing yet, half have had an answer.
func TestTenThousandIdleConnections(t *testing.T) {
	const each = 64 << 10 // bytes of memory for a connection, at most
	n := 10_000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	n = min(n, int(limit.Cur)-500)
	if n < 400 {
		t.Fatalf("the limit of %d files leaves no room for connections", limit.Cur)
	}
	w, pid := apart(t)
	w.wants(shot{method: "PUT", path: "/" + bucket}, 200, "")
	w.wants(shot{method: "PUT", path: "/" + bucket + "/kept", body: kept}, 200, "")
	before := resident(t, pid)
	asked := shot{method: "GET", path: "/" + bucket + "/kept", open: true}.text()
	conns := make([]net.Conn, n)
	for i := range conns {
		conns[i] = w.idle(i)
		if i%2 == 0 {
			_, _ = io.WriteString(conns[i], asked)
		}
	}
	for i := 0; i < n; i += 2 {
		if _, err := conns[i].Read(make([]byte, 4<<10)); err != nil {
			t.Fatalf("connection %d of %d: %v", i, n, err)
		}
	}
	w.unchanged()
	grown := resident(t, pid) - before
	t.Logf("%d connections: %d MiB, %d KiB each", n, grown>>20, grown/n>>10)
	if grown/n > each {
		t.Errorf("%d idle connections take %d bytes each, want at most %d", n, grown/n, each)
	}
}

// idle opens a connection that stays.
func (w *world) idle(i int) net.Conn {
	w.t.Helper()
	dialer := net.Dialer{Timeout: 30 * time.Second}
	conn, err := dialer.DialContext(w.t.Context(), "tcp", w.addr)
	if err != nil {
		w.t.Fatalf("connection %d: %v", i, err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	return conn
}

// resident is a process's memory in bytes.
func resident(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skipf("the memory of a process is asked of Linux: %v", err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		t.Fatal("no VmRSS")
	}
	kib, err := strconv.Atoi(fields[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}
