package main

import (
	"bytes"
	"encoding/json"
	"log"
	"strings"
	"testing"
)

func TestWhatLibrariesLogIsOneShortLine(t *testing.T) {
	var out bytes.Buffer
	logger, err := newLogger(&out, "info", "json", "gateway")
	if err != nil {
		t.Fatal(err)
	}
	text := "Unsolicited response \"x\n{\"level\":\"error\",\"msg\":\"forged\"}\n" + strings.Repeat("y", 100_000)
	log.New(foreignLines{logger}, "", 0).Print(text)
	if n := strings.Count(out.String(), "\n"); n != 1 || out.Len() > 2*maxForeignLine {
		t.Fatalf("got %d lines of %d bytes, want one short one", n, out.Len())
	}
	var line struct {
		Text   string
		Length int
	}
	if err := json.Unmarshal(out.Bytes(), &line); err != nil || line.Text != text[:maxForeignLine] || line.Length != len(text) {
		t.Errorf("got %+v and %v, want the first %d of %d bytes", line, err, maxForeignLine, len(text))
	}
}

func TestTheStandardLoggerWritesToTheLog(t *testing.T) {
	before, flags := log.Writer(), log.Flags()
	t.Cleanup(func() { log.SetOutput(before); log.SetFlags(flags) })
	var out bytes.Buffer
	logger, err := newLogger(&out, "info", "console", "kms")
	if err != nil {
		t.Fatal(err)
	}
	takeForeignLines(logger)
	log.Print("said by net/http")
	if !strings.Contains(out.String(), "kms.library") || !strings.Contains(out.String(), "said by net/http") {
		t.Errorf("got %q, want the line in the log", out.String())
	}
}
