package service

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"chatelaine/kms"
	"chatelaine/kms/approval"
	"chatelaine/kms/service/kmsv1"
)

// Bounds of snapshots on the wire.
const (
	// snapshotChunk is about how many bytes of records one message has.
	snapshotChunk = 256 << 10
	// maxSnapshotMessage is the longest message: a record may have 1.5 MB (etcd).
	maxSnapshotMessage = 4 << 20
	// maxSnapshot is the largest snapshot that Restore takes, in bytes of records.
	maxSnapshot = 1 << 30
)

// Backup implements RecoveryService.
func (a *recoveryAPI) Backup(ctx context.Context, _ *kmsv1.BackupRequest, stream *connect.ServerStream[kmsv1.BackupResponse]) error {
	s, err := a.manager.Snapshot(ctx)
	if err != nil {
		return err
	}
	head := &kmsv1.SnapshotHead{Created: timestamppb.New(s.Created), Revision: s.Revision}
	if err := stream.Send(&kmsv1.BackupResponse{What: &kmsv1.BackupResponse_Head{Head: head}}); err != nil {
		return err
	}
	for _, chunk := range SnapshotChunks(s.Items) {
		if err := stream.Send(&kmsv1.BackupResponse{What: &kmsv1.BackupResponse_Records{Records: chunk}}); err != nil {
			return err
		}
	}
	tail := &kmsv1.SnapshotTail{Records: uint64(len(s.Items)), Digest: s.Digest()}
	return stream.Send(&kmsv1.BackupResponse{What: &kmsv1.BackupResponse_Tail{Tail: tail}})
}

// SnapshotChunks divides records into messages that are not too long.
func SnapshotChunks(items []kms.Item) []*kmsv1.SnapshotRecords {
	var out []*kmsv1.SnapshotRecords
	size := snapshotChunk
	for _, item := range items {
		if size >= snapshotChunk {
			out, size = append(out, &kmsv1.SnapshotRecords{}), 0
		}
		last := out[len(out)-1]
		last.Records = append(last.Records, &kmsv1.SnapshotRecord{Key: item.Key, Value: item.Value})
		size += len(item.Key) + len(item.Value)
	}
	return out
}

// SnapshotReader puts a snapshot together from its messages. The zero value is ready.
type SnapshotReader struct {
	snapshot kms.Snapshot
	head     bool
	size     int
}

// Head takes the first message.
func (r *SnapshotReader) Head(h *kmsv1.SnapshotHead) error {
	if r.head {
		return fmt.Errorf("service: reading a snapshot: %w: it has two heads", kms.ErrInvalid)
	}
	r.head, r.snapshot.Created, r.snapshot.Revision = true, h.GetCreated().AsTime(), h.GetRevision()
	return nil
}

// Records takes the next records. ErrInvalid when there are over 1 GiB.
func (r *SnapshotReader) Records(records *kmsv1.SnapshotRecords) error {
	for _, record := range records.GetRecords() {
		r.snapshot.Items = append(r.snapshot.Items, kms.Item{Key: record.GetKey(), Value: record.GetValue()})
		if r.size += len(record.GetKey()) + len(record.GetValue()); r.size > maxSnapshot {
			return fmt.Errorf("service: reading a snapshot: %w: it has over %d bytes", kms.ErrInvalid, maxSnapshot)
		}
	}
	return nil
}

// Tail ends the snapshot, or says with ErrCorrupt that it is not whole.
func (r *SnapshotReader) Tail(t *kmsv1.SnapshotTail) (kms.Snapshot, error) {
	if digest := r.snapshot.Digest(); !r.head || t.GetRecords() != uint64(len(r.snapshot.Items)) || t.GetDigest() != digest {
		return kms.Snapshot{}, fmt.Errorf("service: reading a snapshot: %w: %d records of digest %s, want %d of %s",
			kms.ErrCorrupt, len(r.snapshot.Items), digest, t.GetRecords(), t.GetDigest())
	}
	return r.snapshot, nil
}

// Restore implements RecoveryService.
func (a *recoveryAPI) Restore(ctx context.Context, stream *connect.ClientStream[kmsv1.RestoreRequest]) (*kmsv1.RestoreResponse, error) {
	var options *kmsv1.RestoreOptions
	var reader SnapshotReader
	for stream.Receive() {
		message := stream.Msg()
		if (options == nil) != (message.GetOptions() != nil) {
			return nil, errNoOptions("restoring")
		}
		var err error
		switch what := message.GetWhat().(type) {
		case *kmsv1.RestoreRequest_Options:
			options = what.Options
		case *kmsv1.RestoreRequest_Head:
			err = reader.Head(what.Head)
		case *kmsv1.RestoreRequest_Records:
			err = reader.Records(what.Records)
		case *kmsv1.RestoreRequest_Tail:
			s, err := reader.Tail(what.Tail)
			if err != nil {
				return nil, err
			}
			return a.restore(ctx, s, options)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := stream.Err(); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("service: restoring: %w: the snapshot ends before its tail", kms.ErrCorrupt)
}

func (a *recoveryAPI) restore(ctx context.Context, s kms.Snapshot, o *kmsv1.RestoreOptions) (*kmsv1.RestoreResponse, error) {
	digest := s.Digest() // of what was backed up: approvers know that one
	items, closed, err := approval.CloseRequests(s.Items, time.Now().UTC())
	if err != nil {
		return nil, fmt.Errorf("service: restoring: %w: %w", kms.ErrInvalid, err)
	}
	s.Items = items
	report, err := a.manager.Restore(ctx, s, kms.RestoreOptions{
		Apply: o.GetApply(), Merge: o.GetMerge(), AllowMissing: o.GetAllowMissingKeys(), Digest: digest, Change: changeOf(ctx, o.GetChange()),
	})
	if err != nil {
		return nil, err
	}
	out := &kmsv1.RestoreResponse{Applied: report.Applied, Created: timestamppb.New(report.Created), Digest: digest, Notes: report.Notes}
	if closed > 0 {
		out.Notes = append(out.Notes, fmt.Sprintf("%d requests for approvals that were open in the backup are closed, as they may have been used since", closed))
	}
	for _, k := range report.Kinds {
		out.Kinds = append(out.Kinds, &kmsv1.RestoredKind{Kind: k.Kind, Added: uint64(k.Added), Kept: uint64(k.Kept), Left: uint64(k.Left)})
	}
	return out, nil
}
