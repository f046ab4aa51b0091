package backendtest

import (
	"context"
	"time"

	"chatelaine/backends"
)

func lockTests() map[string]func(*fixture) {
	return map[string]func(*fixture){
		"AreMadeWithTheBucketAndStay":     lockBucket,
		"AreNotThereWithoutOne":           lockNone,
		"CanBeEnabledOnVersions":          lockEnabled,
		"AreGivenToNewVersionsByDefault":  lockDefault,
		"AreThoseThatAWriterGives":        lockGiven,
		"OfGovernanceYieldToABypass":      lockGovernance,
		"OfComplianceYieldToTimeAlone":    lockCompliance,
		"OfAHoldYieldToNothing":           lockHold,
		"AreNotShortened":                 lockShortened,
		"LetVersionsBeReplacedAndMarked":  lockReplaced,
		"AreReportedWhereNothingIsLocked": lockMissing,
		"EndWithTheirContext":             lockCancelled,
	}
}

// locked puts a bucket with a lock in the place of the fixture's own.
func (f *fixture) locked() {
	f.Helper()
	f.ok(f.store.DeleteBucket(f.Context(), f.bucket))
	f.bucket = bucketName()
	f.ok(f.locker.CreateLockedBucket(f.Context(), f.bucket))
}

// in is a time in whole seconds.
func in(d time.Duration) time.Time { return time.Now().Add(d).UTC().Truncate(time.Second) }

func (f *fixture) putLocked(key string, l backends.Lock) string {
	f.Helper()
	w, err := f.store.Put(f.Context(), f.id(key), bodyOf([]byte("x")), &backends.PutOptions{Attributes: backends.Attributes{Lock: l}})
	f.ok(err)
	return w.Version
}

// isLocked wants a version to have this lock, by any way of looking. Until may be
// some seconds apart where the store made it.
func (f *fixture) isLocked(key, version string, want backends.Lock) {
	f.Helper()
	got, err := f.locker.Lock(f.Context(), f.version(key, version))
	f.ok(err)
	info, err := f.store.Head(f.Context(), f.version(key, version), nil)
	f.ok(err)
	for from, got := range map[string]backends.Lock{"Lock": got, "Head": info.Attributes.Lock} {
		if d := got.Until.Sub(want.Until).Abs(); got.Mode != want.Mode || got.Hold != want.Hold || d > time.Minute {
			f.Fatalf("%s says %+v, want %+v", from, got, want)
		}
	}
}

// wasHeld wants a version to have had a hold that was lifted, or not.
func (f *fixture) wasHeld(key, version string, want bool) {
	f.Helper()
	got, err := f.locker.Lock(f.Context(), f.version(key, version))
	f.ok(err)
	if got.Lifted != want {
		f.Fatalf("the lock of %q is %+v, want Lifted %t", key, got, want)
	}
}

func (f *fixture) deleteLocked(key, version string, bypass bool) error {
	_, err := f.store.Delete(f.Context(), f.version(key, version), &backends.DeleteOptions{BypassGovernance: bypass})
	return err
}

func lockBucket(f *fixture) {
	f.locked()
	c, err := f.locker.LockConfig(f.Context(), f.bucket)
	if f.ok(err); c != (backends.LockConfig{Enabled: true}) {
		f.Errorf("a new lock is %+v", c)
	}
	f.is(f.locker.CreateLockedBucket(f.Context(), f.bucket), backends.ErrBucketExists)
	if f.versions != nil {
		f.is(f.versions.SetVersioning(f.Context(), f.bucket, backends.VersioningSuspended), backends.ErrBucketState)
		f.versioning(backends.VersioningEnabled)
	}
	for _, want := range []backends.LockConfig{
		{Enabled: true, Mode: backends.Governance, Days: 3},
		{Enabled: true, Mode: backends.Compliance, Years: 2},
		{Enabled: true},
	} {
		f.ok(f.locker.SetLockConfig(f.Context(), f.bucket, want))
		if got, err := f.locker.LockConfig(f.Context(), f.bucket); got != want || err != nil {
			f.Errorf("the lock is %+v, %v; want %+v", got, err, want)
		}
	}
	for _, bad := range []backends.LockConfig{{}, {Enabled: true, Mode: backends.Governance}, {Enabled: true, Mode: "x", Days: 1}, {Enabled: true, Mode: backends.Governance, Days: -1}} {
		if err := f.locker.SetLockConfig(f.Context(), f.bucket, bad); err == nil {
			f.Errorf("the lock became %+v", bad)
		}
	}
	if got, err := f.locker.LockConfig(f.Context(), f.bucket); got != (backends.LockConfig{Enabled: true}) || err != nil {
		f.Errorf("the lock is %+v, %v", got, err)
	}
}

func lockNone(f *fixture) {
	if c, err := f.locker.LockConfig(f.Context(), f.bucket); c != (backends.LockConfig{}) || err != nil {
		f.Errorf("a bucket without a lock has %+v, %v", c, err)
	}
	f.put("key", nil)
	lock := backends.Attributes{Lock: backends.Lock{Mode: backends.Governance, Until: in(time.Hour)}}
	_, err := f.store.Put(f.Context(), f.id("new"), bodyOf(nil), &backends.PutOptions{Attributes: lock})
	f.is(err, backends.ErrNoLock)
	_, err = f.store.Put(f.Context(), f.id("new"), bodyOf(nil), &backends.PutOptions{Attributes: backends.Attributes{Lock: backends.Lock{Hold: true}}})
	f.is(err, backends.ErrNoLock)
	f.lacks("new")
	if f.parts != nil {
		_, err = f.parts.CreateUpload(f.Context(), f.bucket, "new", lock)
		f.is(err, backends.ErrNoLock)
	}
	if f.copier != nil {
		_, err = f.copy("key", "new", &backends.CopyOptions{Attributes: lock})
		f.is(err, backends.ErrNoLock)
	}
	_, err = f.locker.Lock(f.Context(), f.id("key"))
	f.is(err, backends.ErrNoLock)
	f.is(f.locker.SetRetention(f.Context(), f.id("key"), backends.Governance, in(time.Hour), false), backends.ErrNoLock)
	f.is(f.locker.SetHold(f.Context(), f.id("key"), true), backends.ErrNoLock)
	f.ok(f.deleteLocked("key", "", false))
}

func lockEnabled(f *fixture) {
	c := backends.LockConfig{Enabled: true, Mode: backends.Governance, Days: 1}
	f.is(f.locker.SetLockConfig(f.Context(), f.bucket, c), backends.ErrBucketState)
	if f.versions == nil || f.opts.LocksAtCreation {
		return
	}
	f.put("before", nil)
	f.versioning(backends.VersioningEnabled)
	f.versioning(backends.VersioningSuspended)
	f.is(f.locker.SetLockConfig(f.Context(), f.bucket, c), backends.ErrBucketState)
	f.versioning(backends.VersioningEnabled)
	f.ok(f.locker.SetLockConfig(f.Context(), f.bucket, c))
	f.isLocked("before", "null", backends.Lock{})
	f.ok(f.locker.SetHold(f.Context(), f.version("before", "null"), true))
	f.is(f.deleteLocked("before", "null", true), backends.ErrLocked)
	f.ok(f.locker.SetHold(f.Context(), f.version("before", "null"), false))
	f.isLocked("after", f.putVersion("after", nil), backends.Lock{Mode: backends.Governance, Until: in(24 * time.Hour)})
}

func lockDefault(f *fixture) {
	f.locked()
	plain := f.putVersion("plain", nil)
	f.ok(f.locker.SetLockConfig(f.Context(), f.bucket, backends.LockConfig{Enabled: true, Mode: backends.Governance, Days: 2}))
	want := backends.Lock{Mode: backends.Governance, Until: in(48 * time.Hour)}
	f.isLocked("put", f.putVersion("put", nil), want)
	held := f.putLocked("held", backends.Lock{Hold: true})
	f.isLocked("held", held, backends.Lock{Mode: want.Mode, Until: want.Until, Hold: true})
	f.ok(f.locker.SetHold(f.Context(), f.version("held", held), false))
	own := backends.Lock{Mode: backends.Governance, Until: in(time.Hour)}
	f.isLocked("own", f.putLocked("own", own), own)
	if f.parts != nil {
		up, parts := f.upload("parts", []byte("x"))
		w, err := f.complete(up, parts)
		f.ok(err)
		f.isLocked("parts", w.Version, want)
	}
	if f.copier != nil {
		w, err := f.copy("put", "copy", nil)
		f.ok(err)
		f.isLocked("copy", w.Version, want)
	}
	f.isLocked("plain", plain, backends.Lock{})
}

func lockGiven(f *fixture) {
	f.locked()
	want := backends.Lock{Mode: backends.Governance, Until: in(time.Hour), Hold: true}
	attrs := backends.Attributes{Lock: want}
	versions := map[string]string{"put": f.putLocked("put", want)}
	if f.parts != nil {
		up, err := f.parts.CreateUpload(f.Context(), f.bucket, "parts", attrs)
		f.ok(err)
		w, err := f.complete(up, []backends.Part{f.part(up, 1, []byte("x"))})
		f.ok(err)
		versions["parts"] = w.Version
	}
	if f.copier != nil {
		w, err := f.copy("put", "copy", &backends.CopyOptions{Attributes: attrs})
		f.ok(err)
		versions["copy"] = w.Version
	}
	for key, version := range versions {
		f.isLocked(key, version, want)
		f.is(f.deleteLocked(key, version, true), backends.ErrLocked)
		f.ok(f.locker.SetHold(f.Context(), f.version(key, version), false))
		f.is(f.deleteLocked(key, version, false), backends.ErrLocked)
		f.ok(f.deleteLocked(key, version, true))
	}
}

func lockGovernance(f *fixture) {
	f.locked()
	id := f.putVersion("key", []byte("x"))
	f.ok(f.locker.SetRetention(f.Context(), f.version("key", id), backends.Governance, in(time.Hour), false))
	f.isLocked("key", id, backends.Lock{Mode: backends.Governance, Until: in(time.Hour)})
	f.is(f.deleteLocked("key", id, false), backends.ErrLocked)
	f.has("key", id, []byte("x"))
	f.ok(f.deleteLocked("key", id, true))
	f.hasNot("key", id)
}

func lockCompliance(f *fixture) {
	f.locked()
	// Long enough that it has not ended before it is looked at.
	until := in(3 * time.Second)
	id := f.putLocked("key", backends.Lock{Mode: backends.Compliance, Until: until})
	f.is(f.deleteLocked("key", id, true), backends.ErrLocked)
	f.is(f.deleteLocked("key", id, false), backends.ErrLocked)
	f.has("key", id, []byte("x"))
	time.Sleep(time.Until(until) + 1100*time.Millisecond)
	f.ok(f.deleteLocked("key", id, false))
	f.hasNot("key", id)
}

func lockHold(f *fixture) {
	f.locked()
	id := f.putVersion("key", []byte("x"))
	for range 2 {
		f.ok(f.locker.SetHold(f.Context(), f.id("key"), true))
	}
	f.isLocked("key", id, backends.Lock{Hold: true})
	f.is(f.deleteLocked("key", id, true), backends.ErrLocked)
	f.ok(f.locker.SetRetention(f.Context(), f.id("key"), backends.Governance, in(time.Hour), false))
	f.isLocked("key", id, backends.Lock{Mode: backends.Governance, Until: in(time.Hour), Hold: true})
	f.wasHeld("key", id, false)
	f.ok(f.locker.SetHold(f.Context(), f.version("key", id), false))
	f.isLocked("key", id, backends.Lock{Mode: backends.Governance, Until: in(time.Hour)})
	f.wasHeld("key", id, true)
	f.ok(f.locker.SetRetention(f.Context(), f.id("key"), backends.Governance, in(2*time.Hour), false))
	f.wasHeld("key", id, true)
	f.wasHeld("other", f.putVersion("other", nil), false)
	f.is(f.deleteLocked("key", id, false), backends.ErrLocked)
	f.ok(f.deleteLocked("key", id, true))
}

// lockShortened is the table of what may become of a retention. Compliance comes
// last, since the version must then stay.
func lockShortened(f *fixture) {
	f.locked()
	f.keep = true
	f.put("key", []byte("x"))
	const g, c = backends.Governance, backends.Compliance
	hour := func(n int) time.Time { return in(time.Duration(n) * time.Hour) }
	for i, step := range []struct {
		mode   backends.LockMode
		until  time.Time
		bypass bool
		want   error
	}{
		{g, hour(2), false, nil},
		{g, hour(3), false, nil},
		{g, hour(1), false, backends.ErrLocked},
		{"", time.Time{}, false, backends.ErrLocked},
		{c, hour(4), false, backends.ErrLocked},
		{g, hour(1), true, nil},
		{"", time.Time{}, true, nil},
		{g, hour(1), false, nil},
		{c, hour(2), true, nil},
		{c, hour(3), false, nil},
		{c, hour(2), true, backends.ErrLocked},
		{g, hour(9), true, backends.ErrLocked},
		{"", time.Time{}, true, backends.ErrLocked},
	} {
		if err := f.locker.SetRetention(f.Context(), f.id("key"), step.mode, step.until, step.bypass); step.want == nil && err != nil {
			f.Fatalf("step %d: %v", i, err)
		} else if step.want != nil {
			f.is(err, step.want)
			continue
		}
		f.isLocked("key", "", backends.Lock{Mode: step.mode, Until: step.until})
	}
	f.isLocked("key", "", backends.Lock{Mode: c, Until: hour(3)})
}

func lockReplaced(f *fixture) {
	f.locked()
	lock := backends.Lock{Mode: backends.Governance, Until: in(time.Hour)}
	id := f.putLocked("key", lock)
	next := f.putVersion("key", []byte("y"))
	f.isLocked("key", id, lock)
	f.isLocked("key", "", backends.Lock{})
	m := f.mark("key")
	f.is(f.deleteLocked("key", id, false), backends.ErrLocked)
	f.ok(f.deleteLocked("key", next, false))
	f.ok(f.deleteLocked("key", m, false))
	f.has("key", "", []byte("x"))
	f.isLocked("key", "", lock)
	f.is(f.deleteLocked("key", id, false), backends.ErrLocked)
	f.is(f.store.DeleteBucket(f.Context(), f.bucket), backends.ErrBucketNotEmpty)
}

func lockMissing(f *fixture) {
	f.locked()
	id := f.putVersion("key", nil)
	f.ok(f.deleteLocked("key", id, false))
	f.putVersion("key", nil)
	m := f.mark("key")
	for id, want := range map[backends.ObjectID]error{
		f.id("missing"): backends.ErrNotFound, f.version("key", id): backends.ErrVersionNotFound, f.version("key", m): backends.ErrDeleteMarker,
		{Bucket: bucketName(), Key: "key"}: backends.ErrBucketNotFound,
	} {
		_, err := f.locker.Lock(f.Context(), id)
		f.is(err, want)
		f.is(f.locker.SetRetention(f.Context(), id, backends.Governance, in(time.Hour), false), want)
		f.is(f.locker.SetHold(f.Context(), id, true), want)
	}
	_, err := f.locker.LockConfig(f.Context(), bucketName())
	f.is(err, backends.ErrBucketNotFound)
	f.is(f.locker.SetLockConfig(f.Context(), bucketName(), backends.LockConfig{Enabled: true}), backends.ErrBucketNotFound)
}

func lockCancelled(f *fixture) {
	f.locked()
	f.put("key", nil)
	ctx, cancel := context.WithCancel(f.Context())
	cancel()
	_, err := f.locker.Lock(ctx, f.id("key"))
	f.is(err, context.Canceled)
	_, err = f.locker.LockConfig(ctx, f.bucket)
	f.is(err, context.Canceled)
	f.is(f.locker.CreateLockedBucket(ctx, bucketName()), context.Canceled)
	f.is(f.locker.SetLockConfig(ctx, f.bucket, backends.LockConfig{Enabled: true, Mode: backends.Governance, Days: 1}), context.Canceled)
	f.is(f.locker.SetRetention(ctx, f.id("key"), backends.Governance, in(time.Hour), false), context.Canceled)
	f.is(f.locker.SetHold(ctx, f.id("key"), true), context.Canceled)
	f.isLocked("key", "", backends.Lock{})
	if c, err := f.locker.LockConfig(f.Context(), f.bucket); c != (backends.LockConfig{Enabled: true}) || err != nil {
		f.Errorf("the lock is %+v, %v", c, err)
	}
}
