package service

import (
	"context"
	"errors"
	"slices"

	"connectrpc.com/connect"

	"chatelaine/kms"
	"chatelaine/kms/approval"
	"chatelaine/kms/service/kmsv1"
)

// reason is how a sentinel of package kms travels: as a Connect code for people
// and proxies, and as a word that names it exactly.
type reason struct {
	word     string
	sentinel error
	code     connect.Code
}

// reasons is in order of weight: of an error that is several, the first counts.
func reasons() []reason {
	return []reason{
		{"lease", kms.ErrLease, connect.CodeFailedPrecondition},
		{"denied", kms.ErrDenied, connect.CodePermissionDenied},
		{"approval", kms.ErrApproval, connect.CodePermissionDenied},
		{"pin", kms.ErrPIN, connect.CodeFailedPrecondition},
		{"unsafe", kms.ErrUnsafe, connect.CodeFailedPrecondition},
		{"ambiguous", kms.ErrAmbiguous, connect.CodeFailedPrecondition},
		{"unavailable", kms.ErrUnavailable, connect.CodeUnavailable},
		{"closed", kms.ErrClosed, connect.CodeUnavailable},
		{"corrupt", kms.ErrCorrupt, connect.CodeDataLoss},
		{"needed", kms.ErrNeeded, connect.CodeFailedPrecondition},
		{"disabled", kms.ErrDisabled, connect.CodeFailedPrecondition},
		{"full", kms.ErrFull, connect.CodeResourceExhausted},
		{"busy", kms.ErrBusy, connect.CodeAborted},
		{"exists", kms.ErrExists, connect.CodeAlreadyExists},
		{"not-found", kms.ErrNotFound, connect.CodeNotFound},
		{"invalid", kms.ErrInvalid, connect.CodeInvalidArgument},
		{"conflict", kms.ErrConflict, connect.CodeAborted},
	}
}

func reasonOf(err error) (reason, bool) {
	all := reasons()
	i := slices.IndexFunc(all, func(r reason) bool { return errors.Is(err, r.sentinel) })
	if i < 0 {
		return reason{}, false
	}
	return all[i], true
}

// word is the label of an error in metrics.
func word(err error) string {
	if err == nil {
		return "ok"
	}
	if r, ok := reasonOf(err); ok {
		return r.word
	}
	switch {
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded):
		return "deadline"
	default:
		return "internal"
	}
}

// toConnect makes an error of the domain ready to travel. Its text goes along: the
// errors of package kms hold no secrets.
func toConnect(err error) *connect.Error {
	var already *connect.Error
	if errors.As(err, &already) {
		return already
	}
	r, ok := reasonOf(err)
	if !ok {
		return connect.NewError(codeOf(err), err)
	}
	out := connect.NewError(r.code, err)
	if detail, derr := connect.NewErrorDetail(&kmsv1.Reason{Word: r.word}); derr == nil {
		out.AddDetail(detail)
	}
	var needed *approval.NeededError
	if errors.As(err, &needed) {
		if detail, derr := connect.NewErrorDetail(operationMessage(needed.Operation)); derr == nil {
			out.AddDetail(detail)
		}
	}
	return out
}

func codeOf(err error) connect.Code {
	switch {
	case errors.Is(err, context.Canceled):
		return connect.CodeCanceled
	case errors.Is(err, context.DeadlineExceeded):
		return connect.CodeDeadlineExceeded
	default:
		return connect.CodeInternal
	}
}

// remote is an error that travelled: its text, and what errors.Is finds in it.
type remote struct {
	text   string
	causes []error
}

// Error is the server's text.
func (e *remote) Error() string { return e.text }

// Unwrap gives the sentinel and the Connect error.
func (e *remote) Unwrap() []error { return e.causes }

// fromConnect is the other end of toConnect. No answer at all, or none in time, is
// kms.ErrUnavailable.
func fromConnect(err error) error {
	var travelled *connect.Error
	if !errors.As(err, &travelled) {
		return err
	}
	out := &remote{text: travelled.Message(), causes: []error{travelled}}
	if sentinel := sentinelOf(travelled); sentinel != nil {
		out.causes = append(out.causes, sentinel)
	}
	if op := operationIn(travelled); op != nil {
		out.causes = append(out.causes, &approval.NeededError{Operation: operationOf(op), Text: out.text})
	}
	return out
}

// operationIn is the operation that needs a request, or nil.
func operationIn(err *connect.Error) *kmsv1.Operation {
	for _, detail := range err.Details() {
		message, verr := detail.Value()
		if op, ok := message.(*kmsv1.Operation); ok && verr == nil {
			return op
		}
	}
	return nil
}

func sentinelOf(err *connect.Error) error {
	for _, detail := range err.Details() {
		message, verr := detail.Value()
		if verr != nil {
			continue
		}
		if r, ok := message.(*kmsv1.Reason); ok {
			return sentinelNamed(r.GetWord())
		}
	}
	if unanswered(err) {
		return kms.ErrUnavailable
	}
	return nil
}

// unanswered: the KMS could not be reached, did not answer in time, or the
// connection failed. Connect gives a refused certificate the code Unknown, and a
// connection that broke while the request was written the code Canceled.
func unanswered(err *connect.Error) bool {
	switch err.Code() { //nolint:exhaustive // the others are answers
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded:
		return true
	case connect.CodeUnknown:
		return !connect.IsWireError(err)
	case connect.CodeCanceled:
		return !connect.IsWireError(err) && !errors.Is(err, context.Canceled)
	default:
		return false
	}
}

func sentinelNamed(word string) error {
	all := reasons()
	i := slices.IndexFunc(all, func(r reason) bool { return r.word == word })
	if i < 0 {
		return nil
	}
	return all[i].sentinel
}
