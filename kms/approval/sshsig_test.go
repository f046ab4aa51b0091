package approval

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"chatelaine/kms"
)

// withKeys are rules of which nothing but alice's keys matters.
func withKeys(t testing.TB, lines ...string) *Rules {
	t.Helper()
	r := &Rules{people: map[string]*Person{"alice": {Name: "alice"}}}
	for _, line := range lines {
		k, err := ParseKey(line)
		if err != nil {
			t.Fatal(err)
		}
		r.people["alice"].Keys = append(r.people["alice"].Keys, k)
	}
	return r
}

// keygen runs the real ssh-keygen, which is part of what CI installs.
func keygen(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("ssh-keygen")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("ssh-keygen is not installed")
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ssh-keygen %v: %v: %s", args, err, out)
	}
	return string(out)
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestSignaturesOfSSHKeygenAreVerified(t *testing.T) {
	message := string(request().Statement(Approve))
	for _, hash := range []string{"sha512", "sha256"} {
		key, file := filepath.Join(t.TempDir(), "id"), write(t, "statement", message)
		keygen(t, "-q", "-t", "ed25519", "-N", "", "-C", "a b c", "-f", key)
		keygen(t, "-Y", "sign", "-n", Namespace, "-O", "hashalg="+hash, "-f", key, file)
		signature := read(t, file+".sig")
		rules := withKeys(t, read(t, key+".pub"))
		if p, err := rules.signer([]byte(message), signature); err != nil || p.Name != "alice" {
			t.Errorf("%s: got %v", hash, err)
		}
		_, err := rules.signer([]byte(message+" "), signature)
		wantErr(t, err, kms.ErrDenied)
		_, err = withKeys(t, person("alice").line()).signer([]byte(message), signature)
		wantErr(t, err, kms.ErrDenied, "belongs to nobody")
		if want := strings.Fields(keygen(t, "-l", "-f", key+".pub"))[1]; rules.people["alice"].Keys[0].Fingerprint() != want {
			t.Errorf("fingerprint %s, want %s", rules.people["alice"].Keys[0].Fingerprint(), want)
		}
	}
}

func TestSSHKeygenVerifiesOurSignatures(t *testing.T) {
	message := request().Statement(Reject)
	signature := write(t, "sig", person("alice").sign(message))
	allowed := write(t, "allowed", "alice "+person("alice").line()+"\n")
	cmd := exec.CommandContext(t.Context(), "ssh-keygen", "-Y", "verify", "-n", Namespace, "-I", "alice", "-f", allowed, "-s", signature)
	cmd.Stdin = strings.NewReader(string(message))
	keygen(t, "-l", "-f", write(t, "k.pub", person("alice").line())) // skips where there is none
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestNoBitOfASignatureCanBeFlipped(t *testing.T) {
	message := request().Statement(Approve)
	rules := withKeys(t, person("alice").line())
	armored := person("alice").sign(message)
	if _, err := rules.signer(message, armored); err != nil {
		t.Fatal(err)
	}
	s, _, err := parseSSHSig([]byte(armored))
	if err != nil {
		t.Fatal(err)
	}
	blob := append([]byte(sshsigMagic), ssh.Marshal(s)...)
	for i := range len(blob) * 8 {
		flipped := append([]byte(nil), blob...)
		flipped[i/8] ^= 1 << (i % 8)
		text := "-----BEGIN SSH SIGNATURE-----\n" + base64.StdEncoding.EncodeToString(flipped) + "\n-----END SSH SIGNATURE-----\n"
		if _, err := rules.signer(message, text); err == nil {
			t.Errorf("bit %d can be flipped", i)
		}
	}
	for i := range len(message) {
		flipped := append([]byte(nil), message...)
		flipped[i] ^= 1 << (i % 8)
		if _, err := rules.signer(flipped, armored); err == nil {
			t.Errorf("byte %d of the message can be flipped", i)
		}
	}
}

func TestMalformedSignaturesAreInvalid(t *testing.T) {
	message := []byte("m")
	alice := person("alice")
	good, _, err := parseSSHSig([]byte(alice.sign(message)))
	if err != nil {
		t.Fatal(err)
	}
	altered := func(change func(*sshsig)) string {
		s := good
		change(&s)
		return armor(s)
	}
	rsa, _, _, _, err := ssh.ParseAuthorizedKey([]byte(read(t, "testdata/rsa.pub")))
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{
		"empty":     "",
		"text":      "hello",
		"before":    "x" + alice.sign(message),
		"after":     alice.sign(message) + "x",
		"two":       alice.sign(message) + alice.sign(message),
		"headers":   strings.Replace(alice.sign(message), "-----\n", "-----\nA: b\n\n", 1),
		"kind":      strings.ReplaceAll(alice.sign(message), "SSH SIGNATURE", "SSH MESSAGE"),
		"long":      alice.sign(message) + strings.Repeat("\n", maxSignature) + ".",
		"version":   altered(func(s *sshsig) { s.Version = 2 }),
		"namespace": altered(func(s *sshsig) { s.Namespace = "file" }),
		"hash":      altered(func(s *sshsig) { s.Hash = "md5" }),
		"key":       altered(func(s *sshsig) { s.PublicKey = []byte("x") }),
		"RSA":       altered(func(s *sshsig) { s.PublicKey = rsa.Marshal() }),
		"signature": altered(func(s *sshsig) { s.Signature = nil }),
		"rest": altered(func(s *sshsig) {
			s.Signature = append(append([]byte(nil), s.Signature...), 1, 2, 3)
		}),
	}
	rules := withKeys(t, alice.line())
	for name, text := range tests {
		if _, err := rules.signer(message, text); err == nil {
			t.Errorf("%s: accepted", name)
		} else {
			wantErr(t, err, kms.ErrInvalid)
		}
	}
}

// A hardware key signs a flag that it was touched, and a counter (OpenSSH's
// PROTOCOL.u2f). No device is needed to make such a signature in software.
func TestHardwareKeysMustHaveBeenTouched(t *testing.T) {
	const application = "ssh:"
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	blob := ssh.Marshal(struct {
		Kind        string
		Key         []byte
		Application string
	}{ssh.KeyAlgoSKED25519, public, application})
	key, err := ssh.ParsePublicKey(blob)
	if err != nil {
		t.Fatal(err)
	}
	message := request().Statement(Approve)
	sign := func(flags byte) string {
		s := sshsig{Version: 1, PublicKey: blob, Namespace: Namespace, Hash: "sha256"}
		digest := sha256.Sum256(message)
		inner := append([]byte(sshsigMagic), ssh.Marshal(struct {
			Namespace, Reserved, Hash string
			Digest                    []byte
		}{s.Namespace, "", s.Hash, digest[:]})...)
		app, body := sha256.Sum256([]byte(application)), sha256.Sum256(inner)
		signed := append(append(app[:], flags, 0, 0, 0, 7), body[:]...)
		s.Signature = ssh.Marshal(ssh.Signature{
			Format: ssh.KeyAlgoSKED25519, Blob: ed25519.Sign(private, signed), Rest: []byte{flags, 0, 0, 0, 7},
		})
		return armor(s)
	}
	rules := withKeys(t, string(ssh.MarshalAuthorizedKey(key)))
	if _, err := rules.signer(message, sign(1)); err != nil {
		t.Errorf("touched: %v", err)
	}
	_, err = rules.signer(message, sign(0))
	wantErr(t, err, kms.ErrDenied)
}

func TestBareEd25519Signatures(t *testing.T) {
	message := request().Statement(Approve)
	alice := person("alice")
	line := rawPrefix + base64.StdEncoding.EncodeToString(alice.private.Public().(ed25519.PublicKey))
	signature := rawPrefix + base64.StdEncoding.EncodeToString(ed25519.Sign(alice.private, message))
	if p, err := withKeys(t, line).signer(message, signature); err != nil || p.Name != "alice" {
		t.Errorf("got %v", err)
	}
	// A key that was given as SSH's signs as SSH does, and no other way.
	_, err := withKeys(t, alice.line()).signer(message, signature)
	wantErr(t, err, kms.ErrDenied)
	for _, bad := range []string{rawPrefix, signature + "A", strings.Replace(signature, ":", ":A", 1)} {
		_, err := withKeys(t, line).signer(message, bad)
		wantErr(t, err, kms.ErrDenied)
	}
	_, err = withKeys(t, line).signer(append(message, ' '), signature)
	wantErr(t, err, kms.ErrDenied)
}

func FuzzSignature(f *testing.F) {
	message := []byte("m")
	f.Add(person("alice").sign(message))
	f.Add(person("bob").sign(message))
	f.Add("ed25519:AAAA")
	rules := withKeys(f, person("alice").line())
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := rules.signer([]byte("another message"), text); err == nil {
			t.Error("a signature was made without the key")
		}
	})
}

func TestAKeyVerifiesItsOwnSignaturesAlone(t *testing.T) {
	message := []byte("statement\n")
	alice, bob := person("alice"), person("bob")
	key := func(text string) Key {
		t.Helper()
		k, err := ParseKey(text)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	bare := key(rawPrefix + base64.StdEncoding.EncodeToString(alice.private.Public().(ed25519.PublicKey)))
	raw := rawPrefix + base64.StdEncoding.EncodeToString(ed25519.Sign(alice.private, message))
	for name, err := range map[string]error{
		"SSH":  key(alice.line()+" a comment").Verify(message, alice.sign(message)),
		"bare": bare.Verify(message, raw),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	wantErr(t, key(alice.line()).Verify(append(message, ' '), alice.sign(message)), kms.ErrDenied, "not over this statement")
	wantErr(t, key(alice.line()).Verify(message, bob.sign(message)), kms.ErrDenied, "by the key "+key(bob.line()).Fingerprint())
	wantErr(t, key(alice.line()).Verify(message, raw), kms.ErrDenied)
	wantErr(t, bare.Verify(append(message, ' '), raw), kms.ErrDenied)
	wantErr(t, key(alice.line()).Verify(message, "hello"), kms.ErrInvalid)
	for _, k := range []Key{bare, key(alice.line() + " a comment")} {
		if again := key(k.String()); again.String() != k.String() || !again.Same(bare) || again.Same(key(bob.line())) {
			t.Errorf("got %s of %s", again, k)
		}
	}
}
