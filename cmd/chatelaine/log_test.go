package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/zap"
)

func TestWhatLibrariesLogIsOneShortLine(t *testing.T) {
	var out bytes.Buffer
	logger, err := newLogger(&out, "info", "json", "gateway")
	if err != nil {
		t.Fatal(err)
	}
	text := "Unsolicited response \"x\n{\"level\":\"error\",\"msg\":\"forged\"}\n" + strings.Repeat("y", 100_000)
	zap.NewStdLog(foreign(logger)).Print(text)
	if n := strings.Count(out.String(), "\n"); n != 1 || out.Len() > 2*maxForeignLine {
		t.Fatalf("got %d lines of %d bytes, want one short one", n, out.Len())
	}
	var line struct {
		Msg    string
		Length int
	}
	if err := json.Unmarshal(out.Bytes(), &line); err != nil || line.Msg != text[:maxForeignLine] || line.Length != len(text) {
		t.Errorf("got %+v and %v, want the first %d of %d bytes", line, err, maxForeignLine, len(text))
	}
}

func TestWhatNetHTTPLogsIsInTheLog(t *testing.T) {
	var out bytes.Buffer
	logger, err := newLogger(&out, "info", "console", "kms")
	if err != nil {
		t.Fatal(err)
	}
	restore, err := takeForeignLines(logger)
	if err != nil {
		t.Fatal(err)
	}
	defer restore()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
		w.WriteHeader(http.StatusOK)
	}))
	resp, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	server.Close()
	if !strings.Contains(out.String(), "kms.library") || !strings.Contains(out.String(), "superfluous") {
		t.Errorf("got %q, want the line in the log", out.String())
	}
}
