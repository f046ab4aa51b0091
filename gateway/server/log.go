package server

import (
	"bytes"
	"log" //nolint:depguard // net/http takes its error log in this type alone

	"go.uber.org/zap"
)

// errorLog takes what net/http has to say about connections. A panic needs a
// person; what a port scanner does to a TLS listener does not.
func errorLog(logger *zap.Logger) *log.Logger {
	return log.New(sorter{logger}, "", 0)
}

type sorter struct{ logger *zap.Logger }

func (s sorter) Write(line []byte) (int, error) {
	text := zap.ByteString("text", bytes.TrimSpace(line))
	switch {
	case bytes.Contains(line, []byte("panic serving")):
		s.logger.Error("request handler panicked", text)
	case bytes.Contains(line, []byte("TLS handshake error")):
		s.logger.Debug("handshake failed", text)
	default:
		s.logger.Warn("http server", text)
	}
	return len(line), nil
}
