package kms

import (
	"errors"
	"slices"
	"testing"
	"time"
)

func TestKeyStatesAllowWhatNISTAllows(t *testing.T) {
	all := []KeyState{PreActive, Active, Suspended, Deactivated, Compromised, Destroyed}
	tests := []struct {
		state                    KeyState
		to                       []KeyState
		wraps, unwraps, isNeeded bool
	}{
		{PreActive, []KeyState{Active, Compromised, Destroyed}, false, false, false},
		{Active, []KeyState{Suspended, Deactivated, Compromised}, true, true, true},
		{Suspended, []KeyState{Active, Deactivated, Compromised}, false, false, true},
		{Deactivated, []KeyState{Suspended, Compromised, Destroyed}, false, true, true},
		{Compromised, []KeyState{Suspended, Destroyed}, false, true, true},
		{Destroyed, nil, false, false, false},
		{"unheard-of", nil, false, false, true},
	}
	for _, test := range tests {
		s := test.state
		if s.CanWrap() != test.wraps || s.CanUnwrap() != test.unwraps || s.needed() != test.isNeeded {
			t.Errorf("%s: wraps %t, unwraps %t, needed %t", s, s.CanWrap(), s.CanUnwrap(), s.needed())
		}
		for _, to := range all {
			v := KEKVersion{State: s}
			err := v.change(StateChange{State: to, At: time.Now(), Actor: "test"})
			if legal := slices.Contains(test.to, to); legal != (err == nil) || !legal && !errors.Is(err, ErrInvalid) {
				t.Errorf("%s to %s: %v", s, to, err)
			}
			if moved := v.State == to && len(v.History) == 1; err == nil && !moved {
				t.Errorf("%s to %s: is %s with history %v", s, to, v.State, v.History)
			}
		}
	}
}
