package main

import (
	"context"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"chatelaine/hsm"
	kmsconfig "chatelaine/kms/config"
)

func TestTokensURINamesModuleTokenAndPIN(t *testing.T) {
	pin := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(pin, []byte("1234\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]kmsconfig.Token{
		"label":        {Module: "/m.so", Name: "a", PINFile: pin},
		"URI":          {Name: "pkcs11:token=a?module-path=/m.so&pin-source=" + pin},
		"file URI":     {Name: "pkcs11:token=a?module-path=/m.so&pin-source=file:" + pin},
		"file:// URI":  {Name: "pkcs11:token=a?module-path=/m.so&pin-source=file://" + pin},
		"both are set": {Module: "/m.so", Name: "pkcs11:token=a?module-path=/n.so&pin-source=/none", PINFile: pin},
	} {
		got, err := tokenConfig(c)
		if err != nil || got.Module != "/m.so" || got.Token != (hsm.Selector{Label: "a"}) {
			t.Errorf("%s: got %+v, %v", name, got, err)
			continue
		}
		_ = got.PIN.Use(func(digits string) error {
			if digits != "1234" {
				t.Errorf("%s: another PIN", name)
			}
			return nil
		})
	}
	if _, err := tokenConfig(kmsconfig.Token{Module: "/m.so", Name: "pkcs11:token=a?pin-source=|/bin/echo"}); err == nil || !strings.Contains(err.Error(), "names a program") {
		t.Errorf("a program: got %v", err)
	}
}

func TestFurtherTokensInheritModuleAndPIN(t *testing.T) {
	first := kmsconfig.Token{Module: "/m.so", Name: "a", PINFile: "/pin"}
	for token, want := range map[kmsconfig.Token]kmsconfig.Token{
		{Name: "b"}: {Module: "/m.so", Name: "b", PINFile: "/pin"},
		{Name: "b", Module: "/n.so", PINEnv: "B"}:  {Module: "/n.so", Name: "b", PINEnv: "B"},
		{Name: "pkcs11:token=b?module-path=/n.so"}: {Name: "pkcs11:token=b?module-path=/n.so", PINFile: "/pin"},
		{Name: "pkcs11:token=b?pin-source=/other"}: {Module: "/m.so", Name: "pkcs11:token=b?pin-source=/other"},
	} {
		if got := inherit(token, first); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestHSMMetricsShowCallsSessionsAndBreaker(t *testing.T) {
	w := newHSMWatch()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(w)
	w.observe("encrypt", "CKR_OK", time.Millisecond)
	w.observe("decrypt", "CKR_DEVICE_ERROR", time.Millisecond)
	w.states["old"] = func() []hsm.State {
		return []hsm.State{{Token: "a", Sessions: 4, Busy: 3}, {Token: "b", Open: true}}
	}
	w.states["new"] = func() []hsm.State { return []hsm.State{{Token: "a", Sessions: 2}} }
	recorder := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(recorder, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		`chatelaine_hsm_breaker_open{provider="old",token="a"} 0`,
		`chatelaine_hsm_breaker_open{provider="old",token="b"} 1`,
		`chatelaine_hsm_calls_total{code="CKR_DEVICE_ERROR",op="decrypt"} 1`,
		`chatelaine_hsm_calls_total{code="CKR_OK",op="encrypt"} 1`,
		`chatelaine_hsm_call_seconds_count{op="encrypt"} 1`,
		`chatelaine_hsm_sessions{provider="old",token="a"} 4`,
		`chatelaine_hsm_sessions{provider="new",token="a"} 2`,
		`chatelaine_hsm_sessions_in_use{provider="old",token="a"} 3`,
	} {
		if !strings.Contains(recorder.Body.String(), want+"\n") {
			t.Errorf("there is no %s in\n%s", want, recorder.Body)
		}
	}
}

func TestACallThatHangsEndsTheKMS(t *testing.T) {
	w := newHSMWatch()
	for range 3 {
		w.hangs("decrypt") // never blocks
	}
	if err := w.wait(t.Context()); err == nil || exitCode(err) != exitFailure || !strings.Contains(err.Error(), "decrypt") {
		t.Errorf("got %v, want an error that a supervisor restarts after", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := newHSMWatch().wait(ctx); err != nil {
		t.Errorf("at the end: %v", err)
	}
}

func TestCallsThatWaitGetThreadsOfTheirOwn(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	token := func(sessions int) kmsconfig.Provider {
		return kmsconfig.Provider{PKCS11: &kmsconfig.PKCS11{MaxSessions: sessions}}
	}
	for name, tc := range map[string]struct {
		c           kmsconfig.Config
		environment string
		more        int
	}{
		"no HSM":      {kmsconfig.Config{Provider: kmsconfig.Provider{SoftKey: &kmsconfig.SoftKey{}}}, "", 0},
		"four":        {kmsconfig.Config{Provider: token(4)}, "", 4},
		"two HSMs":    {kmsconfig.Config{Provider: token(4), Providers: map[string]kmsconfig.Provider{"b": token(3)}}, "", 7},
		"the default": {kmsconfig.Config{Provider: token(0)}, "", mostWaiting},
		"environment": {kmsconfig.Config{Provider: token(4)}, "2", 0},
	} {
		t.Setenv("GOMAXPROCS", tc.environment)
		runtime.GOMAXPROCS(before)
		makeRoom(tc.c)
		if got := runtime.GOMAXPROCS(0) - before; got != tc.more {
			t.Errorf("%s: %d more, want %d", name, got, tc.more)
		}
	}
}
