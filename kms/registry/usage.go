package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/storage"
	"go.uber.org/zap"

	"chatelaine/kms"
)

// defaultQuota is etcd's own (--quota-backend-bytes). More is somebody's decision, as etcd
// keeps an index of all its keys in memory.
const defaultQuota = storage.DefaultQuotaBytes

// usageTimeout is how long a member may take to say how full it is: the others' answers
// wait for it.
const usageTimeout = 2 * time.Second

// Usage implements kms.Registry. It asks every member that the configuration names, and
// needs the answer of one.
func (s *Store) Usage(ctx context.Context) (kms.Usage, error) {
	members := s.client.Endpoints()
	if s.embedded != nil {
		members = []string{""} // its client knows one server, and has no address of it
	}
	usages, errs := make([]kms.Usage, len(members)), make([]error, len(members))
	var group sync.WaitGroup
	for i, member := range members {
		group.Go(func() {
			errs[i] = s.do(ctx, func(ctx context.Context) error {
				ctx, cancel := context.WithTimeout(ctx, usageTimeout)
				defer cancel()
				status, err := s.client.Status(ctx, member)
				if err == nil {
					usages[i] = s.usageOf(status)
				}
				return err
			})
		})
	}
	group.Wait()
	return fullest(usages, errs)
}

// usageOf is the usage of one member. Old versions tell less of it.
func (s *Store) usageOf(status *clientv3.StatusResponse) kms.Usage {
	return kms.Usage{
		InUse: cmp.Or(status.DbSizeInUse, status.DbSize),
		File:  status.DbSize,
		Quota: quotaOf(status.DbSizeQuota, s.quota),
	}
}

// quotaOf is the quota that holds: of what a member tells, which is negative for no quota
// and 0 where it does not tell, and what was configured.
func quotaOf(told, configured int64) int64 {
	switch {
	case told > 0 && configured > 0:
		return min(told, configured)
	case told > 0:
		return told
	case told == 0:
		return cmp.Or(configured, defaultQuota)
	}
	return configured
}

// fullest takes the worst of members; those that do not answer count only when none does.
func fullest(usages []kms.Usage, errs []error) (out kms.Usage, err error) {
	answered := false
	for i, u := range usages {
		if errs[i] != nil {
			continue
		}
		answered = true
		out.InUse, out.File = max(out.InUse, u.InUse), max(out.File, u.File)
		if out.Quota == 0 || u.Quota > 0 && u.Quota < out.Quota {
			out.Quota = u.Quota
		}
	}
	if !answered {
		return out, fmt.Errorf("registry: asking how full it is: %w", errors.Join(errs...))
	}
	return out, nil
}

// makeRoom has an etcd that was full take changes again, as its quota was raised or what
// filled it was deleted: its file does not get shorter by itself, and its alarm does not
// end by itself. Nobody else could do it, as nobody else can reach this etcd; and later
// everybody would have to wait for it.
func (s *Store) makeRoom(ctx context.Context) error {
	u, err := s.Usage(ctx)
	if err != nil {
		return err
	}
	if u.File > u.Quota/2 {
		if err := s.shorten(ctx); err != nil { // as where the disk has no place for a second file
			s.embedded.etcd.GetLogger().Warn("etcd's file cannot be made shorter", zap.Error(err))
		}
	}
	return s.endAlarm(ctx)
}

// shorten makes the file shorter, where a fifth of it or more is free without history, or
// it is at its quota: what was freed last does not count as free yet.
func (s *Store) shorten(ctx context.Context) error {
	if err := s.compact(ctx); err != nil {
		return fmt.Errorf("compacting: %w", err)
	}
	u, err := s.Usage(ctx)
	if err == nil && (u.InUse <= u.File/10*8 || u.File >= u.Quota/10*9) {
		err = s.defragment(ctx)
	}
	return err
}

// compact forgets all history: nobody watches yet.
func (s *Store) compact(ctx context.Context) error {
	revision, err := s.Revision(ctx)
	if err == nil {
		_, err = s.client.Compact(ctx, revision, clientv3.WithCompactPhysical())
	}
	if errors.Is(err, rpctypes.ErrCompacted) {
		return nil
	}
	return err
}

// defragment writes the file anew. The client's own call would tell a health service that
// an etcd without listeners does not have.
func (s *Store) defragment(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.embedded.etcd.Server.Defragment()
}

// endAlarm takes etcd's alarm away, or says that what it holds does not fit.
func (s *Store) endAlarm(ctx context.Context) error {
	u, err := s.Usage(ctx)
	if err != nil {
		return err
	}
	if u.File >= u.Quota {
		return fmt.Errorf("%w: its records take %d MiB, and its quota (state.quota_mib) is %d MiB", kms.ErrFull, u.InUse>>20, u.Quota>>20)
	}
	alarms, err := s.client.AlarmList(ctx)
	if err != nil {
		return fmt.Errorf("listing its alarms: %w", err)
	}
	for _, a := range alarms.Alarms {
		if a.GetAlarm() != etcdserverpb.AlarmType_NOSPACE {
			continue
		}
		if _, err := s.client.AlarmDisarm(ctx, (*clientv3.AlarmMember)(a)); err != nil {
			return fmt.Errorf("ending its alarm: %w", err)
		}
		s.embedded.etcd.GetLogger().Warn("etcd was full, and takes changes again", zap.Int64("file_bytes", u.File), zap.Int64("quota_bytes", u.Quota))
	}
	return nil
}
