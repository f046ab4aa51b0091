package doctor

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chatelaine/hsm"
	"chatelaine/hsm/hsmtest"
)

// says tells whether the report has a finding of a level that says a text and, unless
// it is good, how it is mended.
func says(r *Report, level Level, about, text string) bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool {
		return f.Level == level && strings.HasPrefix(f.About, about) && strings.Contains(f.Text, text) && (f.Mend != "" || level == Good)
	})
}

// makeKeys makes keys in the token, which is closed again.
func makeKeys(t *testing.T, cfg hsm.Config, keys ...hsm.Key) {
	t.Helper()
	token, err := hsm.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if _, err := token.Generate(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAGoodTokenIsFoundGoodWithItsKeysAndSpeeds(t *testing.T) {
	cfg := hsmtest.Token(t)
	makeKeys(t, cfg, hsm.Key{Label: "p-main.v1", Mechanism: hsm.AESGCM}, hsm.Key{Label: "p-other.v12", Mechanism: hsm.RSAOAEPSHA1},
		hsm.Key{Label: "p-unrelated", Mechanism: hsm.AESGCM}, hsm.Key{Label: "q-main.v1", Mechanism: hsm.AESGCM})
	r := Examine(t.Context(), Config{HSM: cfg, Prefix: "p-", KEK: "main", Measure: 20 * time.Millisecond})
	if r.Worst() != Warning || r.Err != nil { // it is SoftHSM
		t.Errorf("got %s, %v: %+v", r.Worst(), r.Err, r.Findings)
	}
	if !says(r, Warning, "token", "SoftHSM") || !says(r, Good, "key p-main.v1", "takes the caller's IV") || !says(r, Good, "key p-other.v12", "rsa-oaep-sha1") {
		t.Errorf("got %+v", r.Findings)
	}
	if len(r.Keys) != 2 || !r.Keys[0].Tested || r.Keys[0].URI == "" || len(r.Keys[0].Objects) != 1 {
		t.Errorf("got %+v", r.Keys)
	}
	if len(r.Rates) != 4 || r.Rates[0].Callers != 1 || r.Rates[3].Callers != 30 {
		t.Errorf("got %+v", r.Rates)
	}
	for _, rate := range r.Rates {
		if rate.PerSecond <= 0 || rate.Median <= 0 || rate.P99 < rate.Median {
			t.Errorf("got %+v", rate)
		}
	}
	text, err := json.Marshal(r)
	if err != nil || strings.Contains(string(text), hsmtest.PIN) {
		t.Errorf("%v, or the report tells the PIN", err)
	}
}

func TestAnEmptyTokenIsTriedWithAKeyThatIsDestroyedAgain(t *testing.T) {
	cfg := hsmtest.Token(t)
	r := Examine(t.Context(), Config{HSM: cfg, KEK: "main", MakeKey: true, Measure: time.Millisecond})
	if r.Err != nil || !says(r, Note, "key main", "no version") || !says(r, Good, "making a key", "doctor-") || len(r.Rates) != 4 {
		t.Errorf("got %v, %+v", r.Err, r.Findings)
	}
	r = Examine(t.Context(), Config{HSM: cfg, Measure: time.Millisecond})
	if len(r.Keys) != 0 || !says(r, Note, "speed", "no key") {
		t.Errorf("the key is still there: %+v", r.Keys)
	}
}

func TestWithoutAPINOnlyThatIsExaminedWhichTheModuleTells(t *testing.T) {
	cfg := hsmtest.Token(t)
	makeKeys(t, cfg, hsm.Key{Label: "main.v1", Mechanism: hsm.AESGCM})
	cfg.PIN = hsm.PIN{}
	r := Examine(t.Context(), Config{HSM: cfg})
	if r.Err != nil || len(r.Keys) != 0 || !says(r, Good, "mechanisms", "aes-gcm") {
		t.Errorf("got %v, %+v", r.Err, r.Findings)
	}
}

func TestAWrongPINIsTriedOnce(t *testing.T) {
	cfg := hsmtest.Token(t)
	cfg.PIN = hsm.NewPIN("00000000")
	logins := 0
	cfg.Observe = func(operation, _ string, _ time.Duration) {
		if operation == "login" {
			logins++
		}
	}
	r := Examine(t.Context(), Config{HSM: cfg, KEK: "main", MakeKey: true, Measure: time.Second})
	if !errors.Is(r.Err, hsm.ErrPIN) || r.Worst() != Failure || !says(r, Failure, "login", "PIN") || logins != 1 {
		t.Errorf("got %v after %d logins, %+v", r.Err, logins, r.Findings)
	}
	// SoftHSM marks the token until the next login.
	r = Examine(t.Context(), Config{HSM: hsm.Config{Module: cfg.Module, Token: cfg.Token}})
	if !says(r, Warning, "token", "wrong PIN") {
		t.Errorf("got %+v", r.Findings)
	}
}

func TestFailuresToReachTheTokenSayWhatToDo(t *testing.T) {
	folder := hsmtest.New(t)
	cfg := folder.Token("one")
	other := cfg
	other.Token = hsm.Selector{Label: "two"}
	noModule := cfg
	noModule.Module = filepath.Join(t.TempDir(), "none.so")
	notOne := cfg
	notOne.Module = filepath.Join(t.TempDir(), "text.so")
	if err := os.WriteFile(notOne.Module, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		cfg   hsm.Config
		is    error
		about string
	}{
		"no such token":  {other, hsm.ErrNoToken, "token"},
		"no such module": {noModule, hsm.ErrModule, "module"},
		"no module":      {notOne, hsm.ErrModule, "module"},
	} {
		r := Examine(t.Context(), Config{HSM: tc.cfg})
		if !errors.Is(r.Err, tc.is) || !says(r, Failure, tc.about, "") {
			t.Errorf("%s: got %v, %+v", name, r.Err, r.Findings)
		}
	}
}

func TestAModuleThatHangsEndsTheExamination(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	_, err := within(t.Context(), time.Millisecond, "loading", func() (int, error) { <-hang; return 0, nil })
	if !errors.Is(err, hsm.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

func TestLabelsOfKEKsAreTold(t *testing.T) {
	for label, want := range map[string]bool{
		"main.v1": true, "a.v2.v3": true, "main.v4294967295": true,
		"main": false, "main.v": false, "main.v0": false, ".v1": false, "main.v1x": false, "main.v-1": false, "main.v4294967296": false,
	} {
		if got := isKEK(label); got != want {
			t.Errorf("%q: got %t", label, got)
		}
	}
	if got := cutPart("main.v1#mac"); got != "main.v1" {
		t.Errorf("got %q", got)
	}
}
