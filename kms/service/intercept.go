package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"chatelaine/kms"
)

// intercept puts a deadline around each call, translates its error, counts it and
// logs it.
type intercept struct {
	timeout time.Duration
	metrics *Metrics
	log     *zap.Logger
}

// WrapUnary implements connect.Interceptor.
func (i *intercept) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		began := time.Now()
		ctx, cancel := context.WithTimeout(ctx, i.timeout)
		defer cancel()
		response, err := next(ctx, request)
		i.ended(ctx, request.Spec(), err, time.Since(began))
		if err != nil {
			return nil, toConnect(err)
		}
		return response, nil
	}
}

func (i *intercept) ended(ctx context.Context, spec connect.Spec, err error, took time.Duration) {
	op := opOf(spec.Procedure)
	i.metrics.rpc(op, err, took)
	fields := []zap.Field{
		zap.String("op", op), zap.String("code", word(err)),
		zap.Duration("duration", took), zap.String("peer", peerOf(ctx).name),
	}
	switch word(err) {
	case "ok":
		i.log.Debug("call", fields...)
	case "internal", "corrupt", "unsafe", "pin", "ambiguous":
		i.log.Error("call failed", append(fields, zap.Error(err))...)
	case "unavailable", "closed", "deadline":
		i.log.Warn("call failed", append(fields, zap.Error(err))...)
	default:
		i.log.Debug("call refused", append(fields, zap.Error(err))...)
	}
}

// WrapStreamingClient implements connect.Interceptor: there is none here.
func (i *intercept) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements connect.Interceptor. A stream has no deadline.
func (i *intercept) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		began := time.Now()
		err := next(ctx, conn)
		i.ended(ctx, conn.Spec(), err, time.Since(began))
		if err != nil {
			return toConnect(err)
		}
		return nil
	}
}

// restore is the client's interceptor: errors come out as those of package kms.
type restore struct{}

// WrapUnary implements connect.Interceptor.
func (restore) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		response, err := next(ctx, request)
		if err != nil {
			return nil, canceledHere(ctx, fromConnect(err))
		}
		return response, nil
	}
}

// canceledHere makes kms.ErrUnavailable of an end that the caller has not wanted: a
// connection that breaks can look as if the call was canceled, and the KMS says so of one
// whose caller it has lost. Whoever takes that for a client that has gone answers nobody.
func canceledHere(ctx context.Context, err error) error {
	canceled := errors.Is(err, context.Canceled) || connect.CodeOf(err) == connect.CodeCanceled
	if !canceled || ctx.Err() != nil || errors.Is(err, kms.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: the call was cut: %s", kms.ErrUnavailable, err.Error())
}

// WrapStreamingClient implements connect.Interceptor.
func (restore) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return restoredStream{next(ctx, spec)}
	}
}

// restoredStream is a stream whose errors are those of package kms.
type restoredStream struct{ connect.StreamingClientConn }

// Receive implements connect.StreamingClientConn.
func (s restoredStream) Receive(message any) error {
	err := s.StreamingClientConn.Receive(message)
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return fromConnect(err)
}

// WrapStreamingHandler implements connect.Interceptor: there is none here.
func (restore) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}
