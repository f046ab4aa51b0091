package main

import (
	"bytes"
	"fmt"
	"io"
	"log"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newLogger writes lines of a format, "json" or "console", from a level on. The
// process tells the gateway's lines from the KMS's.
func newLogger(w io.Writer, level, format, process string) (*zap.Logger, error) {
	at, err := zapcore.ParseLevel(level)
	if err != nil {
		return nil, usageError{fmt.Errorf("log level %q: want debug, info, warn or error", level)}
	}
	encoding := zap.NewProductionEncoderConfig()
	encoding.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	encoding.EncodeDuration = zapcore.StringDurationEncoder
	var encoder zapcore.Encoder
	switch format {
	case "json":
		encoder = zapcore.NewJSONEncoder(encoding)
	case "console":
		encoding.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		encoding.EncodeLevel = zapcore.CapitalLevelEncoder
		encoder = zapcore.NewConsoleEncoder(encoding)
	default:
		return nil, usageError{fmt.Errorf("log format %q: want json or console", format)}
	}
	core := zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(w)), at)
	return zap.New(core).Named(process), nil
}

// maxForeignLine is the longest line that libraries may log, in bytes.
const maxForeignLine = 500

// foreignLines are what libraries log by themselves: net/http prints what a cloud has
// sent unasked. Such text becomes one line of bounded length, with nothing in it that
// could pass for another.
type foreignLines struct{ logger *zap.Logger }

func (f foreignLines) Write(line []byte) (int, error) {
	text := bytes.TrimSuffix(line, []byte("\n"))
	f.logger.Warn("a library says", zap.ByteString("text", text[:min(len(text), maxForeignLine)]), zap.Int("length", len(text)))
	return len(line), nil
}

// takeForeignLines makes the standard logger write to logger.
func takeForeignLines(logger *zap.Logger) {
	log.SetFlags(0)
	log.SetOutput(foreignLines{logger.Named("library")})
}
