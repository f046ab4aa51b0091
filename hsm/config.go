package hsm

import (
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
)

const (
	// DefaultSessions is the size of the session pool of a token that has as many.
	DefaultSessions = 30

	defaultReserve  = 2
	defaultDeadline = 10 * time.Second
	defaultRetry    = time.Second
)

// Config names a token and says how to use it.
type Config struct {
	// Module is the path of the vendor's PKCS#11 library. Required unless Library is set.
	Module string
	// Parameters is a text that the module is initialised with. Only NSS wants one:
	// "configDir='sql:/folder' ...".
	Parameters string
	// Library is the loaded module to use when several tokens of one module are open
	// in one process. The caller closes it, after the tokens. Nil: Open loads Module,
	// and the Token's Close finalises it.
	Library *Library
	// Modules, when set, has Module or loads it, for tokens of one module that are open in
	// one process. The caller closes it, after the tokens. Nil: the module is this Token's
	// or Group's alone.
	Modules *Modules
	// Token says which token. Required: at least one of its fields.
	Token Selector
	// PIN of the token's user. Required. It is tried once.
	PIN PIN
	// MaxSessions is the size of the session pool; one more session stays logged in
	// beside it. Zero: 30, or fewer when the token has fewer.
	MaxSessions int
	// Reserve is how many of a token's limited sessions are left to others. Zero: 2.
	Reserve int
	// Deadline is how long a caller waits for one call of the module, which cannot be
	// cancelled; its session stays taken until the call returns. Zero: 10 s.
	Deadline time.Duration
	// Mechanism is what the token is probed with when it is logged in to. Zero: AESGCM.
	Mechanism Mechanism
	// RSABits is the size of RSA keys that are made, 2048 to 8192. Zero: 3072.
	RSABits int
	// UserType is the kind of user to log in as. Zero: CKU_USER, 1. A Luna's crypto
	// user, who uses keys and cannot make or destroy any, is 0x80000001.
	UserType uint
	// ReadOnly opens read-only sessions, in which a token makes and destroys no keys
	// whatever the user's role: Generate and Destroy return ErrRole.
	ReadOnly bool
	// Hung, when set, hears of each operation that has not returned from the module
	// for Patience. Nothing can end it but the end of the process, and then a new one
	// serves again. It is called concurrently and must not block.
	Hung func(operation string)
	// Patience is when a call counts as one that hangs. Zero: three times Deadline.
	Patience time.Duration
	// Retry is the least time between two attempts to reach a lost device. Calls in
	// between fail at once with ErrUnavailable. Zero: 1 s.
	Retry time.Duration
	// Observe, when set, hears of each operation ("encrypt", "decrypt", "generate",
	// "find", "random", "check", "login") once the module has returned: the CKR name
	// ("CKR_OK", or "error" for a finding of our own) and how long it took. It is
	// called concurrently and must not block.
	Observe func(operation, code string, took time.Duration)
	// Logger hears of logins, losses and refusals. Nil: silence.
	Logger *zap.Logger
}

// Selector says which token is meant. All fields that are set must match, and
// exactly one token must match.
type Selector struct {
	Label        string
	Serial       string
	Manufacturer string
	Model        string
	Slot         *uint // slot numbers change with the hardware and with SoftHSM's restarts
}

// IsZero tells whether nothing was selected.
func (s Selector) IsZero() bool { return s == Selector{} }

// String is the label where that is all that was selected, and else the token's URI.
func (s Selector) String() string {
	if s == (Selector{Label: s.Label}) {
		return s.Label
	}
	return URI{Token: s}.String()
}

func (s Selector) matches(slot uint, info tokenInfo) bool {
	return (s.Label == "" || s.Label == info.label) &&
		(s.Serial == "" || s.Serial == info.serial) &&
		(s.Manufacturer == "" || s.Manufacturer == info.manufacturer) &&
		(s.Model == "" || s.Model == info.model) &&
		(s.Slot == nil || *s.Slot == slot)
}

// validate reports all that is wrong at once.
func (c Config) validate() error {
	var problems []error
	if c.Module == "" && c.Library == nil {
		problems = append(problems, errors.New("module is missing"))
	}
	if c.Token.IsZero() {
		problems = append(problems, errors.New("token is missing: give a label, a serial number or a slot"))
	}
	if c.PIN.IsZero() {
		problems = append(problems, errors.New("PIN is missing"))
	}
	if c.MaxSessions < 0 || c.Reserve < 0 || c.Deadline < 0 || c.Retry < 0 || c.Patience < 0 {
		problems = append(problems, errors.New("sessions, reserve, deadline, patience and retry must not be negative"))
	}
	if _, err := (profiles{}).of(c.Mechanism); c.Mechanism != "" && err != nil {
		problems = append(problems, err)
	}
	if c.RSABits != 0 && (c.RSABits < minRSABits || c.RSABits > maxRSABits) {
		problems = append(problems, fmt.Errorf("RSA keys of %d bits: want %d to %d", c.RSABits, minRSABits, maxRSABits))
	}
	if len(problems) == 0 {
		return nil
	}
	return fmt.Errorf("hsm: reading configuration: %w: %w", ErrInvalid, errors.Join(problems...))
}

// withDefaults fills in what zero means, except MaxSessions, which needs the token.
func (c Config) withDefaults() Config {
	if c.Reserve == 0 {
		c.Reserve = defaultReserve
	}
	if c.Deadline == 0 {
		c.Deadline = defaultDeadline
	}
	if c.Mechanism == "" {
		c.Mechanism = AESGCM
	}
	if c.RSABits == 0 {
		c.RSABits = defaultRSABits
	}
	if c.UserType == 0 {
		c.UserType = ckuUser
	}
	if c.Patience == 0 {
		c.Patience = 3 * c.Deadline
	}
	if c.Retry == 0 {
		c.Retry = defaultRetry
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	if c.Observe == nil {
		c.Observe = func(string, string, time.Duration) {}
	}
	return c
}

// poolSize is the number of pooled sessions that a token of these limits bears.
func (c Config) poolSize(info tokenInfo) int {
	size := c.MaxSessions
	if size == 0 {
		size = DefaultSessions
	}
	limits := []uint{info.maxSessions, info.maxRWSessions}
	if c.ReadOnly {
		limits = limits[:1]
	}
	for _, limit := range limits {
		if limit == ckEffectivelyInfinite || limit == ckUnavailableInformation {
			continue
		}
		// One session is the logged-in one that stays.
		size = min(size, max(1, int(min(limit, 1<<20))-c.Reserve-1))
	}
	return size
}
