package keys

import (
	"testing"
	"time"

	"chatelaine/kms"
)

func TestAPushedShreddingEndsTheKeysOfItsBucketAtOnceAndNoOthers(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		b, kept := w.bucket(t, "b"), w.bucket(t, "kept") // under the same KEK
		id, keptID := w.current(t, b).ID, w.current(t, kept).ID
		time.Sleep(time.Second) // the stream stands
		asked := w.network.count("Renew")
		if _, err := w.kms.ShredBucket(t.Context(), "b", kms.Change{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(pushed)
		wantErr(t, w.Live(id), ErrBlocked)
		_, err := w.Current(t.Context(), b)
		wantErr(t, err, ErrBlocked)
		_, err = w.ByID(t.Context(), b, id)
		wantErr(t, err, ErrBlocked)
		wantErr(t, w.Live(keptID), nil)
		if w.current(t, kept).ID != keptID {
			t.Error("the other bucket has another key")
		}
		if n := w.network.count("Renew") - asked; n != 0 {
			t.Errorf("%d renewals: it was not the push", n)
		}
		if got, err := w.Bucket(t.Context(), "b"); err != nil || !got.Shredded || !got.Active {
			t.Errorf("got %+v, %v", got, err)
		}
		wantErr(t, w.ConfirmMirror(t.Context(), b, id, []byte("{}")), kms.ErrInvalid)
	})
}

func TestAGatewayTellsOfTheSweepOfAShreddedBucket(t *testing.T) {
	w := newWorld(t, Config{})
	b := w.bucket(t, "b")
	id := w.current(t, b).ID
	if _, err := w.kms.ShredBucket(t.Context(), "b", kms.Change{}); err != nil {
		t.Fatal(err)
	}
	todo, err := w.Work(t.Context())
	if err != nil || len(todo.Unswept) != 1 || todo.Unswept[0].Space != b.Space {
		t.Fatalf("got %+v, %v", todo, err)
	}
	sweep := Sweep{Bucket: b, Mirrors: 1, Seen: 2, Samples: []Sample{{"o", id[:]}, {Object: "plain"}}}
	left := sweep
	left.Left = 1
	wantErr(t, w.Swept(t.Context(), left), kms.ErrConflict)
	if err := w.Swept(t.Context(), sweep); err != nil {
		t.Fatal(err)
	}
	s, err := w.kms.ShredOf(t.Context(), "b")
	if err != nil || s.State != kms.ShredDone || s.Sweep.Samples[0].KeyID != kms.KeyID(id).String() || s.Sweep.Samples[1].KeyID != "" {
		t.Errorf("got %+v, %v", s, err)
	}
	if todo, err := w.Work(t.Context()); err != nil || len(todo.Unswept) != 0 {
		t.Errorf("got %+v, %v", todo, err)
	}
}
