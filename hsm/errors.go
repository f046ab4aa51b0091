package hsm

import (
	"errors"
	"fmt"
)

// Errors that callers tell apart. What the module itself answered is in the chain
// as a *CallError.
var (
	// ErrModule: the module's file cannot be loaded or will not initialise.
	ErrModule = errors.New("PKCS#11 module cannot be used")
	// ErrPIN: the token refused the PIN, or the PIN was not tried because that
	// might lock the token. A refused PIN is never tried again by this process.
	ErrPIN = errors.New("the token refused the PIN")
	// ErrInUse: somebody else in this process uses the module or the token.
	ErrInUse = errors.New("in use already in this process")
	// ErrNoToken: no token of that label, serial number or slot. Found together
	// with ErrUnavailable, since it may be plugged in later.
	ErrNoToken = errors.New("no such token")
	// ErrNotFound: no key of that label in the token.
	ErrNotFound = errors.New("no such key")
	// ErrExists: there is a key of that label already.
	ErrExists = errors.New("key exists already")
	// ErrAmbiguous: more than one token or key answers to the name.
	ErrAmbiguous = errors.New("more than one answers to the name")
	// ErrUnsafe: a key lacks an attribute that it must have, or the token failed
	// the self-test under it. It is not used.
	ErrUnsafe = errors.New("unsafe")
	// ErrKind: the key of that name is of another kind than the mechanism's. Found
	// together with ErrUnsafe.
	ErrKind = errors.New("it is not a key of this mechanism")
	// ErrRole: the token's user may not do this. A crypto user can neither make nor
	// destroy keys: the one who can must do it, with the vendor's tool or another PIN.
	ErrRole = errors.New("the role of the token's user does not allow it")
	// ErrUnsupported: the token cannot do the mechanism in a way that we know.
	ErrUnsupported = errors.New("not supported")
	// ErrCorrupt: the ciphertext, key or associated data is not the one encrypted
	// with. Trying again does not help.
	ErrCorrupt = errors.New("ciphertext does not decrypt")
	// ErrInvalid: the arguments are wrong; the token was not asked.
	ErrInvalid = errors.New("invalid argument")
	// ErrUnavailable: the device does not serve now. It may later.
	ErrUnavailable = errors.New("HSM is unavailable")
	// ErrClosed: Close was called.
	ErrClosed = errors.New("closed")
)

// CallError is the answer of a PKCS#11 function other than CKR_OK.
type CallError struct {
	Call string // "C_Decrypt"
	Code uint   // the CKR number
}

func (e *CallError) Error() string {
	return fmt.Sprintf("%s: %s (0x%X)", e.Call, codeName(e.Code), e.Code)
}

// fault says what an error means for the session, the login and the device.
type fault int

const (
	faultNone      fault = iota // no error, or one of our own finding: all is well below
	faultData                   // the input is bad; the session is good
	faultAmbiguous              // bad data or a bad device: a canary tells
	faultHandle                 // the key's handle has died
	faultSession                // the session or the login has died
	faultDevice                 // only C_Finalize and C_Initialize help
	faultOther                  // refused for a reason that neither of us can mend
)

// faulty gives an error a fault other than that of its code.
type faulty struct {
	error
	fault fault
}

func (f *faulty) Unwrap() error { return f.error }

// deviceFault marks an error as one that needs the module initialised anew.
func deviceFault(err error) error { return &faulty{err, faultDevice} }

// diagnose finds the fault of an error. Outside of decryption an ambiguous code
// can only mean the device: the caller decides.
func diagnose(err error) fault {
	var marked *faulty
	var call *CallError
	switch {
	case err == nil:
		return faultNone
	case errors.Is(err, ErrCorrupt):
		return faultData
	case errors.As(err, &marked):
		return marked.fault
	case errors.As(err, &call):
		return diagnoseCode(call.Code)
	}
	return faultNone
}

func diagnoseCode(code uint) fault {
	switch code {
	case ckrEncryptedDataInvalid, ckrEncryptedDataLenRange, ckrAEADDecryptFailed:
		return faultData
	case ckrGeneralError, ckrFunctionFailed:
		return faultAmbiguous
	case ckrObjectHandleInvalid, ckrKeyHandleInvalid:
		return faultHandle
	case ckrSessionHandleInvalid, ckrSessionClosed, ckrUserNotLoggedIn:
		return faultSession
	case ckrDeviceError, ckrDeviceRemoved, ckrDeviceMemory, ckrTokenNotPresent,
		ckrTokenNotRecognized, ckrCryptokiNotInitialized:
		return faultDevice
	}
	return faultOther
}

// hasCode tells whether the module answered with one of these codes.
func hasCode(err error, codes ...uint) bool {
	var call *CallError
	if !errors.As(err, &call) {
		return false
	}
	for _, code := range codes {
		if call.Code == code {
			return true
		}
	}
	return false
}

// asUnavailable adds ErrUnavailable to what the module answered and leaves our own
// findings, which have their sentinel, as they are.
func asUnavailable(err error) error {
	var call *CallError
	if !errors.As(err, &call) {
		return err
	}
	for _, finding := range []error{
		ErrModule, ErrPIN, ErrInUse, ErrNotFound, ErrExists, ErrAmbiguous,
		ErrUnsafe, ErrRole, ErrUnsupported, ErrCorrupt, ErrInvalid, ErrUnavailable, ErrClosed,
	} {
		if errors.Is(err, finding) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}
