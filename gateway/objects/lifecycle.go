package objects

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/sealed"
)

// ErrRuleScope: a lifecycle rule would also delete the gateway's own objects.
var ErrRuleScope = errors.New("the rule would also reach the gateway's own objects")

const uploadsPrefix = ReservedPrefix + "uploads/"

// CarriesLifecycle is nil where a bucket's backend can carry out lifecycle rules:
// ErrUnsupported where it cannot, and so has none to give back or to remove.
func (s *Service) CarriesLifecycle(b keys.Bucket) error {
	_, err := capability[backends.Lifecycler](s, b)
	return err
}

// SetLifecycle has the backend carry out a client's rules in place of those of
// before; none removes them. The sizes of rules are of plaintext. Errors:
// ErrUnsupported, ErrRuleScope.
func (s *Service) SetLifecycle(ctx context.Context, b keys.Bucket, rules []backends.LifecycleRule) error {
	l, err := capability[backends.Lifecycler](s, b)
	if err != nil {
		return err
	}
	if b.Guarded && slices.ContainsFunc(rules, expires) {
		return wrap(ErrGuarded, "setting rules that delete objects of", b)
	}
	stored, err := storedRules(rules)
	if err != nil {
		return fmt.Errorf("objects: %w", err)
	}
	err = l.SetLifecycle(ctx, b.StoreName, stored)
	if errors.Is(err, backends.ErrUnsupported) {
		err = fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return wrap(err, "setting the lifecycle rules of", b)
}

// storedRules are the rules as the backend must have them.
func storedRules(rules []backends.LifecycleRule) ([]backends.LifecycleRule, error) {
	var out []backends.LifecycleRule
	abort := 0 // days after which all uploads have ended
	for _, r := range rules {
		if reachesReserved(r) {
			return nil, fmt.Errorf("rule %.60q: %w", r.ID, ErrRuleScope)
		}
		if r.Prefix == "" && r.AbortDays > 0 && (abort == 0 || r.AbortDays < abort) {
			abort = r.AbortDays
		}
		if r.AtLeast <= sealed.MaxLength { // nothing is larger
			out = append(out, withStoredSizes(r))
		}
	}
	if abort > 0 {
		out = append(out, stashRules(out, abort+1)...)
	}
	return out, nil
}

// withStoredSizes asks for stored sizes in place of plaintext ones: the size law
// grows with the plaintext, however an object was uploaded.
func withStoredSizes(r backends.LifecycleRule) backends.LifecycleRule {
	if r.AtLeast > 0 {
		r.AtLeast = sealed.Size(r.AtLeast)
	}
	if r.Below > sealed.MaxLength {
		r.Below = 0
	} else if r.Below > 0 {
		r.Below = sealed.Size(r.Below)
	}
	return r
}

// reachesReserved says whether a rule would delete what the gateway needs: mirrored
// keys and configurations are as old as their bucket. Rules have no way to leave out
// a prefix. The gateway's objects have no tags, so rules for tags pass them by, and
// of older versions, markers and uploads nobody needs the gateway's own.
func reachesReserved(r backends.LifecycleRule) bool {
	if strings.HasPrefix(r.Prefix, ReservedPrefix) {
		return true
	}
	return expires(r) && len(r.Tags) == 0 && strings.HasPrefix(ReservedPrefix, r.Prefix)
}

// expires says whether a rule has the provider delete newest versions.
func expires(r backends.LifecycleRule) bool { return r.ExpireDays > 0 || !r.ExpireDate.IsZero() }

// stashRules delete what ended uploads have left, days after they began. The stash
// of an upload is made right after it.
func stashRules(others []backends.LifecycleRule, days int) []backends.LifecycleRule {
	id := "chatelaine-uploads"
	for slices.ContainsFunc(others, func(r backends.LifecycleRule) bool { return strings.HasPrefix(r.ID, id) }) {
		id += "-"
	}
	return []backends.LifecycleRule{
		{ID: id, Prefix: uploadsPrefix, ExpireDays: days, NoncurrentDays: 1},
		{ID: id + "-markers", Prefix: uploadsPrefix, ExpireMarkers: true},
	}
}
