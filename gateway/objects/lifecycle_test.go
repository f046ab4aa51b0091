package objects

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"chatelaine/backends"
	"chatelaine/gateway/sealed"
)

// ruled is a store that carries out rules, and says which.
type ruled struct {
	backends.Store
	rules []backends.LifecycleRule
	err   error
}

func (r *ruled) SetLifecycle(_ context.Context, _ string, rules []backends.LifecycleRule) error {
	r.rules = rules
	return r.err
}

func (w *world) ruled() *ruled {
	r := &ruled{Store: w.store}
	w.stores["main"] = r
	return r
}

func TestRulesReachTheBackendWithStoredSizes(t *testing.T) {
	w := newWorld(t)
	store := w.ruled()
	date := time.Date(2030, 1, 2, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct{ rule, want backends.LifecycleRule }{
		"a prefix":     {backends.LifecycleRule{Prefix: "logs/", ExpireDays: 3}, backends.LifecycleRule{Prefix: "logs/", ExpireDays: 3}},
		"beside":       {backends.LifecycleRule{Prefix: ".chatelaine2", ExpireDate: date}, backends.LifecycleRule{Prefix: ".chatelaine2", ExpireDate: date}},
		"a tag":        {backends.LifecycleRule{Tags: backends.Tags{"a": "b"}, ExpireDays: 3}, backends.LifecycleRule{Tags: backends.Tags{"a": "b"}, ExpireDays: 3}},
		"old versions": {backends.LifecycleRule{NoncurrentDays: 3, NoncurrentKeep: 2}, backends.LifecycleRule{NoncurrentDays: 3, NoncurrentKeep: 2}},
		"markers":      {backends.LifecycleRule{ExpireMarkers: true}, backends.LifecycleRule{ExpireMarkers: true}},
		"uploads":      {backends.LifecycleRule{Prefix: "a", AbortDays: 3}, backends.LifecycleRule{Prefix: "a", AbortDays: 3}},
		"sizes": {
			backends.LifecycleRule{Prefix: "a", ExpireDays: 1, AtLeast: 1, Below: 20 << 20},
			backends.LifecycleRule{Prefix: "a", ExpireDays: 1, AtLeast: sealed.Size(1), Below: sealed.Size(20 << 20)},
		},
		"no upper bound": {backends.LifecycleRule{Prefix: "a", ExpireDays: 1, Below: sealed.MaxLength + 1}, backends.LifecycleRule{Prefix: "a", ExpireDays: 1}},
	} {
		if err := w.SetLifecycle(t.Context(), w.bucket, []backends.LifecycleRule{c.rule}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if want := []backends.LifecycleRule{c.want}; !reflect.DeepEqual(store.rules, want) {
			t.Errorf("%s: got %+v, want %+v", name, store.rules, want)
		}
	}
	larger := backends.LifecycleRule{Prefix: "a", ExpireDays: 1, AtLeast: sealed.MaxLength + 1}
	if err := w.SetLifecycle(t.Context(), w.bucket, []backends.LifecycleRule{larger}); err != nil || len(store.rules) != 0 {
		t.Errorf("larger than all: got %+v and %v, want no rule", store.rules, err)
	}
}

func TestNoRuleReachesReservedNames(t *testing.T) {
	w := newWorld(t)
	store := w.ruled()
	for _, prefix := range []string{"", ".", ".chatelaine", ".chatelaine/", ".chatelaine/keys/", ".chatelaine/uploads/x"} {
		for _, r := range []backends.LifecycleRule{
			{ExpireDays: 1},
			{ExpireDate: time.Date(2030, 1, 2, 0, 0, 0, 0, time.UTC)},
			{ExpireDays: 1, AtLeast: 1 << 30, Below: 1 << 40},
			{ExpireDays: 1, AbortDays: 1},
		} {
			r.Prefix = prefix
			harmless := backends.LifecycleRule{ID: "h", Prefix: "h", ExpireDays: 1}
			if err := w.SetLifecycle(t.Context(), w.bucket, []backends.LifecycleRule{harmless, r}); !errors.Is(err, ErrRuleScope) {
				t.Errorf("%+v: got %v, want %v", r, err, ErrRuleScope)
			}
		}
	}
	tagged := backends.LifecycleRule{Prefix: ".chatelaine/config/", Tags: backends.Tags{"a": "b"}, ExpireDays: 1}
	if err := w.SetLifecycle(t.Context(), w.bucket, []backends.LifecycleRule{tagged}); !errors.Is(err, ErrRuleScope) {
		t.Errorf("a reserved prefix with a tag: got %v, want %v", err, ErrRuleScope)
	}
	if store.rules != nil {
		t.Errorf("rules have reached the backend: %+v", store.rules)
	}
}

func TestUploadsThatAreAbortedTakeTheirStashesWithThem(t *testing.T) {
	w := newWorld(t)
	store := w.ruled()
	all := []backends.LifecycleRule{{ID: "chatelaine-uploads", AbortDays: 7}, {ID: "b", AbortDays: 3}, {ID: "c", Prefix: "c", AbortDays: 1}}
	if err := w.SetLifecycle(t.Context(), w.bucket, all); err != nil {
		t.Fatal(err)
	}
	want := append(all,
		backends.LifecycleRule{ID: "chatelaine-uploads-", Prefix: ".chatelaine/uploads/", ExpireDays: 4, NoncurrentDays: 1},
		backends.LifecycleRule{ID: "chatelaine-uploads--markers", Prefix: ".chatelaine/uploads/", ExpireMarkers: true})
	if !reflect.DeepEqual(store.rules, want) {
		t.Errorf("got %+v, want %+v", store.rules, want)
	}
	if err := w.SetLifecycle(t.Context(), w.bucket, all[2:]); err != nil || len(store.rules) != 1 {
		t.Errorf("uploads of some keys: got %+v and %v, want the client's rule alone", store.rules, err)
	}
	if dir := sealed.StashDir("x"); dir[:len(uploadsPrefix)] != uploadsPrefix {
		t.Errorf("stashes lie in %q", dir)
	}
}

func TestABackendThatRefusesRulesIsUnsupported(t *testing.T) {
	w := newWorld(t)
	if err := w.SetLifecycle(t.Context(), w.bucket, nil); !errors.Is(err, ErrUnsupported) {
		t.Errorf("without the capability: got %v, want %v", err, ErrUnsupported)
	}
	if err := w.CarriesLifecycle(w.bucket); !errors.Is(err, ErrUnsupported) {
		t.Errorf("without the capability: got %v, want %v", err, ErrUnsupported)
	}
	store := w.ruled()
	if err := w.CarriesLifecycle(w.bucket); err != nil {
		t.Errorf("with the capability: got %v", err)
	}
	for _, tt := range []struct{ err, want error }{
		{backends.ErrUnsupported, ErrUnsupported}, {backends.ErrUnavailable, backends.ErrUnavailable},
	} {
		store.err = tt.err
		if err := w.SetLifecycle(t.Context(), w.bucket, nil); !errors.Is(err, tt.want) {
			t.Errorf("%v: got %v, want %v", tt.err, err, tt.want)
		}
	}
}

func TestAConfigurationIsNotStoredThatCouldNotBeRead(t *testing.T) {
	w := newWorld(t)
	if err := w.SetBucketConfig(t.Context(), w.bucket, "x", make([]byte, MaxConfig)); err != nil {
		t.Error(err)
	}
	if err := w.SetBucketConfig(t.Context(), w.bucket, "x", make([]byte, MaxConfig+1)); !errors.Is(err, ErrBodyTooLarge) {
		t.Errorf("got %v, want %v", err, ErrBodyTooLarge)
	}
}
