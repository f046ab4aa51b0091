package hsm_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"chatelaine/hsm"
)

func TestPINIsNotPrinted(t *testing.T) {
	const digits = "48151623"
	pin := hsm.NewPIN(digits)
	type hidden struct{ pin hsm.PIN }
	cfg := hsm.Config{PIN: pin}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+" "+verb+" "+verb+" "+verb+"\n", pin, &pin, hidden{pin}, cfg)
	}
	encoded, err := json.Marshal(struct{ PIN hsm.PIN }{pin})
	if err != nil {
		t.Fatal(err)
	}
	out.Write(encoded)
	core, logs := observer.New(zapcore.DebugLevel)
	zap.New(core).Info("", zap.Any("a", pin), zap.Any("b", cfg), zap.Stringer("c", pin))
	for _, entry := range logs.All() {
		fmt.Fprint(&out, entry.ContextMap())
	}
	for _, form := range []string{digits, fmt.Sprintf("%x", digits), fmt.Sprint([]byte(digits))} {
		if strings.Contains(out.String(), form) {
			t.Errorf("the PIN is in the output as %q:\n%s", form, out.String())
		}
	}
}

func TestPINIsUsedAsGiven(t *testing.T) {
	for _, want := range []string{"", "1234"} {
		var got string
		err := hsm.NewPIN(want).Use(func(pin string) error { got = pin; return nil })
		if err != nil || got != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	if !hsm.NewPIN("").IsZero() || hsm.NewPIN("1").IsZero() {
		t.Error("only the empty PIN is zero")
	}
}
