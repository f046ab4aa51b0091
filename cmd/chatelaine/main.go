// Command chatelaine keeps the keys, and the plaintext, of S3 objects at home while
// their sealed bytes lie in any cloud.
//
// This package reads flags and configuration and wires the parts together. It
// refuses to know what the parts do.
package main

import "os"

// version is set when it is built (-ldflags '-X main.version=...').
var version = "development"

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}
