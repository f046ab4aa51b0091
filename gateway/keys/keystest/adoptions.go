package keystest

import (
	"context"
	"time"

	"chatelaine/gateway/keys"
)

// AddAdoption registers a bucket that is to be adopted.
func (r *Ring) AddAdoption(n keys.NewBucket, a keys.Adoption) keys.Bucket {
	b, err := r.RegisterBucket(context.Background(), n)
	if err != nil {
		panic(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	a.Bucket = b
	r.adoptions[n.Name] = a
	return b
}

// TakeAdoption makes another the runner of an adoption.
func (r *Ring) TakeAdoption(bucket, runner string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.runners[bucket] = runner
}

// BeginAdoption is keys.Client's.
func (r *Ring) BeginAdoption(_ context.Context, b keys.Bucket, runner string, cutOff time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return r.fail
	}
	if r.runners[b.Name] != runner {
		return keys.ErrAdoptionTaken
	}
	now := r.buckets[b.Name]
	now.Active, now.Adopting.CutOff = true, cutOff
	r.buckets[b.Name] = now
	r.runners[b.Name] = ""
	return nil
}

// Adopt is keys.Client's, but that a runner that says nothing keeps an adoption until
// TakeAdoption.
func (r *Ring) Adopt(_ context.Context, p keys.AdoptionProgress) (keys.Adoption, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a, ok := r.adoptions[p.Bucket.Name]
	switch {
	case r.fail != nil:
		return a, r.fail
	case !ok, r.runners[p.Bucket.Name] != "" && r.runners[p.Bucket.Name] != p.Runner:
		return a, keys.ErrAdoptionTaken
	}
	b := r.buckets[p.Bucket.Name]
	r.runners[b.Name] = p.Runner
	if p.State != nil {
		a.AdoptionState = *p.State
		b.Adopting.SealedTo = p.State.SealedTo
	}
	if p.Ended || p.Refused != "" || p.Trouble != "" {
		r.ended[b.Name] = p
		r.runners[b.Name] = ""
	}
	if p.Ended && a.Counts.Problems == 0 {
		b.Adopting = keys.Adopting{}
	}
	r.buckets[b.Name] = b
	a.Bucket = b
	r.adoptions[b.Name] = a
	return a, nil
}

// Adopted is what was told of an adoption last, and what was told when it ended.
func (r *Ring) Adopted(bucket string) (keys.Adoption, keys.AdoptionProgress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.adoptions[bucket], r.ended[bucket]
}

// Move makes a bucket lie in another place.
func (r *Ring) Move(name, store, storeName string) keys.Bucket {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.buckets[name]
	b.Store, b.StoreName = store, storeName
	r.buckets[name] = b
	return b
}
