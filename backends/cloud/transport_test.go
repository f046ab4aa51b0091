package cloud

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

func TestAPeerThatStallsIsGivenUp(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/half" {
			w.Header().Set("Content-Length", "2")
			_, _ = io.WriteString(w, "1")
			_ = http.NewResponseController(w).Flush()
		}
		<-hang
	}))
	defer server.Close()
	defer close(hang)
	client := http.Client{Transport: NewTransport(20*time.Millisecond, time.Minute)}
	for name, c := range map[string]struct {
		path string
		body io.Reader
	}{
		"no answer":             {"/", nil},
		"half an answer":        {"/half", nil},
		"a body it never takes": {"/", io.LimitReader(endless{}, 1<<30)},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, server.URL+c.path, c.body)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(r)
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		if !isTimeout(err) {
			t.Errorf("%s: %v, want a timeout", name, err)
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestAPeerThatMovesMayTakeAsLongAsItLikes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer ours.Close()
		c := &conn{Conn: ours, stall: time.Second}
		send := func(pause time.Duration) {
			time.Sleep(pause)
			_, _ = theirs.Write([]byte("x"))
		}
		for range 10 {
			go send((patience + 1) * time.Second * 9 / 10)
			if _, err := c.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.Read(make([]byte, 1)); !isTimeout(err) {
			t.Errorf("a peer that sends nothing more: %v, want a timeout", err)
		}
		if _, err := c.Write([]byte("x")); !isTimeout(err) {
			t.Errorf("a peer that takes nothing: %v, want a timeout", err)
		}
	})
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.RedirectHandler("/again", http.StatusFound))
	defer server.Close()
	client := http.Client{Transport: NewTransport(time.Minute, time.Minute), CheckRedirect: NoRedirect}
	resp, err := client.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusFound {
		t.Errorf("status %d, want that of the redirect", resp.StatusCode)
	}
}
