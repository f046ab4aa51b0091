package hsm_test

import (
	"errors"
	"slices"
	"testing"

	"chatelaine/hsm"
	"chatelaine/hsm/hsmtest"
)

func TestSurveyTellsOfModuleSlotsAndMechanismsWithoutAPIN(t *testing.T) {
	cfg := hsmtest.Token(t)
	lib, err := hsm.Load(cfg.Module)
	if err != nil {
		t.Fatal(err)
	}
	about, slots, err := lib.Survey()
	if err != nil || about.Path != cfg.Module || about.Cryptoki == "" || about.Manufacturer == "" {
		t.Errorf("got %+v, %v", about, err)
	}
	found := 0
	for _, s := range slots {
		if s.Token == nil || s.Token.Label != hsmtest.Label {
			continue
		}
		found++
		gcm, ok := s.Token.Mechanism("CKM_AES_GCM")
		if !ok || !gcm.Can("encrypt", "decrypt") || gcm.Can("encrypt", "digest") || gcm.Hardware {
			t.Errorf("AES-GCM: got %+v, %t", gcm, ok)
		}
		if !s.Token.Has("CKF_LOGIN_REQUIRED") || s.Token.Has("CKF_USER_PIN_LOCKED") || s.Token.Serial == "" || s.Token.MaxSessions != nil {
			t.Errorf("got %+v", s.Token)
		}
	}
	if found != 1 || len(slots) < 2 { // SoftHSM always has a blank slot more
		t.Errorf("got %d tokens in %d slots", found, len(slots))
	}
	if err := lib.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := lib.Survey(); !errors.Is(err, hsm.ErrClosed) {
		t.Errorf("after Close: got %v", err)
	}
}

func TestDescribeReadsAttributesAndCheckValues(t *testing.T) {
	token := hsmtest.Open(t)
	for _, label := range []string{"p-main.v1", "p-main.v2"} {
		if _, err := token.Generate(t.Context(), hsm.Key{Label: label, Mechanism: hsm.AESGCM}); err != nil {
			t.Fatal(err)
		}
	}
	objects := describe(t, token, "p-main.v1")
	if len(objects) != 1 || objects[0].Class != "secret key" || objects[0].Type != "AES" || objects[0].Bits != 256 {
		t.Fatalf("got %+v", objects)
	}
	for _, a := range objects[0].Attributes {
		want := a.Want
		if want == "" { // what it may be for
			want = map[string]string{"CKA_ENCRYPT": "true", "CKA_DECRYPT": "true"}[a.Name]
		}
		if want == "" {
			want = "false"
		}
		if a.Value != want {
			t.Errorf("%s: got %s, want %s", a.Name, a.Value, want)
		}
	}
	values := objects[0].CheckValues
	if len(values) == 0 || len(values[0].Value) != 6 {
		t.Fatalf("got %v", values)
	}
	for _, v := range values {
		if v.Value != values[0].Value { // on this token all are of the same block
			t.Errorf("got %v", values)
		}
	}
	if other := describe(t, token, "p-main.v2"); other[0].CheckValues[0] == values[0] {
		t.Errorf("two keys have the check value %v", values[0])
	}
	if none := describe(t, token, "p-main.v3"); len(none) != 0 {
		t.Errorf("got %+v", none)
	}
}

func describe(t *testing.T, token *hsm.Token, label string) []hsm.ObjectFacts {
	t.Helper()
	objects, err := token.Describe(t.Context(), label)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func TestLabelsHavePrefixAndAreListedAsOftenAsThereAreObjects(t *testing.T) {
	token := hsmtest.Open(t)
	for _, key := range []hsm.Key{{"p-a.v1", hsm.AESGCM}, {"p-b.v1", hsm.RSAOAEPSHA1}, {"q-a.v1", hsm.AESGCM}} {
		if _, err := token.Generate(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	got, err := token.Labels(t.Context(), "p-")
	slices.Sort(got)
	if want := []string{"p-a.v1", "p-b.v1", "p-b.v1"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestDialectIsToldOfKeysOfAESGCM(t *testing.T) {
	token := hsmtest.Open(t)
	for _, tc := range []struct {
		mechanism hsm.Mechanism
		want      string
	}{{hsm.AESGCM, "takes the caller's IV"}, {hsm.RSAOAEPSHA1, ""}} {
		key := hsm.Key{Label: string(tc.mechanism), Mechanism: tc.mechanism}
		if _, err := token.Generate(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		if got, err := token.Dialect(t.Context(), key); err != nil || got != tc.want {
			t.Errorf("%s: got %q, %v, want %q", tc.mechanism, got, err, tc.want)
		}
	}
	if _, err := token.Dialect(t.Context(), hsm.Key{Label: "none", Mechanism: hsm.AESGCM}); !errors.Is(err, hsm.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestDescribeTellsPublicHalvesAndCheckValuesOfMACKeys(t *testing.T) {
	token := hsmtest.Open(t)
	for _, label := range []string{"a", "b"} {
		for _, m := range []hsm.Mechanism{hsm.RSAOAEPSHA1, hsm.AESCBCHMAC} {
			if _, err := token.Generate(t.Context(), hsm.Key{Label: label + string(m), Mechanism: m}); err != nil {
				t.Fatal(err)
			}
		}
	}
	halves := describe(t, token, "arsa-oaep-sha1")
	if len(halves) != 2 || halves[0].PublicKey != halves[1].PublicKey || len(halves[0].PublicKey) != 64 || halves[0].Bits != 3072 {
		t.Errorf("got %+v", halves)
	}
	if other := describe(t, token, "brsa-oaep-sha1"); other[0].PublicKey == halves[0].PublicKey {
		t.Error("two keys have one public half")
	}
	mac, other := describe(t, token, "aaes-cbc-hmac#mac"), describe(t, token, "baes-cbc-hmac#mac")
	if len(mac) != 1 || len(mac[0].CheckValues) != 1 || mac[0].CheckValues[0].Method != "CKM_SHA256_HMAC" || mac[0].CheckValues[0] == other[0].CheckValues[0] {
		t.Errorf("got %+v and %+v", mac, other)
	}
}
