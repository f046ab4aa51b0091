package hostile

import (
	"bytes"
	"errors"
	"maps"
	"testing"
	"time"

	"chatelaine/backends"
	"chatelaine/gateway/objects"
)

// TestTheJudgeFindsLies gives the judge answers that are false in one thing each.
func TestTheJudgeFindsLies(t *testing.T) {
	errCut := errors.New("cut")
	old := &version{plain: []byte("the text before"), parts: []part{{length: 15}}}
	now := &version{
		plain: []byte("some text"), parts: []part{{length: 9}}, sums: []objects.Checksum{{Algorithm: objects.MD5, Value: []byte{1}}},
		attrs: objects.Attributes{ContentType: "text/x", CacheControl: "none", Metadata: map[string]string{"note": "a"}},
	}
	type said struct {
		st   objects.Stat
		span objects.Span
		body []byte
		err  error
	}
	for _, tt := range []struct {
		name   string
		older  bool
		change func(*said)
		want   outcome
	}{
		{"nothing", false, func(*said) {}, truthful},
		{"cut", false, func(s *said) { s.body, s.err = s.body[:4], errCut }, cut},
		{"cut before the first byte", false, func(s *said) { s.body, s.err = nil, errCut }, cut},
		{"short", false, func(s *said) { s.body = s.body[:8] }, wrong},
		{"long", false, func(s *said) { s.body = append(s.body, 0) }, wrong},
		{"a byte", false, func(s *said) { s.body[3]++ }, wrong},
		{"a byte before a cut", false, func(s *said) { s.body[3]++; s.body, s.err = s.body[:5], errCut }, wrong},
		{"the span", false, func(s *said) { s.span.Offset, s.span.Length, s.body = 1, 8, s.body[1:] }, wrong},
		{"the size", false, func(s *said) { s.st.Size++ }, wrong},
		{"the parts", false, func(s *said) { s.st.Parts = 2 }, wrong},
		{"the type", false, func(s *said) { s.st.ContentType = "text/y" }, wrong},
		{"the metadata", false, func(s *said) { s.st.Metadata = nil }, wrong},
		{"a checksum", false, func(s *said) { s.st.Checksums = []objects.Checksum{{Algorithm: objects.MD5, Value: []byte{2}}} }, wrong},
		{"a checksum of another kind", false, func(s *said) { s.st.Checksums = []objects.Checksum{{Algorithm: objects.SHA1, Value: []byte{1}}} }, wrong},
		{"the version before", false, func(s *said) { *s = said{objects.Stat{Size: 15}, objects.Span{Length: 15}, old.plain, nil} }, wrong},
		{"the version before, where that may be", true, func(s *said) { *s = said{objects.Stat{Size: 15}, objects.Span{Length: 15}, old.plain, nil} }, known},
		{"the metadata of the version before alone", true, func(s *said) { s.st.Attributes = old.attrs }, wrong},
	} {
		s := said{objects.Stat{Size: 9, Attributes: now.attrs, Checksums: now.sums}, objects.Span{Length: 9}, bytes.Clone(now.plain), nil}
		s.st.Metadata = maps.Clone(s.st.Metadata)
		tt.change(&s)
		trial := &trial{gen: &gen{s: &subject{now: now, old: old}}, kind: kind{older: tt.older}}
		if got := trial.judge(all, s.st, s.span, s.body, s.err); got.outcome != tt.want {
			t.Errorf("%s: got %v (%s), want %v", tt.name, got.outcome, got.why, tt.want)
		}
	}
}

// TestPlaintextIsKnownWhereNobodyCouldTell gives answers about plaintext of which each but
// the first says itself that it is not what was asked for.
func TestPlaintextIsKnownWhereNobodyCouldTell(t *testing.T) {
	cutOff := time.Unix(1000, 0)
	for name, tt := range map[string]struct {
		change func(a *adoptee, r *reply)
		want   bool
	}{
		"one that holds":          {func(*adoptee, *reply) {}, true},
		"below the cursor":        {func(a *adoptee, _ *reply) { a.state = sealedBelow }, false},
		"after the cut-off":       {func(_ *adoptee, r *reply) { r.info.Modified = cutOff.Add(1) }, false},
		"with an envelope":        {func(_ *adoptee, r *reply) { r.info.Attributes.Metadata = map[string]string{"cho1": "1."} }, false},
		"another range":           {func(_ *adoptee, r *reply) { r.said.Offset++ }, false},
		"another ETag":            {func(_ *adoptee, r *reply) { r.info.ETag = "b" }, false},
		"another size":            {func(_ *adoptee, r *reply) { r.info.Size++ }, false},
		"a body that is cut":      {func(_ *adoptee, r *reply) { r.body = r.body.cut(0, 3) }, false},
		"a body of another range": {func(_ *adoptee, r *reply) { r.body = rope{[]byte("ther")} }, false},
	} {
		a := &adoptee{state: plainAbove, cutOff: cutOff, view: &view{}}
		r := reply{
			info: backends.Info{Size: 7, ETag: "a", Modified: cutOff}, wanted: &backends.Range{Offset: 1, Length: 4}, pins: []string{"a"},
			said: backends.Range{Offset: 1, Length: 4}, body: rope{[]byte("noth")},
		}
		tt.change(a, &r)
		a.view.told = []reply{r}
		if got := a.mayBe(objects.Stat{Size: 7}, []byte("noth"), nil); got != tt.want {
			t.Errorf("%s: got %t, want %t", name, got, tt.want)
		}
	}
}
