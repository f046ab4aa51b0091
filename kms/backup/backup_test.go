package backup

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"chatelaine/kms"
)

func example() kms.Snapshot {
	return kms.Snapshot{
		Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Revision: 7,
		Items: []kms.Item{{Key: "a", Value: []byte("one")}, {Key: "b", Value: bytes.Repeat([]byte("x"), 200_000)}, {Key: "c", Value: []byte{0, 255}}},
	}
}

func identity(t testing.TB) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func sealed(t testing.TB, s kms.Snapshot, to ...age.Recipient) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Write(&out, s, to); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestABackupComesBackForEachRecipientAndNobodyElse(t *testing.T) {
	one, two, stranger := identity(t), identity(t), identity(t)
	data := sealed(t, example(), one.Recipient(), two.Recipient())
	for _, id := range []age.Identity{one, two} {
		got, err := Read(bytes.NewReader(data), []age.Identity{id})
		if err != nil || !reflect.DeepEqual(got, example()) {
			t.Errorf("got %+v, %v", got.Revision, err)
		}
	}
	if _, err := Read(bytes.NewReader(data), []age.Identity{stranger}); !errors.Is(err, ErrIdentity) {
		t.Errorf("a stranger: got %v, want ErrIdentity", err)
	}
	if bytes.Contains(data, []byte("xxxxxxxx")) {
		t.Error("the records can be read in the file")
	}
}

func TestADamagedBackupIsRefused(t *testing.T) {
	id := identity(t)
	data := sealed(t, example(), id.Recipient())
	read := func(data []byte) error {
		_, err := Read(bytes.NewReader(data), []age.Identity{id})
		return err
	}
	for _, cut := range []int{0, 10, 100, 300, len(data) / 2, len(data) - 1} {
		if err := read(data[:cut]); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut to %d of %d bytes: got %v, want ErrDamaged", cut, len(data), err)
		}
	}
	for at := 250; at < len(data); at += 40_009 {
		flipped := bytes.Clone(data)
		flipped[at] ^= 1
		if err := read(flipped); err == nil {
			t.Errorf("byte %d flipped: it was read", at)
		}
	}
	if err := read(append(bytes.Clone(data), 'x')); !errors.Is(err, ErrDamaged) {
		t.Errorf("something follows: got %v, want ErrDamaged", err)
	}
}

func TestWhatABackupSaysIsReadStrictly(t *testing.T) {
	var good bytes.Buffer
	if err := writeLines(&good, example()); err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(good.String(), "\n")
	for name, text := range map[string]string{
		"empty":          "",
		"no tail":        strings.Join(lines[:4], ""),
		"no head":        strings.Join(lines[1:], ""),
		"two heads":      lines[0] + good.String(),
		"a record less":  lines[0] + lines[1] + lines[2] + lines[4],
		"swapped":        lines[0] + lines[2] + lines[1] + lines[3] + lines[4],
		"after the tail": good.String() + lines[1],
		"another kind":   strings.Replace(good.String(), "backup/1", "backup/2", 1),
		"unknown field":  strings.Replace(good.String(), `"key"`, `"kee"`, 1),
		"two in a line":  strings.Replace(good.String(), "}}\n", `},"tail":{"records":3,"digest":""}}`+"\n", 1),
		"no JSON":        "x\n" + good.String(),
	} {
		if got, err := readLines(strings.NewReader(text)); err == nil {
			t.Errorf("%s: it was read: %+v", name, got)
		}
	}
}

func TestRecipientsAndIdentitiesAreParsed(t *testing.T) {
	id := identity(t)
	const ssh = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me@there"
	got, err := ParseRecipients("# ours\n\n" + id.Recipient().String() + "\n" + ssh)
	if err != nil || len(got) != 2 {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"", "# nobody", "age1x", "ssh-dss AAAA", id.String()} {
		if _, err := ParseRecipients(bad); err == nil {
			t.Errorf("%.8q was taken", bad)
		} else if strings.Contains(err.Error(), id.String()) {
			t.Errorf("the error shows a private key: %v", err)
		}
	}
	if ids, err := ParseIdentities([]byte("# mine\n" + id.String() + "\n")); err != nil || len(ids) != 1 {
		t.Errorf("got %v, %v", ids, err)
	}
	for _, bad := range []string{"", "AGE-SECRET-KEY-1XX", "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n"} {
		if _, err := ParseIdentities([]byte(bad)); err == nil {
			t.Errorf("%.30q was taken", bad)
		}
	}
}

func FuzzReadLines(f *testing.F) {
	var good bytes.Buffer
	if err := writeLines(&good, kms.Snapshot{Items: []kms.Item{{Key: "a", Value: []byte("b")}}}); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes())
	f.Add([]byte(`{"head":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := readLines(bytes.NewReader(data))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := writeLines(&again, s); err != nil {
			t.Fatal(err)
		}
		if got, err := readLines(&again); err != nil || got.Digest() != s.Digest() {
			t.Errorf("it does not come back: %v", err)
		}
	})
}
