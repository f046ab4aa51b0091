package hsm

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// What vendors' tokens do, one row each, as the design's KEYS.md lists it in its
// section on PKCS#11. The device is the fake module under a script; what must come
// of it is in the row.

// script is a device's behaviour and what a Token makes of it.
type script struct {
	says   string
	device func(*fakeModule)
	config func(*Config)
	open   error                                                  // what Open must answer; nil: it succeeds
	play   func(t *testing.T, f *fakeModule, token *Token, k Key) // nil: a round trip, and nothing else decrypts
}

func TestVendors(t *testing.T) {
	for _, table := range [][]script{dialectScripts(), mechanismScripts(), codeScripts(), loginScripts(), lossScripts(), roleScripts()} {
		for _, s := range table {
			t.Run(s.says, s.run)
		}
	}
}

func (s script) run(t *testing.T) {
	f := newFake()
	if s.device != nil {
		s.device(f)
	}
	token, err := openFake(t, f, s.config)
	if s.open != nil || err != nil {
		if !errors.Is(err, s.open) {
			t.Fatalf("opening: got %v, want %v", err, s.open)
		}
		return
	}
	play := s.play
	if play == nil {
		play = playRoundTrip
	}
	play(t, f, token, Key{"main.v1", token.cfg.Mechanism})
}

func use(m Mechanism) func(*Config) { return func(c *Config) { c.Mechanism = m } }

func dialectScripts() []script {
	dialect := func(d ivDialect) func(*fakeModule) { return func(f *fakeModule) { f.dialect = d } }
	return []script{
		{says: "most: the caller's IV", device: dialect(callersIV)},
		{says: "CloudHSM and nShield: zeroes in, the IV read back", device: dialect(readBackIV)},
		{says: "Luna in FIPS mode: none in, the IV appended", device: dialect(appendedIV)},
		{says: "others: none in, the IV in front", device: dialect(prependedIV)},
		{
			says: "Luna in FIPS mode before 7.9.3: an IV of 16 bytes, refused as aes-gcm", open: ErrUnsupported,
			device: func(f *fakeModule) { f.dialect, f.ownIV = appendedIV, 16 },
		},
		{
			says:   "Luna in FIPS mode before 7.9.3: an IV of 16 bytes",
			device: func(f *fakeModule) { f.dialect, f.ownIV = appendedIV, 16 }, config: use(AESGCM16),
		},
		{
			says: "SoftHSM: no IV taken for zeroes without a word, deterministic", open: ErrUnsafe,
			device: func(f *fakeModule) { f.nullIV = true },
		},
		{
			says: "a token that ignores the IV it is given", open: ErrUnsafe,
			device: func(f *fakeModule) { f.ignoreIV = true },
		},
		{
			says: "a token that ignores associated data", open: ErrUnsafe,
			device: func(f *fakeModule) { f.ignoreAAD = true },
		},
		{
			says: "a token that accepts a broken tag", open: ErrUnsafe,
			device: func(f *fakeModule) { f.acceptAll = true },
		},
		{
			says:   "what one dialect encrypted another decrypts: a KEK may move house",
			device: dialect(appendedIV), play: playMovingHouse,
		},
	}
}

func mechanismScripts() []script {
	only := func(flags map[uint]uint) func(*fakeModule) { return func(f *fakeModule) { f.mechanisms = flags } }
	netHSM := map[uint]uint{ckmRSAOAEP: ckfDecrypt, ckmAESCBCPad: ckfEncrypt | ckfDecrypt} // no GCM, no wrap
	swtok := map[uint]uint{ckmAESCBCPad: ckfEncrypt | ckfDecrypt, ckmSHA256HMAC: ckfSign, ckmRSAOAEP: ckfDecrypt | ckfEncrypt}
	return []script{
		{says: "NetHSM: no AES-GCM", device: only(netHSM), open: ErrUnsupported},
		{says: "NetHSM: rsa-oaep-sha256, and no wrap calls", device: only(netHSM), config: use(RSAOAEPSHA256)},
		{says: "NetHSM: no HMAC, so no aes-cbc-hmac", device: only(netHSM), config: use(AESCBCHMAC), open: ErrUnsupported},
		{says: "YubiHSM: RSA encrypts here while the device is away", config: use(RSAOAEPSHA256), play: playEncryptWhileAway},
		{says: "SoftHSM: OAEP with SHA-1 only", config: use(RSAOAEPSHA1)},
		{
			says:   "RSA private keys that do not tell the public exponent",
			device: func(f *fakeModule) { f.noExponent = true }, config: use(RSAOAEPSHA256),
		},
		{says: "openCryptoki: aes-cbc-hmac for want of GCM", device: only(swtok), config: use(AESCBCHMAC)},
		{says: "a mechanism that only encrypts", device: only(map[uint]uint{ckmAESGCM: ckfEncrypt}), open: ErrUnsupported},
		{says: "a key of another mechanism", config: use(RSAOAEPSHA256), play: playWrongKind},
	}
}

func codeScripts() []script {
	bad := func(code uint) func(*fakeModule) { return func(f *fakeModule) { f.badTag = code } }
	return []script{
		{says: "SoftHSM: CKR_GENERAL_ERROR for a bad tag", device: bad(ckrGeneralError), play: playBadTag},
		{says: "nShield: CKR_FUNCTION_FAILED for a bad tag", device: bad(ckrFunctionFailed), play: playBadTag},
		{says: "v2.40: CKR_ENCRYPTED_DATA_INVALID for a bad tag", device: bad(ckrEncryptedDataInvalid), play: playBadTag},
		{says: "v3.0: CKR_AEAD_DECRYPT_FAILED for a bad tag", device: bad(ckrAEADDecryptFailed), play: playBadTag},
		{says: "SoftHSM: CKR_GENERAL_ERROR for a bad OAEP block", device: bad(ckrGeneralError), config: use(RSAOAEPSHA1), play: playBadTag},
		{says: "a bad MAC needs no code", device: bad(ckrGeneralError), config: use(AESCBCHMAC), play: playBadTag},
		{says: "CKR_GENERAL_ERROR of a broken device", device: bad(ckrGeneralError), play: playBrokenDevice},
	}
}

func loginScripts() []script {
	return []script{
		{says: "C_Logout by anyone kills the handles, also after the next login", play: playLogout},
		{
			says: "a wrong PIN: one attempt", open: ErrPIN, device: func(f *fakeModule) { f.attempts = 3 },
			config: func(c *Config) { c.PIN = NewPIN("0000") },
		},
		{says: "a PIN that was changed: one attempt, whatever the traffic", device: func(f *fakeModule) { f.attempts = 3 }, play: playChangedPIN},
		{says: "a second login with a wrong PIN says CKR_USER_ALREADY_LOGGED_IN", play: playSecondLogin},
		{says: "a PIN that is locked", open: ErrPIN, device: func(f *fakeModule) { f.tokens[0].flags |= ckfUserPINLocked }},
		{says: "a PIN that one more mistake locks", open: ErrPIN, device: func(f *fakeModule) { f.tokens[0].flags |= ckfUserPINFinalTry }},
		{says: "a PIN that was locked while we were logged in", play: playLockedMeanwhile},
	}
}

func lossScripts() []script {
	return []script{
		{says: "a lost device answers CKR_DEVICE_ERROR until C_Finalize and C_Initialize", play: playLostDevice},
		{says: "a call that hangs", config: func(c *Config) { c.Deadline = 50 * time.Millisecond }, play: playHang},
		{
			says:   "a token that tells its session limit",
			device: func(f *fakeModule) { f.limit, f.tokens[0].maxSessions = 8, 8 }, play: playManyCallers(8),
		},
		{says: "a token that does not tell its session limit", device: func(f *fakeModule) { f.limit = 4 }, play: playManyCallers(4)},
		{
			says: "more than one key of a label", play: func(t *testing.T, f *fakeModule, token *Token, k Key) {
				mustGenerate(t, token, k)
				f.set(func() { f.objects = append(f.objects, f.objects[0]) })
				if _, err := token.Find(t.Context(), k); !errors.Is(err, ErrAmbiguous) {
					t.Errorf("got %v, want ErrAmbiguous", err)
				}
			},
		},
	}
}

func roleScripts() []script {
	forbids := func(code uint) func(*fakeModule) { return func(f *fakeModule) { f.mayNotMake = code } }
	return []script{
		{says: "a crypto user: CKR_ACTION_PROHIBITED", device: forbids(ckrActionProhibited), play: playCryptoUser},
		{says: "a NetHSM operator: CKR_USER_NOT_LOGGED_IN though logged in", device: forbids(ckrUserNotLoggedIn), play: playCryptoUser},
		{says: "a token under write protection", device: forbids(ckrTokenWriteProtected), play: playCryptoUser},
		{says: "read-only sessions", config: func(c *Config) { c.ReadOnly = true }, play: playCryptoUser},
		{
			says:   "Luna: the crypto user is another kind of user",
			device: func(f *fakeModule) { f.userTypes = []uint{0x80000001} },
			config: func(c *Config) { c.UserType = 0x80000001 },
		},
		{
			says: "a kind of user that the token does not know", open: ErrUnavailable,
			device: func(f *fakeModule) { f.userTypes = []uint{ckuUser} },
			config: func(c *Config) { c.UserType = 0x80000001 },
		},
	}
}

func mustGenerate(t *testing.T, token *Token, k Key) {
	t.Helper()
	if _, err := token.Generate(t.Context(), k); err != nil {
		t.Fatal(err)
	}
}

func mustEncrypt(t *testing.T, token *Token, k Key) []byte {
	t.Helper()
	sealed, err := token.Encrypt(t.Context(), k, []byte("secret"), []byte("context"))
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func wantDecrypts(t *testing.T, token *Token, k Key, sealed []byte) {
	t.Helper()
	if got, err := token.Decrypt(t.Context(), k, sealed, []byte("context")); err != nil || string(got) != "secret" {
		t.Errorf("decrypting: got %q, %v", got, err)
	}
}

// playRoundTrip also flips a bit of each byte (of long ciphertexts, of every few) and
// changes every argument.
func playRoundTrip(t *testing.T, _ *fakeModule, token *Token, k Key) {
	mustGenerate(t, token, k)
	mustGenerate(t, token, Key{"other.v1", k.Mechanism})
	sealed, again := mustEncrypt(t, token, k), mustEncrypt(t, token, k)
	if bytes.Equal(sealed, again) || bytes.Contains(sealed, []byte("secret")) {
		t.Error("encryption repeats itself or shows the secret")
	}
	for i := 0; i < len(sealed); i += 1 + len(sealed)/200*12 {
		flipped := bytes.Clone(sealed)
		flipped[i] ^= 1 << (i % 8)
		wantCorrupt(t, token, k, flipped, "context")
	}
	wantCorrupt(t, token, k, sealed, "other context")
	wantCorrupt(t, token, k, sealed[:len(sealed)-1], "context")
	wantCorrupt(t, token, k, append(bytes.Clone(sealed), 0), "context")
	wantCorrupt(t, token, Key{"other.v1", k.Mechanism}, sealed, "context")
	wantDecrypts(t, token, k, sealed)
	if err := token.Destroy(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	if _, err := token.Encrypt(t.Context(), k, []byte("secret"), nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("encrypting under a destroyed key: got %v, want ErrNotFound", err)
	}
}

func wantCorrupt(t *testing.T, token *Token, k Key, sealed []byte, context string) {
	t.Helper()
	if _, err := token.Decrypt(t.Context(), k, sealed, []byte(context)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("got %v, want ErrCorrupt", err)
	}
}

func playMovingHouse(t *testing.T, f *fakeModule, token *Token, k Key) {
	mustGenerate(t, token, k)
	sealed := mustEncrypt(t, token, k)
	f.set(func() { f.dialect, f.dead = callersIV, true }) // another HSM with the same key
	wantDecrypts(t, token, k, sealed)
	wantDecrypts(t, token, k, mustEncrypt(t, token, k))
}

func playEncryptWhileAway(t *testing.T, f *fakeModule, token *Token, k Key) {
	mustGenerate(t, token, k)
	away := func(call string) error { return code(call, ckrDeviceRemoved) }
	f.set(func() { f.before = away })
	sealed := mustEncrypt(t, token, k)
	if _, err := token.Decrypt(t.Context(), k, sealed, []byte("context")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("decrypting meanwhile: got %v, want ErrUnavailable", err)
	}
	f.set(func() { f.before = nil })
	wantDecrypts(t, token, k, sealed)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := token.Encrypt(ctx, k, []byte("secret"), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: got %v, want context.Canceled", err)
	}
}

func playWrongKind(t *testing.T, _ *fakeModule, token *Token, k Key) {
	mustGenerate(t, token, Key{k.Label, AESGCM})
	if _, err := token.Find(t.Context(), k); !errors.Is(err, ErrKind) || !errors.Is(err, ErrUnsafe) {
		t.Errorf("got %v, want ErrKind and ErrUnsafe", err)
	}
	for _, m := range Mechanisms() {
		if _, err := token.Generate(t.Context(), Key{k.Label, m}); !errors.Is(err, ErrExists) {
			t.Errorf("making one beside it for %s: got %v, want ErrExists", m, err)
		}
	}
}

func playBadTag(t *testing.T, f *fakeModule, token *Token, k Key) {
	mustGenerate(t, token, k)
	sealed := mustEncrypt(t, token, k)
	flipped := bytes.Clone(sealed)
	flipped[len(flipped)-1] ^= 1
	_, err := token.Decrypt(t.Context(), k, flipped, []byte("context"))
	if !errors.Is(err, ErrCorrupt) || errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v, want ErrCorrupt", err)
	}
	wantDecrypts(t, token, k, sealed)
	if got := f.count(&f.starts); got != 1 {
		t.Errorf("the module was initialised %d times, want 1", got)
	}
}

func playBrokenDevice(t *testing.T, f *fakeModule, token *Token, k Key) {
	mustGenerate(t, token, k)
	sealed := mustEncrypt(t, token, k)
	f.set(func() {
		f.before = func(call string) error {
			if call == "C_Decrypt" {
				return code(call, ckrGeneralError)
			}
			return nil
		}
	})
	_, err := token.Decrypt(t.Context(), k, sealed, []byte("context"))
	if !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrCorrupt) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	f.set(func() { f.before = nil })
	wantDecrypts(t, token, k, sealed)
}

func playLogout(t *testing.T, f *fakeModule, token *Token, k Key) {
	mustGenerate(t, token, k)
	sealed := mustEncrypt(t, token, k)
	f.logout()
	wantDecrypts(t, token, k, sealed)
	if starts, logins := f.count(&f.starts), f.count(&f.logins); starts != 1 || logins != 2 {
		t.Errorf("%d starts and %d logins, want 1 and 2", starts, logins)
	}
}

func playSecondLogin(t *testing.T, f *fakeModule, token *Token, k Key) {
	_, err := Open(t.Context(), Config{Library: token.lib, Token: Selector{Label: "fake"}, PIN: NewPIN("0000")})
	if !errors.Is(err, ErrInUse) {
		t.Errorf("got %v, want ErrInUse", err)
	}
	playRoundTrip(t, f, token, k)
}

// playChangedPIN: 500 callers at once, and the token does not lock.
func playChangedPIN(t *testing.T, f *fakeModule, token *Token, k Key) {
	mustGenerate(t, token, k)
	before := f.count(&f.logins)
	f.set(func() { f.pin, f.dead = "other", true })
	answers := make(chan error, 500)
	for range cap(answers) {
		go func() {
			_, err := token.Encrypt(t.Context(), k, []byte("secret"), nil)
			answers <- err
		}()
	}
	for range cap(answers) {
		if err := <-answers; !errors.Is(err, ErrPIN) || !strings.Contains(err.Error(), "correct the PIN and restart") {
			t.Fatalf("got %v, want ErrPIN with advice", err)
		}
	}
	if got := f.count(&f.logins) - before; got != 1 {
		t.Errorf("the PIN was given %d times, want 1", got)
	}
}

func playLockedMeanwhile(t *testing.T, f *fakeModule, token *Token, k Key) {
	mustGenerate(t, token, k)
	f.set(func() { f.tokens[0].flags |= ckfUserPINLocked; f.dead = true })
	before := f.count(&f.logins)
	for range 20 {
		if _, err := token.Encrypt(t.Context(), k, []byte("secret"), nil); !errors.Is(err, ErrPIN) {
			t.Fatalf("got %v, want ErrPIN", err)
		}
	}
	if got := f.count(&f.logins); got != before {
		t.Errorf("the PIN was tried %d times", got-before)
	}
}

func playLostDevice(t *testing.T, f *fakeModule, token *Token, k Key) {
	mustGenerate(t, token, k)
	sealed := mustEncrypt(t, token, k)
	for range 3 {
		f.set(func() { f.dead = true })
		wantDecrypts(t, token, k, sealed)
	}
	if got := f.count(&f.starts); got != 4 {
		t.Errorf("the module was initialised %d times, want 4", got)
	}
}

// playHang: one call hangs, others go on, and somebody is told.
func playHang(t *testing.T, f *fakeModule, token *Token, k Key) {
	told := make(chan string, 8)
	token.cfg.Patience, token.cfg.Hung = 60*time.Millisecond, func(op string) { told <- op }
	mustGenerate(t, token, k)
	sealed := mustEncrypt(t, token, k)
	_, release := hang(f)
	defer release()
	start := time.Now()
	_, err := token.Encrypt(t.Context(), k, []byte("secret"), nil)
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "has not answered") || time.Since(start) > time.Second {
		t.Errorf("got %v after %v, want ErrUnavailable at the deadline", err, time.Since(start))
	}
	wantDecrypts(t, token, k, sealed) // on another session
	if op := <-told; op != "encrypt" {
		t.Errorf("heard that %q hangs, want encrypt", op)
	}
}

// playManyCallers: nobody fails, and the token's limit holds.
func playManyCallers(limit int) func(*testing.T, *fakeModule, *Token, Key) {
	return func(t *testing.T, f *fakeModule, token *Token, k Key) {
		mustGenerate(t, token, k)
		answers := make(chan error, 200)
		for range cap(answers) {
			go func() {
				_, err := token.Encrypt(t.Context(), k, []byte("secret"), nil)
				answers <- err
			}()
		}
		for range cap(answers) {
			if err := <-answers; err != nil {
				t.Errorf("got %v", err)
			}
		}
		if got := f.count(&f.peak); got > limit {
			t.Errorf("%d sessions were open at once, want at most %d", got, limit)
		}
	}
}

// playCryptoUser: keys that somebody else made are used; none is made or destroyed.
func playCryptoUser(t *testing.T, f *fakeModule, token *Token, k Key) {
	if _, err := token.Generate(t.Context(), k); !errors.Is(err, ErrRole) || errors.Is(err, ErrUnavailable) {
		t.Errorf("making a key: got %v, want ErrRole", err)
	}
	f.plant(k.Label)
	wantDecrypts(t, token, k, mustEncrypt(t, token, k))
	if err := token.Destroy(t.Context(), k); !errors.Is(err, ErrRole) {
		t.Errorf("destroying it: got %v, want ErrRole", err)
	}
	wantDecrypts(t, token, k, mustEncrypt(t, token, k))
	if got := f.count(&f.logins); got != 1 {
		t.Errorf("the PIN was given %d times, want 1", got)
	}
}

// plant makes an AES-GCM key as a crypto officer would.
func (f *fakeModule) plant(label string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	kept := f.mayNotMake
	f.mayNotMake = 0
	template := []attribute{{ckaLabel, label}, {ckaClass, uint(ckoSecretKey)}, {ckaKeyType, uint(ckkAES)}, {ckaValueLen, uint(keySize)}}
	for _, flag := range mustHave() {
		template = append(template, attribute{flag.kind, flag.value})
	}
	_, _ = f.add("C_GenerateKey", 0, &fakeObject{key: bytes.Repeat([]byte{7}, keySize)}, template)
	f.mayNotMake = kept
}
