// Package registry keeps the KMS's state on etcd: embedded in the process, or an
// external cluster. It is a kms.Registry: bytes under names, transactions, watches.
//
// It refuses to know what the records mean.
package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"chatelaine/kms"
)

// root is the prefix of all keys, so that an external cluster can be shared.
const root = "/chatelaine/"

// page is how many items one read of List fetches.
const page = 1000

// Store is a kms.Registry on etcd.
type Store struct {
	client   *clientv3.Client
	timeout  time.Duration // of one read or transaction
	embedded *embedded     // nil: an external cluster
	quota    int64         // that was configured for an external cluster; 0: none
}

var _ kms.Registry = (*Store)(nil)

// Close lets go of etcd and, where it is embedded, stops it. Call it once, after
// the last other call has ended.
func (s *Store) Close() error {
	err := s.client.Close()
	if errors.Is(err, context.Canceled) {
		err = nil // the client says so of its own cancelled context
	}
	if s.embedded != nil {
		err = errors.Join(err, s.embedded.close())
	}
	if err != nil {
		return fmt.Errorf("registry: closing: %w", err)
	}
	return nil
}

// Stopped is closed when an embedded etcd has stopped, by Close or because it
// cannot go on: then the process should end and be started again. It is nil, and so
// blocks for ever, where etcd is external.
func (s *Store) Stopped() <-chan struct{} {
	if s.embedded == nil {
		return nil
	}
	return s.embedded.etcd.Server.StopNotify()
}

// Exclusive says that no other process can use this registry: it is in the process.
func (s *Store) Exclusive() bool { return s.embedded != nil }

// Get implements kms.Registry.
func (s *Store) Get(ctx context.Context, key string) (kms.Item, error) {
	var answer *clientv3.GetResponse
	err := s.do(ctx, func(ctx context.Context) (err error) {
		answer, err = s.client.Get(ctx, root+key)
		return err
	})
	if err != nil {
		return kms.Item{}, fmt.Errorf("registry: reading %q: %w", key, err)
	}
	if len(answer.Kvs) == 0 {
		return kms.Item{}, fmt.Errorf("registry: reading %q: %w", key, kms.ErrNotFound)
	}
	return item(answer.Kvs[0]), nil
}

// List implements kms.Registry. All items are of one revision.
func (s *Store) List(ctx context.Context, prefix string) ([]kms.Item, error) {
	from, end := root+prefix, clientv3.GetPrefixRangeEnd(root+prefix)
	var out []kms.Item
	for revision := int64(0); ; {
		var answer *clientv3.GetResponse
		err := s.do(ctx, func(ctx context.Context) (err error) {
			answer, err = s.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(page), clientv3.WithRev(revision))
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("registry: listing %q: %w", prefix, err)
		}
		for _, kv := range answer.Kvs {
			out = append(out, item(kv))
		}
		if !answer.More || len(answer.Kvs) == 0 {
			return out, nil
		}
		revision = answer.Header.Revision
		from = string(answer.Kvs[len(answer.Kvs)-1].Key) + "\x00"
	}
}

// Commit implements kms.Registry.
func (s *Store) Commit(ctx context.Context, t kms.Transaction) error {
	if err := t.Validate(); err != nil {
		return fmt.Errorf("registry: committing: %w", err)
	}
	var answer *clientv3.TxnResponse
	err := s.do(ctx, func(ctx context.Context) (err error) {
		answer, err = s.client.Txn(ctx).If(conditions(t)...).Then(changes(t)...).Commit()
		return err
	})
	if err == nil && !answer.Succeeded {
		err = kms.ErrConflict
	}
	if err != nil {
		return fmt.Errorf("registry: committing: %w", err)
	}
	return nil
}

func conditions(t kms.Transaction) []clientv3.Cmp {
	out := make([]clientv3.Cmp, 0, len(t.If))
	for _, c := range t.If {
		out = append(out, clientv3.Compare(clientv3.ModRevision(root+c.Key), "=", c.Revision))
	}
	return out
}

func changes(t kms.Transaction) []clientv3.Op {
	var out []clientv3.Op
	for _, i := range t.Put {
		out = append(out, clientv3.OpPut(root+i.Key, string(i.Value)))
	}
	for _, key := range t.Delete {
		out = append(out, clientv3.OpDelete(root+key))
	}
	for _, prefix := range t.DeletePrefix {
		out = append(out, clientv3.OpDelete(root+prefix, clientv3.WithPrefix()))
	}
	return out
}

// Revision implements kms.Registry.
func (s *Store) Revision(ctx context.Context) (int64, error) {
	var answer *clientv3.GetResponse
	err := s.do(ctx, func(ctx context.Context) (err error) {
		answer, err = s.client.Get(ctx, root, clientv3.WithCountOnly())
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("registry: reading the revision: %w", err)
	}
	return answer.Header.Revision, nil
}

// Watch implements kms.Registry.
func (s *Store) Watch(ctx context.Context, prefix string, after int64, f func(kms.Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := s.client.Watch(clientv3.WithRequireLeader(ctx), root+prefix,
		clientv3.WithPrefix(), clientv3.WithRev(after+1))
	for answer := range answers {
		if answer.CompactRevision != 0 {
			return fmt.Errorf("registry: watching %q: %w", prefix, kms.ErrCompacted)
		}
		if err := answer.Err(); err != nil {
			return fmt.Errorf("registry: watching %q: %w", prefix, unavailable(ctx, err))
		}
		for _, e := range answer.Events {
			if err := f(kms.Event{Item: item(e.Kv), Deleted: e.Type == mvccpb.DELETE}); err != nil {
				return err
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return fmt.Errorf("registry: watching %q: %w: the watch ended", prefix, kms.ErrUnavailable)
}

// Check implements kms.Registry. It is a read that needs a leader and a quorum.
func (s *Store) Check(ctx context.Context) error {
	_, err := s.Get(ctx, "health")
	if errors.Is(err, kms.ErrNotFound) {
		return nil
	}
	return err
}

// do runs one call under the store's own deadline.
func (s *Store) do(ctx context.Context, call func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if err := call(bounded); err != nil {
		return unavailable(ctx, err)
	}
	return nil
}

// unavailable makes kms.ErrUnavailable of what etcd says, but for the end of the
// caller's own context and for what asking again cannot mend.
func unavailable(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, rpctypes.ErrCompacted):
		return fmt.Errorf("%w: %w", kms.ErrCompacted, err)
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		return fmt.Errorf("%w: %w", kms.ErrDenied, err)
	default:
		return fmt.Errorf("%w: %w", kms.ErrUnavailable, err)
	}
}

func item(kv *mvccpb.KeyValue) kms.Item {
	return kms.Item{
		Key:      strings.TrimPrefix(string(kv.Key), root),
		Value:    slices.Clone(kv.Value),
		Revision: kv.ModRevision,
	}
}
