package hsm

import (
	"fmt"
)

// LibraryFacts is what a module says of itself (CK_INFO).
type LibraryFacts struct {
	Path         string `json:"path"`
	Manufacturer string `json:"manufacturer"`
	Description  string `json:"description"`
	Version      string `json:"version"`
	Cryptoki     string `json:"cryptoki"` // the version of PKCS#11 that it speaks
}

// SlotFacts is what a module says of a slot and of the token in it.
type SlotFacts struct {
	ID          uint        `json:"id"`
	Description string      `json:"description"`
	Hardware    bool        `json:"hardware"`        // CKF_HW_SLOT
	Token       *TokenFacts `json:"token,omitempty"` // nil: none, or a blank one
	// Problem is why the slot or its token could not be read; "" when it could.
	Problem string `json:"problem,omitempty"`
}

// TokenFacts is what a token says of itself (CK_TOKEN_INFO) before a login.
type TokenFacts struct {
	Label        string `json:"label"`
	Manufacturer string `json:"manufacturer"`
	Model        string `json:"model"`
	Serial       string `json:"serial"`
	Firmware     string `json:"firmware"`
	// Flags are the names of the CKF flags that are set, such as "CKF_RNG".
	Flags []string `json:"flags"`
	// The sessions that there may be and that there are. nil: it does not say, or
	// says that there is no limit.
	MaxSessions   *uint `json:"max_sessions,omitempty"`
	MaxRWSessions *uint `json:"max_rw_sessions,omitempty"`
	Sessions      *uint `json:"sessions,omitempty"`
	// The length of PINs, in bytes.
	MinPIN     uint             `json:"min_pin"`
	MaxPIN     uint             `json:"max_pin"`
	Mechanisms []MechanismFacts `json:"mechanisms"`
}

// Has tells whether a flag is set.
func (t TokenFacts) Has(flag string) bool {
	for _, f := range t.Flags {
		if f == flag {
			return true
		}
	}
	return false
}

// Mechanism finds a mechanism by name, such as "CKM_AES_GCM".
func (t TokenFacts) Mechanism(name string) (MechanismFacts, bool) {
	for _, m := range t.Mechanisms {
		if m.Name == name {
			return m, true
		}
	}
	return MechanismFacts{}, false
}

// MechanismFacts is what a token says of a mechanism (CK_MECHANISM_INFO).
type MechanismFacts struct {
	Name string `json:"name"` // CKM_..., or its number
	// The sizes of keys, in bits or bytes: modules do not agree which.
	MinKey uint `json:"min_key"`
	MaxKey uint `json:"max_key"`
	// Uses are what it is for: "encrypt", "decrypt", "sign", "generate", ...
	Uses     []string `json:"uses"`
	Hardware bool     `json:"hardware"` // CKF_HW: the device does it, not the library
}

// Can tells whether the mechanism is for all of these uses.
func (m MechanismFacts) Can(uses ...string) bool {
	for _, use := range uses {
		found := false
		for _, u := range m.Uses {
			found = found || u == use
		}
		if !found {
			return false
		}
	}
	return true
}

// surveyor is what a module can tell beside what the work needs. The methods may run
// concurrently with each other and with those of cryptoki.
type surveyor interface {
	about() (LibraryFacts, error)
	slotFacts() ([]SlotFacts, error)
	// objects lists what the session sees, at most so many.
	objects(s sessionHandle, most int) ([]objectHandle, error)
	// blockECB and blockCMAC are AES over 16 bytes of zero.
	blockECB(s sessionHandle, key objectHandle) ([]byte, error)
	blockCMAC(s sessionHandle, key objectHandle) ([]byte, error)
}

func surveyorOf(c cryptoki) (surveyor, error) {
	s, ok := c.(surveyor)
	if !ok {
		return nil, fmt.Errorf("%w: this module cannot be surveyed", ErrUnsupported)
	}
	return s, nil
}

// Survey asks the module for itself and all its slots, without logging in. It runs in
// the caller's goroutine, and for as long as the module takes. Errors: ErrClosed,
// ErrUnavailable.
func (l *Library) Survey() (LibraryFacts, []SlotFacts, error) {
	about, slots, err := l.survey()
	if err != nil {
		return about, slots, fmt.Errorf("hsm: surveying module %q: %w", l.path, asUnavailable(err))
	}
	return about, slots, nil
}

func (l *Library) survey() (LibraryFacts, []SlotFacts, error) {
	s, err := surveyorOf(l.c)
	if err != nil {
		return LibraryFacts{}, nil, err
	}
	generation, _, err := l.state()
	if err != nil {
		return LibraryFacts{}, nil, err
	}
	if err := l.enter(generation); err != nil {
		return LibraryFacts{}, nil, err
	}
	defer l.leave()
	about, err := s.about()
	about.Path = l.path
	if err != nil {
		return about, nil, err
	}
	slots, err := s.slotFacts()
	return about, slots, err
}

// Matches tells whether the token in a slot is one that was selected.
func (s Selector) Matches(slot uint, t TokenFacts) bool {
	return s.matches(slot, tokenInfo{label: t.Label, serial: t.Serial, manufacturer: t.Manufacturer, model: t.Model})
}

// named is a bit and its name.
type named struct {
	bit  uint
	name string
}

func names(flags uint, known []named) []string {
	out := []string{}
	for _, k := range known {
		if flags&k.bit != 0 {
			out = append(out, k.name)
		}
	}
	return out
}

// tokenFlags are those of CK_TOKEN_INFO (PKCS#11 v2.40, section 3.2).
func tokenFlags() []named {
	return []named{
		{0x00000001, "CKF_RNG"},
		{0x00000002, "CKF_WRITE_PROTECTED"},
		{0x00000004, "CKF_LOGIN_REQUIRED"},
		{0x00000008, "CKF_USER_PIN_INITIALIZED"},
		{0x00000020, "CKF_RESTORE_KEY_NOT_NEEDED"},
		{0x00000040, "CKF_CLOCK_ON_TOKEN"},
		{0x00000100, "CKF_PROTECTED_AUTHENTICATION_PATH"},
		{0x00000200, "CKF_DUAL_CRYPTO_OPERATIONS"},
		{0x00000400, "CKF_TOKEN_INITIALIZED"},
		{0x00010000, "CKF_USER_PIN_COUNT_LOW"},
		{0x00020000, "CKF_USER_PIN_FINAL_TRY"},
		{0x00040000, "CKF_USER_PIN_LOCKED"},
		{0x00080000, "CKF_USER_PIN_TO_BE_CHANGED"},
		{0x00100000, "CKF_SO_PIN_COUNT_LOW"},
		{0x00200000, "CKF_SO_PIN_FINAL_TRY"},
		{0x00400000, "CKF_SO_PIN_LOCKED"},
		{0x00800000, "CKF_SO_PIN_TO_BE_CHANGED"},
		{0x01000000, "CKF_ERROR_STATE"},
	}
}

// mechanismUses are the flags of CK_MECHANISM_INFO, in our words.
func mechanismUses() []named {
	return []named{
		{0x00000100, "encrypt"},
		{0x00000200, "decrypt"},
		{0x00000400, "digest"},
		{0x00000800, "sign"},
		{0x00002000, "verify"},
		{0x00008000, "generate"},
		{0x00010000, "generate pair"},
		{0x00020000, "wrap"},
		{0x00040000, "unwrap"},
		{0x00080000, "derive"},
	}
}

// mechanismName is a mechanism as the standard calls it, where it may matter to keys
// that wrap, or else its number.
func mechanismName(number uint) string {
	for _, m := range []named{
		{0x0000, "CKM_RSA_PKCS_KEY_PAIR_GEN"},
		{0x0001, "CKM_RSA_PKCS"},
		{0x0009, "CKM_RSA_PKCS_OAEP"},
		{0x0220, "CKM_SHA_1"},
		{0x0250, "CKM_SHA256"},
		{0x0251, "CKM_SHA256_HMAC"},
		{0x0350, "CKM_GENERIC_SECRET_KEY_GEN"},
		{0x1040, "CKM_EC_KEY_PAIR_GEN"},
		{0x1041, "CKM_ECDSA"},
		{0x1050, "CKM_ECDH1_DERIVE"},
		{0x1080, "CKM_AES_KEY_GEN"},
		{0x1081, "CKM_AES_ECB"},
		{0x1082, "CKM_AES_CBC"},
		{0x1083, "CKM_AES_MAC"},
		{0x1085, "CKM_AES_CBC_PAD"},
		{0x1086, "CKM_AES_CTR"},
		{0x1087, "CKM_AES_GCM"},
		{0x1088, "CKM_AES_CCM"},
		{0x108A, "CKM_AES_CMAC"},
		{0x2109, "CKM_AES_KEY_WRAP"},
		{0x210A, "CKM_AES_KEY_WRAP_PAD"},
		{0x210B, "CKM_AES_KEY_WRAP_KWP"},
	} {
		if m.bit == number {
			return m.name
		}
	}
	return fmt.Sprintf("CKM_0x%08X", number)
}

// limit is a number of CK_TOKEN_INFO that may be missing or mean "no limit".
func limit(n uint) *uint {
	if n == ckEffectivelyInfinite || n == ckUnavailableInformation {
		return nil
	}
	return &n
}

// count is a number of CK_TOKEN_INFO that may be missing.
func count(n uint) *uint {
	if n == ckUnavailableInformation {
		return nil
	}
	return &n
}
