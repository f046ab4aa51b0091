package filestore

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"chatelaine/backends"
)

// versionStep is a line of a child that makes and deletes versions. Seed 0 adds a
// delete marker, and Drop deletes a version: 1 is the newest.
type versionStep struct {
	Key  string
	Seed int
	Drop int
	Done bool
}

func (s versionStep) say() {
	line, _ := json.Marshal(s)
	os.Stdout.Write(append(line, '\n'))
}

// apply is the model: the seeds of a key's versions, the newest first, with 0 for
// markers.
func (s versionStep) apply(seeds []int) []int {
	if s.Drop == 0 {
		return append([]int{s.Seed}, seeds...)
	}
	return slices.Delete(slices.Clone(seeds), s.Drop-1, s.Drop)
}

// versionForEver adds and deletes versions in a few goroutines, each with a key of
// its own, until it is killed.
func versionForEver(s *Store) error {
	var wg sync.WaitGroup
	errs := make(chan error, 1)
	for worker := range 6 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(worker)))
			for {
				if err := versionOnce(s, fmt.Sprintf("d%d/key", worker), r); err != nil {
					errs <- err
				}
			}
		})
	}
	return <-errs
}

func versionOnce(s *Store, key string, r *rand.Rand) error {
	ids, err := versionsOf(s, key)
	if err != nil {
		return err
	}
	st := versionStep{Key: key}
	switch n := r.IntN(10); {
	case n < 4:
		st.Seed = 1 + r.IntN(1<<30)
	case n >= 6 && len(ids) > 0:
		st.Drop = 1 + r.IntN(len(ids))
	}
	st.say()
	if st.Drop > 0 {
		_, err = s.Delete(context.Background(), backends.ObjectID{Bucket: "bucket", Key: key, Version: ids[st.Drop-1]}, nil)
	} else {
		err = do(s, step{Key: key, Seed: st.Seed}, r.IntN(3) == 0)
	}
	st.Done = true
	st.say()
	return err
}

func versionsOf(s *Store, key string) (ids []string, err error) {
	page, err := s.ListVersions(context.Background(), "bucket", &backends.ListVersionsOptions{Prefix: key})
	if err != nil {
		return nil, err
	}
	for _, v := range page.Versions {
		ids = append(ids, v.Version)
	}
	return ids, nil
}

// TestEveryAcknowledgedVersionSurvivesKill9 kills a process again and again that
// makes and deletes versions, and wants those of each key to be the acknowledged
// ones, with or without what was under way.
func TestEveryAcknowledgedVersionSurvivesKill9(t *testing.T) {
	root := t.TempDir()
	f := within(t, open(t, root))
	defer f.Close()
	f.set(enabled)
	state, rounds, steps := map[string][]int{}, 15, 0
	for round := range rounds {
		cmd, out := child(t, "version", root)
		kill := time.AfterFunc(time.Duration(30+rand.IntN(150))*time.Millisecond, func() { cmd.Process.Kill() })
		pending := map[string]versionStep{}
		for lines := bufio.NewScanner(out); lines.Scan(); steps++ {
			var st versionStep
			if err := json.Unmarshal(lines.Bytes(), &st); err != nil {
				t.Fatalf("round %d: line %q: %v", round, lines.Bytes(), err)
			}
			if pending[st.Key] = st; st.Done {
				state[st.Key] = st.apply(state[st.Key])
				delete(pending, st.Key)
			}
		}
		kill.Stop()
		if err := cmd.Wait(); cmd.ProcessState.ExitCode() != -1 {
			t.Fatalf("round %d: the child ended by itself: %v", round, err)
		}
		f.settleVersions(state, pending)
	}
	if steps < 10*rounds {
		t.Errorf("only %d steps in %d rounds", steps, rounds)
	}
	t.Logf("%d steps in %d rounds", steps, rounds)
	f.view()
	f.vanish()
}

// settleVersions compares what is there with what must and may be.
func (f inBucket) settleVersions(state map[string][]int, pending map[string]versionStep) {
	f.Helper()
	for worker := range 6 {
		key := fmt.Sprintf("d%d/key", worker)
		got := f.seeds(key)
		want := state[key]
		if st, ok := pending[key]; ok && !slices.Equal(got, want) {
			want = st.apply(want)
		}
		if !slices.Equal(got, want) {
			f.Fatalf("%q has versions %v, want %v; acknowledged are %v, and %+v was under way", key, got, want, state[key], pending[key])
		}
		state[key] = got
	}
}

// seeds reads all versions of a key.
func (f inBucket) seeds(key string) (seeds []int) {
	f.Helper()
	ids, err := versionsOf(f.Store, key)
	if err != nil {
		f.Fatal(err)
	}
	for _, id := range ids {
		o, data, err := f.read(key, id)
		if errors.Is(err, backends.ErrDeleteMarker) {
			seeds = append(seeds, 0)
			continue
		}
		if err != nil {
			f.Fatal(err)
		}
		seed, err := strconv.Atoi(o.Attributes.Metadata["seed"])
		if err != nil || data != string(content(seed)) {
			f.Fatalf("version %q of %q is not whole: seed %d, %v", id, key, seed, err)
		}
		seeds = append(seeds, seed)
	}
	return seeds
}
