package hsm

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
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
	sessions map[sessionHandle]bool
	handles  map[objectHandle]*fakeObject
	next     uint
	peak     int // most sessions at once
	dead     bool

	badTag        uint // the code for a tag that does not verify
	dialect       ivDialect
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
	if !f.sessions[s] {
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

func (f *fakeModule) mechanismFlags(uint, uint) (uint, error) {
	if err := f.enter("C_GetMechanismInfo"); err != nil {
		return 0, err
	}
	defer f.mu.Unlock()
	return ckfEncrypt | ckfDecrypt, nil
}

func (f *fakeModule) openSession(uint) (sessionHandle, error) {
	if err := f.enter("C_OpenSession"); err != nil {
		return 0, err
	}
	defer f.mu.Unlock()
	f.next++
	f.sessions[sessionHandle(f.next)] = true
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
	if f.loggedIn {
		return cksRWUserFunctions, nil
	}
	return 2, nil
}

func (f *fakeModule) login(s sessionHandle, _ uint, pin string) error {
	if err := f.inSession("C_Login", s); err != nil {
		return err
	}
	defer f.mu.Unlock()
	f.logins++
	switch {
	case f.loggedIn:
		return code("C_Login", ckrUserAlreadyLoggedIn)
	case pin != f.pin:
		return code("C_Login", ckrPINIncorrect)
	}
	f.loggedIn = true
	return nil
}

func (f *fakeModule) generateKey(s sessionHandle, _ uint, template []attribute) (objectHandle, error) {
	if err := f.inSession("C_GenerateKey", s); err != nil {
		return 0, err
	}
	defer f.mu.Unlock()
	o := &fakeObject{attributes: map[uint]any{ckaLocal: true, ckaAlwaysSensitive: true, ckaNeverExtractable: true}, key: make([]byte, 32)}
	_, _ = rand.Read(o.key)
	for _, a := range template {
		o.attributes[a.kind] = a.value
	}
	if o.attributes[ckaToken] == false && f.noSessionKeys {
		return 0, code("C_GenerateKey", ckrArgumentsBad)
	}
	f.objects = append(f.objects, o)
	return f.handle(o), nil
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
	f.drop(f.handles[h])
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
		if o.attributes[template[0].kind] == template[0].value {
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
	switch v := f.handles[h].attributes[kind].(type) {
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

// cipher returns the key's AEAD and the IV and AAD that this token really uses. The
// caller holds the lock.
func (f *fakeModule) cipher(h objectHandle, call gcmCall) (cipher.AEAD, []byte, []byte, error) {
	o := f.handles[h]
	if o == nil {
		return nil, nil, nil, code("C_EncryptInit", ckrKeyHandleInvalid)
	}
	block, _ := aes.NewCipher(o.key)
	aead, _ := cipher.NewGCM(block)
	iv, aad := bytes.Clone(call.iv), call.aad
	if f.ignoreIV || iv == nil {
		iv = make([]byte, ivSize)
	}
	if f.ignoreAAD {
		aad = nil
	}
	return aead, iv, aad, nil
}

func (f *fakeModule) encryptGCM(s sessionHandle, h objectHandle, call gcmCall, in []byte) ([]byte, error) {
	if err := f.inSession("C_Encrypt", s); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	aead, iv, aad, err := f.cipher(h, call)
	if err != nil {
		return nil, err
	}
	switch f.dialect {
	case readBackIV:
		if !bytes.Equal(iv, make([]byte, ivSize)) {
			return nil, code("C_EncryptInit", ckrMechanismParamInvalid)
		}
		_, _ = rand.Read(call.iv)
		return aead.Seal(nil, call.iv, in, aad), nil
	case appendedIV, prependedIV:
		if call.iv != nil {
			return nil, code("C_EncryptInit", ckrArgumentsBad)
		}
		_, _ = rand.Read(iv)
		sealed := aead.Seal(nil, iv, in, aad)
		if f.dialect == appendedIV {
			return append(sealed, iv...), nil
		}
		return append(iv, sealed...), nil
	}
	return aead.Seal(nil, iv, in, aad), nil
}

func (f *fakeModule) decryptGCM(s sessionHandle, h objectHandle, call gcmCall, in []byte) ([]byte, error) {
	if err := f.inSession("C_Decrypt", s); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	aead, iv, aad, err := f.cipher(h, call)
	if err != nil {
		return nil, err
	}
	out, err := aead.Open(nil, iv, in, aad)
	switch {
	case err == nil:
		return out, nil
	case f.acceptAll:
		return make([]byte, len(in)-tagSize), nil
	}
	return nil, code("C_Decrypt", f.badTag)
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
	key := Key{"main.v1", AESGCM}
	if _, err := token.Generate(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	return token, key
}
