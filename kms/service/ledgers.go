package service

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
	"chatelaine/kms/service/kmsv1/kmsv1connect"
)

// ledgerFeed is the LedgerFeed.
type ledgerFeed struct {
	manager *kms.Manager
	leased  func(ctx context.Context, id string) error
}

var _ kmsv1connect.LedgerFeedHandler = (*ledgerFeed)(nil)

// marks reads marks of messages; an empty one is zero.
func marks(from ...[]byte) ([]kms.LedgerMark, error) {
	out := make([]kms.LedgerMark, len(from))
	for i, b := range from {
		if len(b) != 0 && len(b) != len(out[i]) {
			return nil, fmt.Errorf("service: %w: mark of %d bytes", kms.ErrInvalid, len(b))
		}
		copy(out[i][:], b)
	}
	return out, nil
}

// LookLedger implements LedgerFeed.
func (f *ledgerFeed) LookLedger(ctx context.Context, r *kmsv1.LookLedgerRequest) (*kmsv1.LookLedgerResponse, error) {
	if err := f.leased(ctx, r.GetLeaseId()); err != nil {
		return nil, err
	}
	m, err := marks(r.GetName())
	if err != nil {
		return nil, err
	}
	view, err := f.manager.LookLedger(ctx, r.GetSpace(), m[0])
	if err != nil {
		return nil, err
	}
	out := &kmsv1.LookLedgerResponse{Stage: string(view.Stage), Revision: view.Revision, Now: timestamppb.New(view.Now)}
	for _, w := range view.Entry.Writes {
		out.Writes = append(out.Writes, &kmsv1.LedgerWrite{Id: w.ID[:], Tag: w.Tag[:], Begin: w.Begin, End: w.End, At: timestamp(w.At)})
	}
	return out, nil
}

// BeginWrite implements LedgerFeed.
func (f *ledgerFeed) BeginWrite(ctx context.Context, r *kmsv1.BeginWriteRequest) (*kmsv1.BeginWriteResponse, error) {
	if err := f.leased(ctx, r.GetLeaseId()); err != nil {
		return nil, err
	}
	m, err := marks(r.GetName(), r.GetId(), r.GetTag())
	if err != nil {
		return nil, err
	}
	return &kmsv1.BeginWriteResponse{}, f.manager.BeginWrite(ctx, kms.LedgerAttempt{Space: r.GetSpace(), Name: m[0], ID: m[1], Tag: m[2]})
}

// EndWrite implements LedgerFeed.
func (f *ledgerFeed) EndWrite(ctx context.Context, r *kmsv1.EndWriteRequest) (*kmsv1.EndWriteResponse, error) {
	if err := f.leased(ctx, r.GetLeaseId()); err != nil {
		return nil, err
	}
	m, err := marks(r.GetName(), r.GetId(), r.GetTag())
	if err != nil {
		return nil, err
	}
	attempt := kms.LedgerAttempt{Space: r.GetSpace(), Name: m[0], ID: m[1], Tag: m[2]}
	return &kmsv1.EndWriteResponse{}, f.manager.EndWrite(ctx, attempt, r.GetApplied())
}

// SettleLedger implements LedgerFeed.
func (f *ledgerFeed) SettleLedger(ctx context.Context, r *kmsv1.SettleLedgerRequest) (*kmsv1.SettleLedgerResponse, error) {
	if err := f.leased(ctx, r.GetLeaseId()); err != nil {
		return nil, err
	}
	m, err := marks(r.GetName(), r.GetTag(), r.GetId())
	if err != nil {
		return nil, err
	}
	return &kmsv1.SettleLedgerResponse{}, f.manager.SettleLedger(ctx, kms.Sighting{
		Space: r.GetSpace(), Name: m[0], Tag: m[1], ID: m[2], Revision: r.GetRevision(),
	})
}

// Learn implements LedgerFeed.
func (f *ledgerFeed) Learn(ctx context.Context, r *kmsv1.LearnRequest) (*kmsv1.LearnResponse, error) {
	if err := f.leased(ctx, r.GetLeaseId()); err != nil {
		return nil, err
	}
	lesson := kms.LedgerLesson{
		Space: r.GetSpace(), Runner: r.GetRunner(), Cursor: r.GetCursor(), Ended: r.GetEnded(), Refused: r.GetRefused(), Trouble: r.GetTrouble(),
	}
	for _, line := range r.GetLines() {
		m, err := marks(line.GetName(), line.GetTag())
		if err != nil {
			return nil, err
		}
		lesson.Lines = append(lesson.Lines, kms.LedgerLine{Name: m[0], Tag: m[1]})
	}
	cursor, err := f.manager.Learn(ctx, lesson)
	return &kmsv1.LearnResponse{Cursor: cursor}, err
}
