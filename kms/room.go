package kms

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Clients of buckets with the rollback guard make records in the registry, and a full
// registry takes no changes at all: no block, no lease. So clients have a part of it, and
// the rest is for those who hold the keys (DECISIONS.md has the shares' reasons).

// Shares of a registry's quota, in hundredths.
const (
	// writeShare is what may be used when a write of an object begins, or when objects are
	// learned.
	writeShare = 50
	// deleteShare is what may be used when a deletion begins: it ends with a record less,
	// but until history is compacted it takes more.
	deleteShare = 60
	// fileShare is how long the file may be when either begins, whatever is free in it:
	// its length is what etcd compares with the quota.
	fileShare = 95
	// calmShare is what must be used at most before clients' writes count as taken again.
	calmShare = writeShare - 5
)

const (
	// usageEvery is the time between two looks at how full the registry is. What clients can
	// write in between, 64 KiB for each of 256 writes of one object at the worst, must fit
	// into what is not theirs.
	usageEvery = 2 * time.Second
	// usageLife is how long a look is believed while none succeeds.
	usageLife = time.Minute
	// fullReminder is the time between two log lines of a registry that stays full.
	fullReminder = 10 * time.Minute
)

// room is what a Manager knows of how full the registry is.
type room struct {
	usage atomic.Pointer[Usage] // nil: it is not known
	// The rest belongs to whoever looks: NewManager, then Run.
	seen time.Time // of usage
	told time.Time // when the log last said that it is full; zero: it is not
}

// over says whether more than some hundredths of the quota are used.
func (u Usage) over(share int64) bool { return u.Quota > 0 && u.InUse > u.Quota/100*share }

// full says whether clients may add nothing when a share of the quota is theirs.
func (u Usage) full(share int64) bool {
	return u.over(share) || u.Quota > 0 && u.File > u.Quota/100*fileShare
}

func (u Usage) String() string {
	return fmt.Sprintf("%d of %d MiB are used, by a file of %d MiB", u.InUse>>20, u.Quota>>20, u.File>>20)
}

// mayAdd refuses clients' records when more than a share of the registry is used: ErrFull,
// or ErrUnavailable where nobody knows.
func (m *Manager) mayAdd(share int64) error {
	u := m.room.usage.Load()
	switch {
	case u == nil:
		return fmt.Errorf("%w: how full the registry is, is not known", ErrUnavailable)
	case u.full(share):
		return fmt.Errorf("%w: %v", ErrFull, u)
	}
	return nil
}

// mayBegin refuses a write that is not under way yet where there is no room for it.
func (m *Manager) mayBegin(e *LedgerEntry, a LedgerAttempt) error {
	switch {
	case e.find(a.ID) >= 0: // a sign that its writer lives
		return nil
	case a.Tag.IsZero():
		return m.mayAdd(deleteShare)
	}
	return m.mayAdd(writeShare)
}

// runUsage looks at how full the registry is, until ctx ends.
func (m *Manager) runUsage(ctx context.Context) {
	for {
		m.lookAtUsage(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(usageEvery):
		}
	}
}

// lookAtUsage looks once. What cannot be had for long is not known any more: then nothing
// is added, as etcd may be full.
func (m *Manager) lookAtUsage(ctx context.Context) {
	u, err := m.registry.Usage(ctx)
	if err == nil {
		m.room.usage.Store(&u)
		m.room.seen = time.Now()
		m.observer.RegistryUsage(u)
		m.tellUsage(u)
		return
	}
	if errors.Is(err, context.Canceled) {
		return
	}
	m.log.Warn("looking at how full the registry is", zap.Error(err))
	if time.Since(m.room.seen) > usageLife {
		m.room.usage.Store(nil)
	}
}

// tellUsage has the log say what to do when the registry is too full for clients, and when it is no more.
func (m *Manager) tellUsage(u Usage) {
	fields := []zap.Field{zap.Int64("in_use_bytes", u.InUse), zap.Int64("file_bytes", u.File), zap.Int64("quota_bytes", u.Quota)}
	switch told := m.room.told; {
	case u.full(writeShare) && time.Since(told) >= fullReminder:
		m.room.told = time.Now()
		m.log.Error("the registry is too full for clients: writes in buckets with the rollback guard are refused; all else goes on. "+
			"Raise its quota (state.quota_mib in kms.yaml, or --quota-backend-bytes of your etcd), delete objects, or take the guard off buckets that can do without. "+
			"An etcd of yours must compact (--auto-compaction-retention=5m) and, where its file is much longer than what is in use, be defragmented; "+
			"the KMS's own does both, the latter when it starts", fields...)
	case !told.IsZero() && !u.full(calmShare):
		m.room.told = time.Time{}
		m.log.Info("the registry has room again: writes in buckets with the rollback guard are taken", fields...)
	}
}
