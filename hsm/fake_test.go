package hsm

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"
)

const fakePIN = "5551234"

// fakeModule is a module in memory that can be told to behave as real ones were seen
// to: it stands for devices that a test cannot have. It encrypts truly.
type fakeModule struct {
	mu       sync.Mutex
	started  bool
	starts   int // C_Initialize calls that succeeded
	logins   int // C_Login calls
	loggedIn bool
	pin      string
	tokens   []tokenInfo // by slot
	objects  []*fakeObject
	sessions map[sessionHandle]bool // true: read-only
	wrongPIN int
	handles  map[objectHandle]*fakeObject
	next     uint
	peak     int // most sessions at once
	dead     bool

	badTag        uint // the code for a tag or a padding that does not verify
	dialect       ivDialect
	nullIV        bool          // takes no IV for one of zeroes and does not tell, as SoftHSM
	ownIV         int           // size of the IVs that it makes; zero: 12
	mechanisms    map[uint]uint // mechanism flags; nil: all of everything
	limit         int           // sessions at once; zero: no limit
	userTypes     []uint        // that may log in; nil: any
	mayNotMake    uint          // the code for a role that makes and destroys no keys; zero: it may
	attempts      int           // wrong PINs left before it locks; zero: no limit
	noExponent    bool          // private keys do not tell the public exponent
	ignoreIV      bool
	ignoreAAD     bool
	acceptAll     bool
	noSessionKeys bool

	// before, when set, runs ahead of each call, without the lock. An error of it is
	// the call's answer.
	before func(call string) error
}

type fakeObject struct {
	attributes map[uint]any
	key        []byte
	rsa        *rsa.PrivateKey
}

func newFake() *fakeModule {
	return &fakeModule{
		pin: fakePIN, badTag: ckrEncryptedDataInvalid, dialect: callersIV,
		tokens: []tokenInfo{{label: "fake", serial: "1", flags: ckfTokenInitialized | ckfUserPINInitialized}},
	}
}

func code(call string, n uint) error { return &CallError{Call: call, Code: n} }

// enter does what all calls have in common, and returns with the lock held unless
// it returns an error.
func (f *fakeModule) enter(call string) error {
	f.mu.Lock()
	before := f.before
	f.mu.Unlock()
	if before != nil {
		if err := before(call); err != nil {
			return err
		}
	}
	f.mu.Lock()
	switch {
	case !f.started:
		f.mu.Unlock()
		return code(call, ckrCryptokiNotInitialized)
	case f.dead:
		f.mu.Unlock()
		return code(call, ckrDeviceError)
	}
	return nil
}

// inSession is enter for the calls that have a session.
func (f *fakeModule) inSession(call string, s sessionHandle) error {
	if err := f.enter(call); err != nil {
		return err
	}
	if _, ok := f.sessions[s]; !ok {
		f.mu.Unlock()
		return code(call, ckrSessionHandleInvalid)
	}
	return nil
}

func (f *fakeModule) initialize() error {
	f.mu.Lock()
	before := f.before
	f.mu.Unlock()
	if before != nil {
		if err := before("C_Initialize"); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.started {
		return code("C_Initialize", ckrCryptokiInitialized)
	}
	f.started, f.dead = true, false
	f.starts++
	f.reset()
	return nil
}

// reset kills all handles.
func (f *fakeModule) reset() {
	f.sessions, f.handles, f.loggedIn = map[sessionHandle]bool{}, map[objectHandle]*fakeObject{}, false
}

func (f *fakeModule) finalize() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.started = false
	f.reset()
	return nil
}

func (f *fakeModule) slots() ([]uint, error) {
	if err := f.enter("C_GetSlotList"); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	slots := make([]uint, len(f.tokens))
	for i := range slots {
		slots[i] = uint(i)
	}
	return slots, nil
}

func (f *fakeModule) tokenInfo(slot uint) (tokenInfo, error) {
	if err := f.enter("C_GetTokenInfo"); err != nil {
		return tokenInfo{}, err
	}
	defer f.mu.Unlock()
	return f.tokens[slot], nil
}

func (f *fakeModule) mechanismFlags(_, kind uint) (uint, error) {
	if err := f.enter("C_GetMechanismInfo"); err != nil {
		return 0, err
	}
	defer f.mu.Unlock()
	flags, ok := f.mechanisms[kind]
	switch {
	case f.mechanisms == nil:
		return ckfEncrypt | ckfDecrypt | ckfSign, nil
	case !ok:
		return 0, code("C_GetMechanismInfo", ckrMechanismInvalid)
	}
	return flags, nil
}

func (f *fakeModule) openSession(_ uint, readOnly bool) (sessionHandle, error) {
	if err := f.enter("C_OpenSession"); err != nil {
		return 0, err
	}
	defer f.mu.Unlock()
	if f.limit > 0 && len(f.sessions) >= f.limit {
		return 0, code("C_OpenSession", ckrSessionCount)
	}
	f.next++
	f.sessions[sessionHandle(f.next)] = readOnly
	f.peak = max(f.peak, len(f.sessions))
	return sessionHandle(f.next), nil
}

func (f *fakeModule) closeSession(s sessionHandle) error {
	if err := f.inSession("C_CloseSession", s); err != nil {
		return err
	}
	defer f.mu.Unlock()
	delete(f.sessions, s)
	if len(f.sessions) == 0 {
		f.reset()
	}
	return nil
}

// closeAll is what another user of the module may do: all sessions and the login die.
func (f *fakeModule) closeAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reset()
}

func (f *fakeModule) sessionState(s sessionHandle) (uint, error) {
	if err := f.inSession("C_GetSessionInfo", s); err != nil {
		return 0, err
	}
	defer f.mu.Unlock()
	switch readOnly := f.sessions[s]; {
	case f.loggedIn && readOnly:
		return cksROUserFunctions, nil
	case f.loggedIn:
		return cksRWUserFunctions, nil
	}
	return 2, nil
}

// logout is what another user of the module may do: private handles die for good.
func (f *fakeModule) logout() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.loggedIn = false
	clear(f.handles)
}

func (f *fakeModule) login(s sessionHandle, user uint, pin string) error {
	if err := f.inSession("C_Login", s); err != nil {
		return err
	}
	defer f.mu.Unlock()
	f.logins++
	switch {
	case f.loggedIn:
		return code("C_Login", ckrUserAlreadyLoggedIn) // whatever the PIN
	case f.userTypes != nil && !slices.Contains(f.userTypes, user):
		return code("C_Login", ckrUserTypeInvalid)
	case f.attempts > 0 && f.wrongPIN >= f.attempts:
		return code("C_Login", ckrPINLocked)
	case pin != f.pin:
		f.wrongPIN++
		return code("C_Login", ckrPINIncorrect)
	}
	f.loggedIn, f.wrongPIN = true, 0
	return nil
}

func (f *fakeModule) generateKey(s sessionHandle, _ uint, template []attribute) (objectHandle, error) {
	if err := f.inSession("C_GenerateKey", s); err != nil {
		return 0, err
	}
	defer f.mu.Unlock()
	o := &fakeObject{key: make([]byte, 32)}
	_, _ = rand.Read(o.key)
	return f.add("C_GenerateKey", s, o, template)
}

// add puts an object into the token. The caller holds the lock.
func (f *fakeModule) add(call string, s sessionHandle, o *fakeObject, template []attribute) (objectHandle, error) {
	o.attributes = map[uint]any{ckaLocal: true, ckaAlwaysSensitive: true, ckaNeverExtractable: true}
	for _, a := range template {
		o.attributes[a.kind] = a.value
	}
	switch stays := o.attributes[ckaToken] == true; {
	case !stays && f.noSessionKeys:
		return 0, code(call, ckrArgumentsBad)
	case f.mayNotMake != 0:
		return 0, code(call, f.mayNotMake)
	case stays && f.sessions[s]:
		return 0, code(call, ckrSessionReadOnly)
	}
	f.objects = append(f.objects, o)
	return f.handle(o), nil
}

func (f *fakeModule) generateKeyPair(s sessionHandle, _ uint, public, private []attribute) (publicKey, privateKey objectHandle, err error) {
	if err := f.inSession("C_GenerateKeyPair", s); err != nil {
		return 0, 0, err
	}
	defer f.mu.Unlock()
	key, err := rsa.GenerateKey(rand.Reader, 2048) // fewer bits than asked for: tests wait for them
	if err != nil {
		return 0, 0, err
	}
	modulus := attribute{ckaModulus, key.N.Bytes()}
	if publicKey, err = f.add("C_GenerateKeyPair", s, &fakeObject{}, append(public, modulus)); err != nil {
		return 0, 0, err
	}
	private = append(private, modulus)
	if !f.noExponent {
		private = append(private, attribute{ckaPublicExponent, []byte{1, 0, 1}})
	}
	privateKey, err = f.add("C_GenerateKeyPair", s, &fakeObject{rsa: key}, private)
	return publicKey, privateKey, err
}

func (f *fakeModule) handle(o *fakeObject) objectHandle {
	f.next++
	f.handles[objectHandle(f.next)] = o
	return objectHandle(f.next)
}

func (f *fakeModule) destroy(s sessionHandle, h objectHandle) error {
	if err := f.inSession("C_DestroyObject", s); err != nil {
		return err
	}
	defer f.mu.Unlock()
	o := f.handles[h]
	switch {
	case o == nil:
		return code("C_DestroyObject", ckrObjectHandleInvalid)
	case f.mayNotMake != 0:
		return code("C_DestroyObject", f.mayNotMake)
	case o.attributes[ckaToken] == true && f.sessions[s]:
		return code("C_DestroyObject", ckrSessionReadOnly)
	}
	f.drop(o)
	delete(f.handles, h)
	return nil
}

// drop deletes an object, as another process would: its handles die.
func (f *fakeModule) drop(o *fakeObject) {
	for i := range f.objects {
		if f.objects[i] == o {
			f.objects = append(f.objects[:i:i], f.objects[i+1:]...)
			return
		}
	}
}

func (f *fakeModule) find(s sessionHandle, template []attribute) ([]objectHandle, error) {
	if err := f.inSession("C_FindObjects", s); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	var out []objectHandle
	for _, o := range f.objects {
		hidden := !f.loggedIn && o.attributes[ckaPrivate] == true
		if !hidden && o.attributes[template[0].kind] == template[0].value {
			out = append(out, f.handle(o))
		}
	}
	return out, nil
}

func (f *fakeModule) attribute(s sessionHandle, h objectHandle, kind uint) ([]byte, error) {
	if err := f.inSession("C_GetAttributeValue", s); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	o := f.handles[h]
	if o == nil {
		return nil, code("C_GetAttributeValue", ckrObjectHandleInvalid)
	}
	switch v := o.attributes[kind].(type) {
	case []byte:
		return v, nil
	case bool:
		if v {
			return []byte{1}, nil
		}
		return []byte{0}, nil
	case uint:
		return binary.NativeEndian.AppendUint64(nil, uint64(v)), nil
	}
	return nil, code("C_GetAttributeValue", 0x12)
}

func (f *fakeModule) random(s sessionHandle, n int) ([]byte, error) {
	if err := f.inSession("C_GenerateRandom", s); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b, nil
}

// object returns what a handle stands for. The caller holds the lock.
func (f *fakeModule) object(call string, h objectHandle) (*fakeObject, error) {
	if o := f.handles[h]; o != nil {
		return o, nil
	}
	return nil, code(call, ckrKeyHandleInvalid)
}

// gcm returns the key's AEAD and the IV and AAD that this token really uses.
func (f *fakeModule) gcm(o *fakeObject, m mechanism) (cipher.AEAD, []byte, []byte) {
	block, _ := aes.NewCipher(o.key)
	iv, aad := bytes.Clone(m.iv), m.aad
	if f.ignoreIV || len(iv) == 0 {
		iv = make([]byte, max(12, f.ownIV))
	}
	if f.ignoreAAD {
		aad = nil
	}
	aead, _ := cipher.NewGCMWithNonceSize(block, len(iv))
	return aead, iv, aad
}

func (f *fakeModule) encrypt(s sessionHandle, h objectHandle, m mechanism, in []byte) ([]byte, error) {
	if err := f.inSession("C_Encrypt", s); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	o, err := f.object("C_EncryptInit", h)
	if err != nil {
		return nil, err
	}
	if m.kind == ckmAESCBCPad {
		block, _ := aes.NewCipher(o.key)
		padding := 16 - len(in)%16
		out := append(bytes.Clone(in), bytes.Repeat([]byte{byte(padding)}, padding)...)
		cipher.NewCBCEncrypter(block, m.iv).CryptBlocks(out, out)
		return out, nil
	}
	return f.encryptGCM(o, m, in)
}

func (f *fakeModule) encryptGCM(o *fakeObject, m mechanism, in []byte) ([]byte, error) {
	aead, iv, aad := f.gcm(o, m)
	switch f.dialect {
	case readBackIV:
		if !bytes.Equal(m.iv, make([]byte, 12)) {
			return nil, code("C_EncryptInit", ckrMechanismParamInvalid)
		}
		_, _ = rand.Read(m.iv)
		return aead.Seal(nil, m.iv, in, aad), nil
	case appendedIV, prependedIV:
		if len(m.iv) > 0 {
			return nil, code("C_EncryptInit", ckrArgumentsBad)
		}
		_, _ = rand.Read(iv)
		sealed := aead.Seal(nil, iv, in, aad)
		if f.dialect == appendedIV {
			return append(sealed, iv...), nil
		}
		return append(iv, sealed...), nil
	}
	if f.nullIV && len(m.iv) > 0 {
		return nil, code("C_EncryptInit", ckrMechanismParamInvalid)
	}
	return aead.Seal(nil, iv, in, aad), nil
}

func (f *fakeModule) decrypt(s sessionHandle, h objectHandle, m mechanism, in []byte) ([]byte, error) {
	if err := f.inSession("C_Decrypt", s); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	o, err := f.object("C_DecryptInit", h)
	if err != nil {
		return nil, err
	}
	out, err := f.open(o, m, in)
	switch {
	case err == nil:
		return out, nil
	case f.acceptAll:
		return make([]byte, len(in)-tagSize), nil
	}
	return nil, code("C_Decrypt", f.badTag)
}

func (f *fakeModule) open(o *fakeObject, m mechanism, in []byte) ([]byte, error) {
	switch m.kind {
	case ckmRSAOAEP:
		return rsa.DecryptOAEP(rsaOAEP{hash: m.hash}.newHash(), nil, o.rsa, in, nil)
	case ckmAESCBCPad:
		block, _ := aes.NewCipher(o.key)
		out := bytes.Clone(in)
		cipher.NewCBCDecrypter(block, m.iv).CryptBlocks(out, out)
		padding := int(out[len(out)-1])
		if padding == 0 || padding > 16 {
			return nil, errors.New("padding")
		}
		return out[:len(out)-padding], nil
	}
	aead, iv, aad := f.gcm(o, m)
	return aead.Open(nil, iv, in, aad)
}

func (f *fakeModule) sign(s sessionHandle, h objectHandle, _ mechanism, data []byte) ([]byte, error) {
	if err := f.inSession("C_Sign", s); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	o, err := f.object("C_SignInit", h)
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, o.key)
	mac.Write(data)
	return mac.Sum(nil), nil
}

func (f *fakeModule) initToken(uint, string, string) error { return errors.New("not in this fake") }

func (f *fakeModule) initPIN(sessionHandle, string) error { return errors.New("not in this fake") }

// set changes the module's behaviour while it is in use.
func (f *fakeModule) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// count reads one of the module's numbers.
func (f *fakeModule) count(n *int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return *n
}

// openFake opens the fake's token, with change applied to the configuration.
func openFake(t *testing.T, f *fakeModule, change func(*Config)) (*Token, error) {
	t.Helper()
	lib, err := start("fake.so", f)
	if err != nil {
		return nil, err
	}
	cfg := Config{
		Library: lib, Token: Selector{Label: "fake"}, PIN: NewPIN(fakePIN),
		Deadline: 5 * time.Second, Retry: time.Nanosecond,
	}
	if change != nil {
		change(&cfg)
	}
	token, err := Open(t.Context(), cfg)
	t.Cleanup(func() {
		if token != nil {
			if err := token.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := lib.Close(); err != nil {
			t.Error(err)
		}
	})
	return token, err
}

// mustOpenFake opens a fake token with one key in it.
func mustOpenFake(t *testing.T, f *fakeModule, change func(*Config)) (*Token, Key) {
	t.Helper()
	token, err := openFake(t, f, change)
	if err != nil {
		t.Fatal(err)
	}
	key := Key{"main.v1", token.cfg.Mechanism}
	if _, err := token.Generate(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	return token, key
}
