package hsm

import (
	"encoding/binary"
	"fmt"
)

// Numbers of PKCS#11 v2.40 (OASIS, section 3 and Appendix A), as far as we use them.
const (
	ckrOK                     = 0x000
	ckrHostMemory             = 0x002
	ckrGeneralError           = 0x005
	ckrFunctionFailed         = 0x006
	ckrArgumentsBad           = 0x007
	ckrActionProhibited       = 0x01B
	ckrDeviceError            = 0x030
	ckrDeviceMemory           = 0x031
	ckrDeviceRemoved          = 0x032
	ckrEncryptedDataInvalid   = 0x040
	ckrEncryptedDataLenRange  = 0x041
	ckrAEADDecryptFailed      = 0x042
	ckrKeyHandleInvalid       = 0x060
	ckrMechanismInvalid       = 0x070
	ckrMechanismParamInvalid  = 0x071
	ckrObjectHandleInvalid    = 0x082
	ckrPINIncorrect           = 0x0A0
	ckrPINInvalid             = 0x0A1
	ckrPINLenRange            = 0x0A2
	ckrPINExpired             = 0x0A3
	ckrPINLocked              = 0x0A4
	ckrSessionClosed          = 0x0B0
	ckrSessionCount           = 0x0B1
	ckrSessionHandleInvalid   = 0x0B3
	ckrSessionReadOnly        = 0x0B5
	ckrTokenNotPresent        = 0x0E0
	ckrTokenNotRecognized     = 0x0E1
	ckrTokenWriteProtected    = 0x0E2
	ckrUserAlreadyLoggedIn    = 0x100
	ckrUserNotLoggedIn        = 0x101
	ckrUserTypeInvalid        = 0x103
	ckrBufferTooSmall         = 0x150
	ckrCryptokiNotInitialized = 0x190
	ckrCryptokiInitialized    = 0x191

	ckfTokenInitialized   = 0x00000400
	ckfUserPINInitialized = 0x00000008
	ckfUserPINFinalTry    = 0x00020000
	ckfUserPINLocked      = 0x00040000

	cksROUserFunctions = 1
	cksRWUserFunctions = 3

	ckuSO   = 0
	ckuUser = 1

	ckoPublicKey  = 2
	ckoPrivateKey = 3
	ckoSecretKey  = 4

	ckkRSA           = 0x00
	ckkGenericSecret = 0x10
	ckkAES           = 0x1F

	ckmRSAKeyPairGen    = 0x0000
	ckmRSAOAEP          = 0x0009
	ckmSHA1             = 0x0220
	ckmSHA256           = 0x0250
	ckmSHA256HMAC       = 0x0251
	ckmGenericSecretGen = 0x0350
	ckmAESKeyGen        = 0x1080
	ckmAESCBCPad        = 0x1085
	ckmAESGCM           = 0x1087

	ckfEncrypt = 0x00000100
	ckfDecrypt = 0x00000200
	ckfSign    = 0x00000800

	ckaClass            = 0x000
	ckaToken            = 0x001
	ckaPrivate          = 0x002
	ckaLabel            = 0x003
	ckaKeyType          = 0x100
	ckaID               = 0x102
	ckaSensitive        = 0x103
	ckaEncrypt          = 0x104
	ckaDecrypt          = 0x105
	ckaWrap             = 0x106
	ckaUnwrap           = 0x107
	ckaSign             = 0x108
	ckaVerify           = 0x10A
	ckaDerive           = 0x10C
	ckaModulus          = 0x120
	ckaModulusBits      = 0x121
	ckaPublicExponent   = 0x122
	ckaValueLen         = 0x161
	ckaExtractable      = 0x162
	ckaLocal            = 0x163
	ckaNeverExtractable = 0x164
	ckaAlwaysSensitive  = 0x165
	ckaModifiable       = 0x170

	// A token that does not say how many sessions it has.
	ckUnavailableInformation = ^uint(0)
	ckEffectivelyInfinite    = 0
)

// codeName is a CKR code as people search for it, or its number.
func codeName(code uint) string {
	switch code {
	case ckrOK:
		return "CKR_OK"
	case ckrHostMemory:
		return "CKR_HOST_MEMORY"
	case ckrGeneralError:
		return "CKR_GENERAL_ERROR"
	case ckrFunctionFailed:
		return "CKR_FUNCTION_FAILED"
	case ckrArgumentsBad:
		return "CKR_ARGUMENTS_BAD"
	case ckrMechanismInvalid:
		return "CKR_MECHANISM_INVALID"
	case ckrMechanismParamInvalid:
		return "CKR_MECHANISM_PARAM_INVALID"
	case ckrBufferTooSmall:
		return "CKR_BUFFER_TOO_SMALL"
	case ckrCryptokiNotInitialized:
		return "CKR_CRYPTOKI_NOT_INITIALIZED"
	case ckrCryptokiInitialized:
		return "CKR_CRYPTOKI_ALREADY_INITIALIZED"
	}
	if name := accessCodeName(code); name != "" {
		return name
	}
	return fmt.Sprintf("CKR_0x%08X", code)
}

// accessCodeName is codeName for what concerns data, keys, PINs, sessions and devices.
func accessCodeName(code uint) string {
	switch code {
	case ckrDeviceError:
		return "CKR_DEVICE_ERROR"
	case ckrDeviceMemory:
		return "CKR_DEVICE_MEMORY"
	case ckrDeviceRemoved:
		return "CKR_DEVICE_REMOVED"
	case ckrEncryptedDataInvalid:
		return "CKR_ENCRYPTED_DATA_INVALID"
	case ckrEncryptedDataLenRange:
		return "CKR_ENCRYPTED_DATA_LEN_RANGE"
	case ckrAEADDecryptFailed:
		return "CKR_AEAD_DECRYPT_FAILED"
	case ckrKeyHandleInvalid:
		return "CKR_KEY_HANDLE_INVALID"
	case ckrObjectHandleInvalid:
		return "CKR_OBJECT_HANDLE_INVALID"
	case ckrPINIncorrect:
		return "CKR_PIN_INCORRECT"
	case ckrPINInvalid:
		return "CKR_PIN_INVALID"
	case ckrPINLenRange:
		return "CKR_PIN_LEN_RANGE"
	case ckrPINExpired:
		return "CKR_PIN_EXPIRED"
	case ckrPINLocked:
		return "CKR_PIN_LOCKED"
	case ckrSessionClosed:
		return "CKR_SESSION_CLOSED"
	case ckrSessionCount:
		return "CKR_SESSION_COUNT"
	case ckrSessionHandleInvalid:
		return "CKR_SESSION_HANDLE_INVALID"
	case ckrSessionReadOnly:
		return "CKR_SESSION_READ_ONLY"
	case ckrTokenWriteProtected:
		return "CKR_TOKEN_WRITE_PROTECTED"
	case ckrActionProhibited:
		return "CKR_ACTION_PROHIBITED"
	case ckrUserTypeInvalid:
		return "CKR_USER_TYPE_INVALID"
	case ckrTokenNotPresent:
		return "CKR_TOKEN_NOT_PRESENT"
	case ckrTokenNotRecognized:
		return "CKR_TOKEN_NOT_RECOGNIZED"
	case ckrUserAlreadyLoggedIn:
		return "CKR_USER_ALREADY_LOGGED_IN"
	case ckrUserNotLoggedIn:
		return "CKR_USER_NOT_LOGGED_IN"
	}
	return ""
}

// Handles live as long as their session, login and generation of the module.
type (
	sessionHandle uint
	objectHandle  uint
)

// attribute is a template's entry. Its value is a bool, a uint, a string or bytes.
type attribute struct {
	kind  uint
	value any
}

// tokenInfo is what we read of CK_TOKEN_INFO.
type tokenInfo struct {
	label, manufacturer, model, serial string
	flags                              uint
	maxSessions, maxRWSessions         uint
}

// mechanism is a CK_MECHANISM with the parameters of the few that we use.
type mechanism struct {
	kind uint
	// iv of AES-GCM and AES-CBC. A token that makes its own IV for AES-GCM may write
	// it into these bytes.
	iv []byte
	// ivBits is AES-GCM's ulIvBits where it is not the length of iv: what a Luna that
	// makes the IV is asked for.
	ivBits uint
	// aad of AES-GCM, whose tag always has 128 bits.
	aad []byte
	// hash of RSA-OAEP, also in its mask: ckmSHA1 or ckmSHA256.
	hash uint
}

// cryptoki is the part of a PKCS#11 module that this package needs. All methods
// may run concurrently except initialize and finalize, which run alone. An error
// that the module gave is a *CallError.
type cryptoki interface {
	initialize() error
	finalize() error
	slots() ([]uint, error)
	tokenInfo(slot uint) (tokenInfo, error)
	mechanismFlags(slot, mechanism uint) (uint, error)

	openSession(slot uint, readOnly bool) (sessionHandle, error)
	closeSession(s sessionHandle) error
	sessionState(s sessionHandle) (uint, error)
	login(s sessionHandle, user uint, pin string) error

	generateKey(s sessionHandle, kind uint, template []attribute) (objectHandle, error)
	generateKeyPair(s sessionHandle, kind uint, public, private []attribute) (publicKey, privateKey objectHandle, err error)
	destroy(s sessionHandle, o objectHandle) error
	find(s sessionHandle, template []attribute) ([]objectHandle, error)
	attribute(s sessionHandle, o objectHandle, kind uint) ([]byte, error)

	random(s sessionHandle, n int) ([]byte, error)
	encrypt(s sessionHandle, key objectHandle, m mechanism, plaintext []byte) ([]byte, error)
	decrypt(s sessionHandle, key objectHandle, m mechanism, ciphertext []byte) ([]byte, error)
	sign(s sessionHandle, key objectHandle, m mechanism, data []byte) ([]byte, error)

	initToken(slot uint, soPIN, label string) error
	initPIN(s sessionHandle, pin string) error
}

// isTrue decodes a CK_BBOOL.
func isTrue(value []byte) bool { return len(value) == 1 && value[0] != 0 }

// ulong decodes a CK_ULONG, which has the machine's size and byte order.
func ulong(value []byte) (uint, bool) {
	switch len(value) {
	case 8:
		return uint(binary.NativeEndian.Uint64(value)), true
	case 4:
		return uint(binary.NativeEndian.Uint32(value)), true
	}
	return 0, false
}
