//go:build unix && !linux

package main

import "syscall"

// childAttributes puts a process into a group of its own, so that Ctrl-C reaches its
// parent alone. A parent that is killed leaves it behind here.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
