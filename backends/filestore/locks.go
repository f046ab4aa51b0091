package filestore

import (
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"sync"
	"syscall"
)

const stripes = 256

// locks serialize changes of a key among goroutines, by mutexes, and among
// processes, by flock(2), which a killed process lets go of. They are held for
// microseconds: never while a body moves.
type locks struct {
	stripes [stripes]struct {
		sync.Mutex
		file *os.File
	}
}

func openLocks(dir string) (*locks, error) {
	l := &locks{}
	for i := range l.stripes {
		f, err := os.OpenFile(fmt.Sprintf("%s/%02x", dir, i), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, errors.Join(mapped(err), l.close())
		}
		l.stripes[i].file = f
	}
	return l, nil
}

func (l *locks) close() error {
	var errs []error
	for i := range l.stripes {
		if f := l.stripes[i].file; f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// with runs do while no other change of the key, or of its whole bucket, is under way.
func (l *locks) with(bucket, key string, do func() error) error {
	h := fnv.New32a()
	h.Write([]byte(bucket + "/" + key))
	i := int(h.Sum32() % stripes)
	if err := l.lock(i); err != nil {
		return err
	}
	defer l.unlock(i)
	return do()
}

// withAll runs do while no change at all is under way. Stripes are always taken in
// ascending order, so two callers cannot block each other.
func (l *locks) withAll(do func() error) error {
	for i := range l.stripes {
		if err := l.lock(i); err != nil {
			return err
		}
		defer l.unlock(i)
	}
	return do()
}

func (l *locks) lock(i int) error {
	s := &l.stripes[i]
	s.Lock()
	if err := flock(s.file, syscall.LOCK_EX); err != nil {
		s.Unlock()
		return fmt.Errorf("locking %q: %w", s.file.Name(), err)
	}
	return nil
}

func (l *locks) unlock(i int) {
	s := &l.stripes[i]
	flock(s.file, syscall.LOCK_UN) //nolint:errcheck // nothing can be done, and closing unlocks too
	s.Unlock()
}

func flock(f *os.File, how int) error {
	for {
		err := syscall.Flock(int(f.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// tryLock takes the lock of a file that is only held by its user; false means that
// somebody else holds it.
func tryLock(f *os.File) bool {
	return flock(f, syscall.LOCK_EX|syscall.LOCK_NB) == nil
}
