package doctor

import (
	"testing"
	"time"

	"chatelaine/hsm"
)

func n(v uint) *uint { return &v }

// device is a token without a fault.
func device(change func(*hsm.TokenFacts)) hsm.TokenFacts {
	t := hsm.TokenFacts{
		Label: "kms", Model: "K7", Flags: []string{"CKF_RNG", "CKF_LOGIN_REQUIRED", "CKF_USER_PIN_INITIALIZED", "CKF_TOKEN_INITIALIZED"},
		MaxSessions: n(100), MaxRWSessions: n(100), Sessions: n(1),
		Mechanisms: []hsm.MechanismFacts{
			{Name: "CKM_AES_GCM", Uses: []string{"encrypt", "decrypt"}}, {Name: "CKM_AES_KEY_GEN", Uses: []string{"generate"}},
		},
	}
	if change != nil {
		change(&t)
	}
	return t
}

func TestTokensAreJudged(t *testing.T) {
	flag := func(name string) func(*hsm.TokenFacts) {
		return func(t *hsm.TokenFacts) { t.Flags = append(t.Flags, name) }
	}
	mechanisms := func(m ...hsm.MechanismFacts) func(*hsm.TokenFacts) {
		return func(t *hsm.TokenFacts) { t.Mechanisms = m }
	}
	for name, tc := range map[string]struct {
		token   hsm.TokenFacts
		cfg     hsm.Config
		level   Level
		about   string
		text    string
		nothing bool // worse than good is not said
	}{
		"a good one":           {token: device(nil), level: Good, about: "token", text: "is there", nothing: true},
		"locked":               {token: device(flag("CKF_USER_PIN_LOCKED")), level: Failure, about: "token", text: "locked"},
		"final try":            {token: device(flag("CKF_USER_PIN_FINAL_TRY")), level: Failure, about: "token", text: "one more"},
		"count low":            {token: device(flag("CKF_USER_PIN_COUNT_LOW")), level: Warning, about: "token", text: "wrong PIN"},
		"first PIN":            {token: device(flag("CKF_USER_PIN_TO_BE_CHANGED")), level: Warning, about: "token", text: "initialised"},
		"keypad":               {token: device(flag("CKF_PROTECTED_AUTHENTICATION_PATH")), level: Warning, about: "token", text: "keypad"},
		"read-only":            {token: device(flag("CKF_WRITE_PROTECTED")), level: Warning, about: "token", text: "write-protected"},
		"in error":             {token: device(flag("CKF_ERROR_STATE")), level: Failure, about: "token", text: "error"},
		"no PIN":               {token: device(func(t *hsm.TokenFacts) { t.Flags = []string{"CKF_RNG", "CKF_LOGIN_REQUIRED"} }), level: Failure, about: "token", text: "no PIN"},
		"no login":             {token: device(func(t *hsm.TokenFacts) { t.Flags = []string{"CKF_RNG"} }), level: Warning, about: "token", text: "without a login"},
		"no random":            {token: device(func(t *hsm.TokenFacts) { t.Flags = []string{"CKF_LOGIN_REQUIRED"} }), level: Warning, about: "token", text: "generator"},
		"software":             {token: device(func(t *hsm.TokenFacts) { t.Model = "SoftHSM v2" }), level: Warning, about: "token", text: "files"},
		"no limit":             {token: device(func(t *hsm.TokenFacts) { t.MaxSessions, t.MaxRWSessions = nil, nil }), level: Good, about: "sessions", text: "no limit", nothing: true},
		"few sessions":         {token: device(func(t *hsm.TokenFacts) { t.MaxSessions = n(4) }), level: Warning, about: "sessions", text: "4 sessions"},
		"few for writing":      {token: device(func(t *hsm.TokenFacts) { t.MaxRWSessions = n(5) }), level: Warning, about: "sessions", text: "5 sessions"},
		"fewer than are meant": {token: device(nil), cfg: hsm.Config{MaxSessions: 98}, level: Note, about: "sessions", text: "max_sessions is 98"},
		"all taken":            {token: device(func(t *hsm.TokenFacts) { t.Sessions = n(99) }), level: Failure, about: "sessions", text: "99 of 100"},
		"no GCM": {
			token: device(mechanisms(hsm.MechanismFacts{Name: "CKM_RSA_PKCS_OAEP", Uses: []string{"decrypt"}})),
			level: Failure, about: "mechanisms", text: "lacks CKM_AES_GCM",
		},
		"GCM one way": {
			token: device(mechanisms(hsm.MechanismFacts{Name: "CKM_AES_GCM", Uses: []string{"encrypt"}})),
			level: Failure, about: "mechanisms", text: "lacks CKM_AES_GCM",
		},
		"OAEP where it is meant": {
			token: device(mechanisms(hsm.MechanismFacts{Name: "CKM_RSA_PKCS_OAEP", Uses: []string{"decrypt"}},
				hsm.MechanismFacts{Name: "CKM_RSA_PKCS_KEY_PAIR_GEN", Uses: []string{"generate pair"}})),
			cfg: hsm.Config{Mechanism: hsm.RSAOAEPSHA256}, level: Good, about: "mechanisms", text: "rsa-oaep-sha256", nothing: true,
		},
		"no such mechanism": {token: device(nil), cfg: hsm.Config{Mechanism: "rot13"}, level: Failure, about: "mechanisms", text: "no such mechanism"},
		"no HMAC for CBC": {
			token: device(mechanisms(hsm.MechanismFacts{Name: "CKM_AES_CBC_PAD", Uses: []string{"encrypt", "decrypt"}})),
			cfg:   hsm.Config{Mechanism: hsm.AESCBCHMAC}, level: Failure, about: "mechanisms", text: "lacks CKM_SHA256_HMAC",
		},
		"no key generation": {
			token: device(mechanisms(hsm.MechanismFacts{Name: "CKM_AES_GCM", Uses: []string{"encrypt", "decrypt"}})),
			level: Warning, about: "mechanisms", text: "no key can be made",
		},
	} {
		r := &Report{Findings: judgeToken(tc.token, tc.cfg)}
		if !says(r, tc.level, tc.about, tc.text) || tc.nothing != (r.Worst() == Good) {
			t.Errorf("%s: got %+v", name, r.Findings)
		}
	}
}

func TestSlotsAreJudged(t *testing.T) {
	one, two := hsm.TokenFacts{Label: "a"}, hsm.TokenFacts{Label: "a", Serial: "2"}
	for name, tc := range map[string]struct {
		slots []hsm.SlotFacts
		about string
		text  string
	}{
		"none":       {nil, "module", "no slot has a token"},
		"one label":  {[]hsm.SlotFacts{{Token: &one}, {Token: &two}}, "module", `2 tokens have the label "a"`},
		"unreadable": {[]hsm.SlotFacts{{Token: &one}, {ID: 7, Problem: "C_GetTokenInfo: CKR_DEVICE_ERROR"}}, "slot 7", "CKR_DEVICE_ERROR"},
	} {
		if r := (&Report{Findings: judgeSlots(tc.slots)}); !says(r, Warning, tc.about, tc.text) {
			t.Errorf("%s: got %+v", name, r.Findings)
		}
	}
	if got := judgeSlots([]hsm.SlotFacts{{Token: &one}}); len(got) != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestAttributesOfKeysAreJudged(t *testing.T) {
	object := func(attributes ...hsm.AttributeFacts) hsm.ObjectFacts {
		return hsm.ObjectFacts{Label: "main.v1", Class: "secret key", Attributes: attributes}
	}
	public := hsm.ObjectFacts{Label: "main.v1", Class: "public key", Attributes: []hsm.AttributeFacts{{Name: "CKA_EXTRACTABLE", Value: "true", Want: "false"}}}
	for name, tc := range map[string]struct {
		objects []hsm.ObjectFacts
		level   Level
		text    string
	}{
		"good":           {[]hsm.ObjectFacts{object(hsm.AttributeFacts{Name: "CKA_LOCAL", Value: "true", Want: "true"})}, "", ""},
		"public half":    {[]hsm.ObjectFacts{object(), public}, "", ""},
		"not local":      {[]hsm.ObjectFacts{object(hsm.AttributeFacts{Name: "CKA_LOCAL", Value: "false", Want: "true"})}, Failure, "CKA_LOCAL is false"},
		"extractable":    {[]hsm.ObjectFacts{object(hsm.AttributeFacts{Name: "CKA_EXTRACTABLE", Value: "true", Want: "false"})}, Failure, "CKA_EXTRACTABLE is true"},
		"unreadable":     {[]hsm.ObjectFacts{object(hsm.AttributeFacts{Name: "CKA_SENSITIVE", Value: "unreadable", Want: "true"})}, Failure, "CKA_SENSITIVE is unreadable"},
		"modifiable":     {[]hsm.ObjectFacts{object(hsm.AttributeFacts{Name: "CKA_MODIFIABLE", Value: "true", Want: "false"})}, Failure, "CKA_MODIFIABLE is true"},
		"public":         {[]hsm.ObjectFacts{object(hsm.AttributeFacts{Name: "CKA_PRIVATE", Value: "false", Want: "true"})}, Failure, "CKA_PRIVATE is false"},
		"of the session": {[]hsm.ObjectFacts{object(hsm.AttributeFacts{Name: "CKA_TOKEN", Value: "false", Want: "true"})}, Failure, "CKA_TOKEN is false"},
		"wraps":          {[]hsm.ObjectFacts{object(hsm.AttributeFacts{Name: "CKA_WRAP", Value: "true"})}, Warning, "CKA_WRAP is true"},
		"encrypts":       {[]hsm.ObjectFacts{object(hsm.AttributeFacts{Name: "CKA_ENCRYPT", Value: "true"})}, "", ""},
		"two of a label": {[]hsm.ObjectFacts{object(), object()}, Failure, "more than one secret key"},
		"check values": {
			[]hsm.ObjectFacts{{CheckValues: []hsm.CheckValue{{Method: "CKA_CHECK_VALUE", Value: "aabbcc"}, {Method: "CKM_AES_ECB", Value: "ddeeff"}}}},
			Warning, "CKA_CHECK_VALUE is aabbcc",
		},
	} {
		r := &Report{Findings: judgeObjects("key main.v1", tc.objects)}
		if tc.level == "" && len(r.Findings) > 0 || tc.level != "" && !says(r, tc.level, "key", tc.text) {
			t.Errorf("%s: got %+v", name, r.Findings)
		}
	}
}

func TestSlowTokensAreWarnedOf(t *testing.T) {
	for p99, want := range map[time.Duration]Level{time.Second: Good, 3 * time.Second: Warning} {
		r := &Report{Findings: judgeRates([]Rate{{Operation: "wrap", P99: p99}}, 0)}
		if r.Worst() != want {
			t.Errorf("%v: got %s, want %s", p99, r.Worst(), want)
		}
	}
}

func TestEveryErrorHasAMend(t *testing.T) {
	for _, err := range []error{
		hsm.ErrPIN, hsm.ErrNoToken, hsm.ErrAmbiguous, hsm.ErrModule, hsm.ErrInUse, hsm.ErrRole, hsm.ErrKind, hsm.ErrUnsafe,
		hsm.ErrUnsupported, hsm.ErrUnavailable, hsm.ErrExists, hsm.ErrNotFound, hsm.ErrClosed, &hsm.CallError{Call: "C_Login", Code: 5},
	} {
		if mendError(err) == "" {
			t.Errorf("%v has none", err)
		}
	}
}
