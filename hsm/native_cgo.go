//go:build cgo

package hsm

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/miekg/pkcs11"
)

// native is a module in this process. Everything but the calls of the request
// path goes through miekg/pkcs11, which makes every call that returns bytes twice.
type native struct {
	ctx       *pkcs11.Ctx
	functions functionList
	// parameters is a C string for C_Initialize that lives as long as the module, or nil.
	parameters unsafe.Pointer
}

// load maps a module without initialising it. parameters is for modules that want
// some, and else empty.
func load(path, parameters string) (cryptoki, error) {
	functions, err := loadFunctions(path)
	if err != nil {
		return nil, err
	}
	ctx := pkcs11.New(path)
	if ctx == nil {
		return nil, errors.New("dlopen failed at the second time")
	}
	return &native{ctx: ctx, functions: functions, parameters: cString(parameters)}, nil
}

// called turns miekg's error into ours.
func called(call string, err error) error {
	var code pkcs11.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &code):
		return &CallError{Call: call, Code: uint(code)}
	}
	return fmt.Errorf("%s: %w", call, err)
}

func (n *native) initialize() error {
	if n.parameters == nil {
		return called("C_Initialize", n.ctx.Initialize())
	}
	return called("C_Initialize", n.ctx.Initialize(pkcs11.InitializeWithReserved(n.parameters)))
}

func (n *native) finalize() error { return called("C_Finalize", n.ctx.Finalize()) }

func (n *native) slots() ([]uint, error) {
	slots, err := n.ctx.GetSlotList(true)
	return slots, called("C_GetSlotList", err)
}

func (n *native) tokenInfo(slot uint) (tokenInfo, error) {
	info, err := n.ctx.GetTokenInfo(slot)
	return tokenInfo{
		label: info.Label, manufacturer: info.ManufacturerID, model: info.Model, serial: info.SerialNumber,
		flags: info.Flags, maxSessions: info.MaxSessionCount, maxRWSessions: info.MaxRwSessionCount,
	}, called("C_GetTokenInfo", err)
}

func (n *native) mechanismFlags(slot, mechanism uint) (uint, error) {
	info, err := n.ctx.GetMechanismInfo(slot, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)})
	return info.Flags, called("C_GetMechanismInfo", err)
}

func (n *native) openSession(slot uint, readOnly bool) (sessionHandle, error) {
	flags := uint(pkcs11.CKF_SERIAL_SESSION | pkcs11.CKF_RW_SESSION)
	if readOnly {
		flags = pkcs11.CKF_SERIAL_SESSION
	}
	s, err := n.ctx.OpenSession(slot, flags)
	return sessionHandle(s), called("C_OpenSession", err)
}

func (n *native) closeSession(s sessionHandle) error {
	return called("C_CloseSession", n.ctx.CloseSession(pkcs11.SessionHandle(s)))
}

func (n *native) sessionState(s sessionHandle) (uint, error) {
	info, err := n.ctx.GetSessionInfo(pkcs11.SessionHandle(s))
	return info.State, called("C_GetSessionInfo", err)
}

func (n *native) login(s sessionHandle, user uint, pin string) error {
	return called("C_Login", n.ctx.Login(pkcs11.SessionHandle(s), user, pin))
}

func (n *native) generateKey(s sessionHandle, kind uint, template []attribute) (objectHandle, error) {
	key, err := n.ctx.GenerateKey(pkcs11.SessionHandle(s),
		[]*pkcs11.Mechanism{pkcs11.NewMechanism(kind, nil)}, attributes(template))
	return objectHandle(key), called("C_GenerateKey", err)
}

func (n *native) generateKeyPair(s sessionHandle, kind uint, public, private []attribute) (publicKey, privateKey objectHandle, err error) {
	a, b, err := n.ctx.GenerateKeyPair(pkcs11.SessionHandle(s),
		[]*pkcs11.Mechanism{pkcs11.NewMechanism(kind, nil)}, attributes(public), attributes(private))
	return objectHandle(a), objectHandle(b), called("C_GenerateKeyPair", err)
}

func (n *native) destroy(s sessionHandle, o objectHandle) error {
	return called("C_DestroyObject", n.ctx.DestroyObject(pkcs11.SessionHandle(s), pkcs11.ObjectHandle(o)))
}

// maxMatches is how many objects find returns at most: two are too many already.
const maxMatches = 8

func (n *native) find(s sessionHandle, template []attribute) ([]objectHandle, error) {
	session := pkcs11.SessionHandle(s)
	if err := n.ctx.FindObjectsInit(session, attributes(template)); err != nil {
		return nil, called("C_FindObjectsInit", err)
	}
	found, _, err := n.ctx.FindObjects(session, maxMatches)
	// The search must be ended also after an error, or the session stays busy.
	if err := errors.Join(called("C_FindObjects", err),
		called("C_FindObjectsFinal", n.ctx.FindObjectsFinal(session))); err != nil {
		return nil, err
	}
	handles := make([]objectHandle, len(found))
	for i, o := range found {
		handles[i] = objectHandle(o)
	}
	return handles, nil
}

func (n *native) attribute(s sessionHandle, o objectHandle, kind uint) ([]byte, error) {
	found, err := n.ctx.GetAttributeValue(pkcs11.SessionHandle(s), pkcs11.ObjectHandle(o),
		[]*pkcs11.Attribute{pkcs11.NewAttribute(kind, nil)})
	if err != nil {
		return nil, called("C_GetAttributeValue", err)
	}
	return found[0].Value, nil
}

func (n *native) random(s sessionHandle, size int) ([]byte, error) {
	b, err := n.ctx.GenerateRandom(pkcs11.SessionHandle(s), size)
	return b, called("C_GenerateRandom", err)
}

func (n *native) encrypt(s sessionHandle, key objectHandle, m mechanism, plaintext []byte) ([]byte, error) {
	return n.functions.encrypt(s, key, m, plaintext)
}

func (n *native) decrypt(s sessionHandle, key objectHandle, m mechanism, ciphertext []byte) ([]byte, error) {
	return n.functions.decrypt(s, key, m, ciphertext)
}

func (n *native) sign(s sessionHandle, key objectHandle, m mechanism, data []byte) ([]byte, error) {
	return n.functions.sign(s, key, m, data)
}

func (n *native) initToken(slot uint, soPIN, label string) error {
	return called("C_InitToken", n.ctx.InitToken(slot, soPIN, label))
}

func (n *native) initPIN(s sessionHandle, pin string) error {
	return called("C_InitPIN", n.ctx.InitPIN(pkcs11.SessionHandle(s), pin))
}

func attributes(template []attribute) []*pkcs11.Attribute {
	out := make([]*pkcs11.Attribute, len(template))
	for i, a := range template {
		out[i] = pkcs11.NewAttribute(a.kind, a.value)
	}
	return out
}
