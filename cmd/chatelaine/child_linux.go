package main

import "syscall"

// childAttributes puts a process into a group of its own, so that Ctrl-C reaches its
// parent alone, which ends things in order; and ends it with its parent, however that
// one ends.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
