package server

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// start serves until the test ends or stop is called; stopped yields Serve's error.
func start(t *testing.T, config Config) (s *Server, stop func(), stopped <-chan error) {
	t.Helper()
	config.Address = "127.0.0.1:0"
	s, err := New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() { cancel(); _ = s.Close() })
	return s, cancel, done
}

func hello(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }

func TestServesUntilStoppedThenRefuses(t *testing.T) {
	s, stop, stopped := start(t, Config{Handler: http.HandlerFunc(hello)})
	url := "http://" + s.Addr().String()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(res.Body); string(body) != "hello" || res.ProtoMajor != 1 {
		t.Errorf("got %q over %s", body, res.Proto)
	}
	stop()
	if err := <-stopped; err != nil {
		t.Errorf("Serve: got %v, want nil", err)
	}
	if _, err := http.Get(url); err == nil {
		t.Error("a stopped server answered")
	}
}

func TestPortInUseIsAClearError(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, err = New(t.Context(), Config{Name: "s3", Address: taken.Addr().String()})
	if err == nil || !strings.Contains(err.Error(), taken.Addr().String()) || !strings.Contains(err.Error(), "another program") {
		t.Errorf("got %v, want an error that names the address and says what to do", err)
	}
}

func TestStopLetsARunningRequestEnd(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	s, stop, stopped := start(t, Config{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-leave
		hello(w, nil)
	})})
	answer := make(chan string, 1)
	go func() {
		res, err := http.Get("http://" + s.Addr().String())
		if err != nil {
			answer <- err.Error()
			return
		}
		body, _ := io.ReadAll(res.Body)
		answer <- string(body)
	}()
	<-entered
	stop()
	select {
	case err := <-stopped:
		t.Fatalf("Serve returned (%v) before the request had ended", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(leave)
	if got := <-answer; got != "hello" {
		t.Errorf("the running request got %q", got)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Serve: got %v, want nil", err)
	}
}

func TestStopCutsARequestThatOutlivesTheDrain(t *testing.T) {
	entered := make(chan struct{})
	s, stop, stopped := start(t, Config{
		Drain: 50 * time.Millisecond,
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(entered)
			<-r.Context().Done()
		}),
	})
	failed := make(chan error, 1)
	go func() {
		_, err := http.Get("http://" + s.Addr().String())
		failed <- err
	}()
	<-entered
	stop()
	if err := <-stopped; err != nil {
		t.Errorf("Serve: got %v, want nil", err)
	}
	if err := <-failed; err == nil {
		t.Error("the request that was cut got an answer")
	}
}

func TestSlowHeaderIsCutAndSlowBodyIsNot(t *testing.T) {
	s, _, _ := start(t, Config{
		ReadHeader: 100 * time.Millisecond,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(w, r.Body)
		}),
	})
	slow := dial(t, s)
	if _, err := io.WriteString(slow, "GET / HTTP/1.1\r\nHost:"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(slow); err != nil {
		t.Errorf("slow header: got %v, want the server to close the connection", err)
	}
	body := dial(t, s)
	_, _ = io.WriteString(body, "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na")
	time.Sleep(250 * time.Millisecond)
	_, _ = io.WriteString(body, "b")
	res, err := http.ReadResponse(bufio.NewReader(body), nil)
	if err != nil {
		t.Fatalf("slow body: %v", err)
	}
	if got, _ := io.ReadAll(res.Body); string(got) != "ab" {
		t.Errorf("slow body: got %q", got)
	}
}

func TestIdleConnectionIsClosed(t *testing.T) {
	s, _, _ := start(t, Config{Idle: 50 * time.Millisecond, Handler: http.HandlerFunc(hello)})
	conn := dial(t, s)
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if got, err := io.ReadAll(conn); err != nil || !strings.Contains(string(got), "hello") {
		t.Errorf("got %q, %v, want an answer and then the end", got, err)
	}
}

func TestLongHeaderIsRefused(t *testing.T) {
	s, _, _ := start(t, Config{MaxHeader: 1 << 10, Handler: http.HandlerFunc(hello)})
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Addr().String(), nil)
	req.Header.Set("X-Long", strings.Repeat("x", 16<<10))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %s", res.Status)
	}
}

func TestPanicsAreLoggedAsErrorsAndScannersAreNot(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	s, _, _ := start(t, Config{Logger: zap.New(core), Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		panic("boom")
	})})
	if _, err := http.Get("http://" + s.Addr().String()); err == nil {
		t.Error("a panic gave an answer")
	}
	if n := logs.FilterLevelExact(zap.ErrorLevel).FilterMessage("request handler panicked").Len(); n != 1 {
		t.Errorf("got %d error lines, want 1: %v", n, logs.All())
	}
	if _, err := errorLog(zap.New(core)).Writer().Write([]byte("http: TLS handshake error from x: EOF")); err != nil {
		t.Error(err)
	}
	if n := logs.FilterLevelExact(zap.DebugLevel).FilterMessage("handshake failed").Len(); n != 1 {
		t.Errorf("got %d debug lines, want 1: %v", n, logs.All())
	}
}

func TestAListenerThatFailsIsAnError(t *testing.T) {
	s, _, stopped := start(t, Config{Handler: http.HandlerFunc(hello)})
	_ = s.listener.Close()
	if err := <-stopped; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want %v", err, net.ErrClosed)
	}
}

func dial(t *testing.T, s *Server) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn
}
