package objects

import (
	"errors"
	"testing"

	"chatelaine/backends"
)

func TestADescribedObjectThatIsReplacedMeanwhileStays(t *testing.T) {
	for name, w := range map[string]*world{"backend's ETags": newWorld(t), "MD5s": newMD5World(t)} {
		w.put("key", []byte("old"))
		store := &replacing{counting: w.store}
		s := w.replica()
		s.stores = map[string]backends.Store{"main": store}
		store.replace = func() { w.put("key", []byte("new")) }
		size := int64(3)
		r := DeleteRequest{Bucket: w.bucket, Key: "key", IfSize: &size}
		if _, err := s.Delete(t.Context(), r); !errors.Is(err, backends.ErrPrecondition) {
			t.Errorf("%s: got %v, want ErrPrecondition", name, err)
		}
		if _, err := s.Delete(t.Context(), r); err != nil {
			t.Errorf("%s: of the one that is there: got %v", name, err)
		}
		if _, err := s.Delete(t.Context(), r); err != nil {
			t.Errorf("%s: of none: got %v", name, err)
		}
	}
}
