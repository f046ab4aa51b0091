package main

import (
	"fmt"
	"io"

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

// takeForeignLines makes the standard logger write to logger, until restore is called.
// net/http prints there what a cloud has sent unasked: such text becomes one line of
// bounded length, with nothing in it that could pass for another.
func takeForeignLines(logger *zap.Logger) (restore func(), err error) {
	return zap.RedirectStdLogAt(foreign(logger), zapcore.WarnLevel)
}

func foreign(logger *zap.Logger) *zap.Logger {
	return logger.Named("library").WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core { return boundedCore{c} }))
}

// boundedCore cuts messages to maxForeignLine.
type boundedCore struct{ zapcore.Core }

func (b boundedCore) With(fields []zapcore.Field) zapcore.Core {
	return boundedCore{b.Core.With(fields)}
}

func (b boundedCore) Check(e zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if b.Enabled(e.Level) {
		return to.AddCore(e, b)
	}
	return to
}

func (b boundedCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	if n := len(e.Message); n > maxForeignLine {
		e.Message, fields = e.Message[:maxForeignLine], append(fields, zap.Int("length", n))
	}
	return b.Core.Write(e, fields)
}
