package backendtest

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"

	"chatelaine/backends"
)

func concurrencyTests() map[string]func(*fixture) {
	return map[string]func(*fixture){
		"OneOf32ConditionalCreatesWins":     concurrentCreates,
		"CompareAndSwapLosesNoIncrement":    concurrentSwaps,
		"ReadersSeeOneWholeObjectOrAnother": concurrentOverwrites,
		"FoldersThatComeAndGoLoseNothing":   concurrentFolders,
		"DeletesAndPutsOfOneKeyGetAlong":    concurrentDeletes,
	}
}

// lost says that a conditional request was beaten by another.
func lost(err error) bool {
	return errors.Is(err, backends.ErrPrecondition) || errors.Is(err, backends.ErrConflict)
}

func concurrentCreates(f *fixture) {
	for round := range 5 {
		key := fmt.Sprintf("locks/%d/lock", round)
		var winners atomic.Int64
		var winner atomic.Value
		f.each(32, func(i int) error {
			data := []byte(strconv.Itoa(i))
			_, err := f.putIf(key, data, backends.Conditions{IfNoneMatch: []string{"*"}})
			if lost(err) {
				return nil
			}
			winners.Add(1)
			winner.Store(data)
			return err
		})
		if n := winners.Load(); n != 1 {
			f.Fatalf("%d of 32 creates succeeded", n)
		}
		f.holds(key, winner.Load().([]byte))
	}
}

// concurrentSwaps counts in an object, as lock files and table formats do.
func concurrentSwaps(f *fixture) {
	if f.opts.NoIfMatch {
		f.Skip("the store refuses If-Match, which another test checks")
	}
	f.put("counter", []byte("0"))
	var swaps atomic.Int64
	f.each(16, func(int) error {
		for range 10 {
			o, data, err := f.tryRead("counter", nil)
			if err != nil {
				return err
			}
			n, err := strconv.Atoi(string(data))
			if err != nil {
				return err
			}
			_, err = f.putIf("counter", []byte(strconv.Itoa(n+1)), backends.Conditions{IfMatch: []string{o.ETag}})
			if err == nil {
				swaps.Add(1)
			} else if !lost(err) {
				return err
			}
		}
		return nil
	})
	f.holds("counter", []byte(strconv.FormatInt(swaps.Load(), 10)))
}

func concurrentOverwrites(f *fixture) {
	versions := make([][]byte, 4)
	for i := range versions {
		versions[i] = random(200<<10+i*70<<10, byte(i))
	}
	f.put("key", versions[0])
	f.each(8, func(i int) error {
		for round := range 10 {
			if i < len(versions) {
				attrs := backends.Attributes{Metadata: map[string]string{"version": strconv.Itoa(i)}}
				if _, err := f.store.Put(f.Context(), f.id("key"), bodyOf(versions[i]), &backends.PutOptions{Attributes: attrs}); err != nil {
					return err
				}
				continue
			}
			if err := f.readVersion(versions); err != nil {
				return fmt.Errorf("round %d: %w", round, err)
			}
		}
		return nil
	})
}

// readVersion wants bytes, size and metadata to be of one and the same version.
func (f *fixture) readVersion(versions [][]byte) error {
	o, data, err := f.tryRead("key", nil)
	if err != nil {
		return err
	}
	i, _ := strconv.Atoi(o.Attributes.Metadata["version"])
	if !bytes.Equal(data, versions[i]) || o.Size != int64(len(data)) {
		return fmt.Errorf("metadata of version %d with %d bytes, size %d", i, len(data), o.Size)
	}
	return nil
}

// concurrentFolders deletes the last object of a folder while others come.
func concurrentFolders(f *fixture) {
	f.each(16, func(i int) error {
		for round := range 12 {
			key := fmt.Sprintf("x/y/z/%d-%d", i, round)
			if _, err := f.putIf(key, []byte(key), backends.Conditions{}); err != nil {
				return err
			}
			if _, data, err := f.tryRead(key, nil); err != nil || string(data) != key {
				return fmt.Errorf("reading back %q: %q, %w", key, data, err)
			}
			if _, err := f.store.Delete(f.Context(), f.id(key), nil); err != nil {
				return err
			}
		}
		return nil
	})
	if got := f.listAll(backends.ListOptions{}); len(got) != 0 {
		f.Errorf("left over: %q", got)
	}
}

func concurrentDeletes(f *fixture) {
	f.each(16, func(i int) error {
		for range 10 {
			var err error
			switch i % 3 {
			case 0:
				_, err = f.store.Delete(f.Context(), f.id("a/key"), nil)
			case 1:
				_, err = f.putIf("a/key", []byte("data"), backends.Conditions{})
				if f.opts.DeletesCollide && errors.Is(err, backends.ErrUnavailable) {
					err = nil
				}
			default:
				var data []byte
				if _, data, err = f.tryRead("a/key", nil); errors.Is(err, backends.ErrNotFound) {
					err = nil
				} else if err == nil && string(data) != "data" {
					err = fmt.Errorf("read %q", data)
				}
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}
