//go:build !linux

package compat

import "testing"

func s3fs(t *testing.T, _ account, _ string) {
	t.Skip("s3fs is mounted on Linux only")
}
