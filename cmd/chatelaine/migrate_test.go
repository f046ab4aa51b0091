package main

import (
	"strings"
	"testing"
)

func TestMigrationToNowhereSaysWhatThereIs(t *testing.T) {
	t.Parallel()
	run := administration(t)
	run(exitUsage, "key", "migrate", "main")
	if _, err := run(exitUsage, "key", "migrate", "main", "--to", "nowhere"); !strings.Contains(err, "there are") {
		t.Errorf("got %q", err)
	}
}
