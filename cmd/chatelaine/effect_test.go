package main

import (
	"strings"
	"testing"
)

func TestACanaryIsShownForEachGateway(t *testing.T) {
	t.Parallel()
	s := newSite(t, "--kek", "softkey")
	out := s.run(t, 0, "key", "canary").out.String()
	if lines := strings.Count(out, "\n"); lines != 2 || !strings.Contains(out, "IN EFFECT AFTER") || !strings.Contains(out, "blocked") {
		t.Errorf("got %s", out)
	}
	if out := s.run(t, 0, "key", "canary", "--json").out.String(); !strings.Contains(out, `"complete": true`) {
		t.Errorf("got %s", out)
	}
}
