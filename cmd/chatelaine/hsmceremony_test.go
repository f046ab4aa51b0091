package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awscredentials "github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"chatelaine/hsm"
	"chatelaine/hsm/hsmtest"
	"chatelaine/kms"
	kmsconfig "chatelaine/kms/config"
	"chatelaine/kms/pkcs11"
)

// runner runs commands in a folder, and wants their exit code and what they say.
type runner func(want int, says string, args ...string) string

func runIn(t *testing.T, dir string) runner {
	t.Helper()
	return func(want int, says string, args ...string) string {
		t.Helper()
		c := startIn(t, dir, nil, args...)
		code := c.end(t)
		text := c.out.String() + c.err.String()
		if code != want || !strings.Contains(text, says) {
			t.Fatalf("%v: ended with %d, want %d and %q: %s", args, code, want, says, text)
		}
		return text
	}
}

func TestKeysOfACeremonyAreVerifiedTakenOverAndUsed(t *testing.T) {
	config := tokenFile(t, hsmtest.PIN)
	dir := t.TempDir()
	people(t, dir, "alice", "bob", "mallory")
	run := runIn(t, dir)
	witnesses := []string{"--witness", "alice=alice.pub", "--witness", "bob=bob.pub"}

	made := run(0, "The keys are made", append([]string{
		"hsm", "ceremony", "make", "c", "--config", config, "--key", "main", "--key", "other", "--reason", "first keys", "--yes",
	}, witnesses...)...)
	for _, want := range []string{`key "main.v1"`, `label "c-other.v1"`, `attribute "CKA_NEVER_EXTRACTABLE" "true"`, "check-value", `reason "first keys"`, `witness "bob" "SHA256:`} {
		if !strings.Contains(made, want) {
			t.Errorf("it does not say %s: %s", want, made)
		}
	}
	run(exitFailure, "bob has not signed", "hsm", "ceremony", "verify", "c")
	run(exitUsage, "say --yes", "hsm", "ceremony", "sign", "c", "--sign-key", "alice")
	run(exitFailure, "a key that the record has", "hsm", "ceremony", "sign", "c", "--sign-key", "mallory", "--yes")
	run(0, "Signed as alice", "hsm", "ceremony", "sign", "c", "--sign-key", "alice", "--yes")
	run(exitFailure, "alice has signed already", "hsm", "ceremony", "sign", "c", "--sign-key", "alice", "--yes")
	statement := filepath.Join(dir, "c", "statement.txt")
	if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-Y", "sign", "-n", "chatelaine", "-f", filepath.Join(dir, "bob"), statement).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Rename(statement+".sig", filepath.Join(dir, "c", "bob.sig")); err != nil {
		t.Fatal(err)
	}
	run(0, "all holds; the token was not asked", append([]string{"hsm", "ceremony", "verify", "c"}, witnesses...)...)
	run(0, "all holds, and the token has what was recorded", "hsm", "ceremony", "verify", "c", "--hsm", "--config", config)
	run(exitFailure, "record has the key", "hsm", "ceremony", "verify", "c", "--witness", "alice=alice.pub", "--witness", "bob=mallory.pub")

	run(exitUsage, "all holds; the token was not asked", "hsm", "ceremony", "verify", "c", "--hsm", "--config", config, "--token", "none")

	useKeys(t, run, config, dir)

	run(0, "the token has what was recorded", "hsm", "ceremony", "verify", "c", "--hsm", "--config", config)
	text, err := os.ReadFile(statement)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(statement, []byte(strings.Replace(string(text), "first keys", "other keys", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	run(exitFailure, "statement.txt was changed afterwards", "hsm", "ceremony", "verify", "c")
	run(exitFailure, "record.json says", "hsm", "ceremony", "sign", "c", "--sign-key", "alice", "--yes")
}

// useKeys has a KMS take the keys over, and puts objects under both. They are read
// again after a start that takes over nothing.
func useKeys(t *testing.T, run runner, config, dir string) {
	t.Helper()
	run(exitFailure, "made in a ceremony", "kms", "--config", config)
	service := start(t, nil, "kms", "--config", config, "--recover")
	at := []string{"--kms", "unix://" + filepath.Join(filepath.Dir(config), "s")}
	eventually(t, "the KMS", func() bool { return strings.Contains(service.err.String(), `"serving"`) })
	say := func(want int, says string, args ...string) string {
		t.Helper()
		return run(want, says, append(args, at...)...)
	}
	say(exitFailure, "made in a ceremony", "key", "create", "other")
	say(0, "", "key", "create", "other", "--adopt")
	for _, name := range []string{"main", "other"} {
		if shown := say(0, "c-"+name+".v1", "key", "show", name, "--json"); !strings.Contains(shown, `"active"`) {
			t.Errorf("%s: got %s", name, shown)
		}
	}
	user := say(0, "AWS_ACCESS_KEY_ID", "user", "create", "somebody")
	listen, admin := adminAddress(t), adminAddress(t)
	gateway := start(t, nil, "gateway", "--config", writeFile(t, "gateway.yaml", fmt.Sprintf(
		"listen: %s\nadmin_listen: %s\nkms: {address: '%s'}\nbackends: {main: {url: 'file://%s/cloud'}}\naccess_log: {file: %s/access}\n",
		listen, admin, at[1], dir, dir)))
	eventually(t, "the gateway", func() bool { return get("http://"+admin+"/readyz") == 200 })
	for bucket, kek := range map[string]string{"one": "main", "two": "other"} {
		say(0, "", "bucket", "create", bucket, "--owner", "somebody", "--kek", kek)
	}
	found := func(name string) string { return regexp.MustCompile(name + `=(\S+)`).FindStringSubmatch(user)[1] }
	s := &site{s3: s3.New(s3.Options{
		BaseEndpoint: aws.String("http://" + listen), Region: "us-east-1", UsePathStyle: true, RetryMaxAttempts: 1,
		Credentials: awscredentials.NewStaticCredentialsProvider(found("AWS_ACCESS_KEY_ID"), found("AWS_SECRET_ACCESS_KEY"), ""),
	})}
	for _, bucket := range []string{"one", "two"} {
		if code := s.put(t, bucket, "k", "text of "+bucket); code != 200 {
			t.Errorf("%s: PUT got %d: %s", bucket, code, gateway.err.String())
		}
	}
	if code := service.stop(t, syscall.SIGTERM); code != 0 {
		t.Errorf("got %d: %s", code, service.err.String())
	}
	service = start(t, nil, "kms", "--config", config)
	eventually(t, "the KMS again", func() bool { return strings.Contains(service.err.String(), `"serving"`) })
	eventually(t, "the gateway again", func() bool { return get("http://"+admin+"/readyz") == 200 })
	for _, bucket := range []string{"one", "two"} {
		if text, code := s.get(t, bucket, "k"); code != 200 || text != "text of "+bucket {
			t.Errorf("%s: GET got %d, %q", bucket, code, text)
		}
	}
	for _, p := range []*program{gateway, service} {
		if code := p.stop(t, syscall.SIGTERM); code != 0 {
			t.Errorf("got %d: %s", code, p.err.String())
		}
	}
}

func TestCeremoniesSayWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	const key = "alice=ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	module := []string{"--module", "/none.so", "--token", "x", "--pin-env", "HOME"}
	with := func(args ...string) []string {
		return append(append([]string{"hsm", "ceremony", "make", "c"}, args...), module...)
	}
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"no command":      {[]string{"hsm", "ceremony"}, "which command"},
		"no key":          {with("--witness", key), "which key"},
		"a key's version": {with("--key", "main.v0", "--witness", key), "main.v0"},
		"no witness":      {with("--key", "main", "--yes"), "0 witnesses"},
		"one twice":       {with("--key", "main", "--witness", key, "--witness", "bob"+strings.TrimPrefix(key, "alice")), "one witness"},
		"witness's form":  {with("--key", "main", "--witness", "alice"), "NAME=FILE"},
		"witness's file":  {with("--key", "main", "--witness", "alice=/none"), "no such file"},
		"RSA witness":     {with("--key", "main", "--witness", "alice=ssh-rsa AAAA"), "no public key"},
		"mechanism":       {with("--key", "main", "--witness", key, "--mechanism", "rot13", "--yes"), "rot13"},
		"module":          {with("--key", "main", "--witness", key, "--yes"), "/none.so"},
		"no folder":       {[]string{"hsm", "ceremony", "verify", "none"}, "ceremony make"},
		"none to sign":    {[]string{"hsm", "ceremony", "sign", "none", "--sign-key", "x"}, "ceremony make"},
	} {
		p := startIn(t, dir, nil, tc.args...)
		if code := p.end(t); code != exitUsage || !strings.Contains(p.err.String(), tc.want) {
			t.Errorf("%s: got %d, %s", name, code, p.err.String())
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestACeremonyOnATokenThatIsNotThereOrWithAWrongPINSaysSo(t *testing.T) {
	config := tokenFile(t, "00000000")
	dir := t.TempDir()
	run := runIn(t, dir)
	args := []string{"hsm", "ceremony", "make", "c", "--config", config, "--witness", "alice=ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}
	run(exitUsage, "say --yes", args...)
	run(exitUsage, "initialise first", append(args, "--yes", "--token", "other")...)
	if text := run(exitUsage, "tried once", append(args, "--yes")...); strings.Contains(text, "00000000") {
		t.Errorf("it tells the PIN: %s", text)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestWhoMakesKeysMayBeAnotherUserThanWhoUsesThem(t *testing.T) {
	pin := writeFile(t, "pin", "1234")
	c := kmsconfig.PKCS11{
		Module: "/m.so", Token: "one", PINFile: pin, Prefix: "c-", UserType: 0x80000001, ReadOnly: true,
		Mechanism: "aes-gcm", Mechanisms: map[string]string{"other": "aes-cbc-hmac"}, RSABits: 2048,
	}
	key := func(s pkcs11.Config, name string) hsm.Mechanism {
		t.Helper()
		k, err := s.Key(kms.KeyRef{Name: name, Version: 1})
		if err != nil || k.Label != "c-"+name+".v1" {
			t.Errorf("got %+v, %v", k, err)
		}
		return k.Mechanism
	}
	same, err := ceremonyStore(c, kmsconfig.PKCS11{})
	if err != nil || same.HSM.UserType != 0x80000001 || same.HSM.RSABits != 2048 || key(same, "main") != hsm.AESGCM || key(same, "other") != hsm.AESCBCHMAC {
		t.Errorf("got %+v, %v", same, err)
	}
	own, err := ceremonyStore(c, kmsconfig.PKCS11{UserType: 1, RSABits: 4096, Mechanism: "rsa-oaep-sha256"})
	if err != nil || own.HSM.UserType != 1 || own.HSM.RSABits != 4096 || key(own, "main") != hsm.RSAOAEPSHA256 || key(own, "other") != hsm.RSAOAEPSHA256 {
		t.Errorf("got %+v, %v", own, err)
	}
}
