package service

import (
	"errors"
	"fmt"
	"net"
	"os/user"
	"strconv"
	"syscall"
)

// userOf names the user at the other end of a Unix socket, as whom it was connected
// (SO_PEERCRED, unix(7)); by number where the number has no name.
func userOf(conn *net.UnixConn) (string, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return "", fmt.Errorf("service: asking who called: %w", err)
	}
	var credentials *syscall.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		credentials, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err := errors.Join(err, failed); err != nil {
		return "", fmt.Errorf("service: asking who called: %w", err)
	}
	uid := strconv.FormatUint(uint64(credentials.Uid), 10)
	if known, err := user.LookupId(uid); err == nil {
		return known.Username, nil
	}
	return uid, nil
}
