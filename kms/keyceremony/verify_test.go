package keyceremony

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chatelaine/kms"
)

func TestWhatDoesNotHoldIsSaid(t *testing.T) {
	good := signed(t, sample(t))
	other := sample(t)
	other.Keys[0].Objects[0].CheckValues[0].Value = "000000"
	changed := signed(t, other)
	mallory := signed(t, func() *Record { r := sample(t); r.Witnesses = witnesses(t, "alice", "mallory"); return r }())
	tests := map[string]struct {
		change func(*Files)
		known  []string
		want   []string // parts of each problem, in order
	}{
		"nothing": {change: func(*Files) {}, known: []string{"alice", "bob"}},
		"statement changed": {
			change: func(f *Files) { f.Statement = changed.Statement },
			want: []string{
				"in line 30 statement.txt says `check-value \"CKM_AES_ECB\" \"000000\"`, and record.json says",
				"alice signed the statement of record.json: statement.txt was changed", "bob signed the statement of record.json",
			},
		},
		"record changed": {
			change: func(f *Files) { f.Record = changed.Record },
			want:   []string{"record.json and statement.txt differ: in line 30"},
		},
		"both changed": {
			change: func(f *Files) { f.Record, f.Statement = changed.Record, changed.Statement },
			want:   []string{"alice.sig does not hold", "bob.sig does not hold"},
		},
		"statement cut": {
			change: func(f *Files) { f.Statement = f.Statement[:len(f.Statement)-1] },
			want:   []string{"line 35 of statement.txt and of record.json differs in spaces or in its end alone", "statement.txt was changed", "statement.txt was changed"},
		},
		"statement of Windows": {
			change: func(f *Files) { f.Statement = bytes.ReplaceAll(f.Statement, []byte("\n"), []byte("\r\n")) },
			want:   []string{"line 1 of statement.txt", "statement.txt was changed", "statement.txt was changed"},
		},
		"witness missing": {change: func(f *Files) { delete(f.Signatures, "bob") }, want: []string{"bob has not signed: there is no bob.sig"}},
		"signature of another witness": {
			change: func(f *Files) { f.Signatures["bob"] = f.Signatures["alice"] },
			want:   []string{"bob.sig is a signature of alice, and not of bob"},
		},
		"signature of a stranger": {
			change: func(f *Files) { f.Signatures["bob"] = named("mallory").sign(f.Statement) },
			want:   []string{"bob.sig does not hold"},
		},
		"no signature":      {change: func(f *Files) { f.Signatures["bob"] = "hello" }, want: []string{"bob.sig does not hold"}},
		"one too many":      {change: func(f *Files) { f.Signatures["carol"] = "x" }, want: []string{"carol.sig belongs to no witness"}},
		"of another person": {change: func(f *Files) { *f = mallory }, known: []string{"alice", "bob"}, want: []string{"witness mallory is not among those", "the expected witness bob is not"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			f := good.clone()
			tc.change(&f)
			report, err := f.Verify(witnesses(t, tc.known...))
			if err != nil {
				t.Fatal(err)
			}
			if len(report.Problems) != len(tc.want) || (report.Err() == nil) != (len(tc.want) == 0) {
				t.Fatalf("got %q, want %q", report.Problems, tc.want)
			}
			for i, want := range tc.want {
				if !strings.Contains(report.Problems[i], want) {
					t.Errorf("got %q, want %q", report.Problems[i], want)
				}
			}
		})
	}
}

func TestNobodyIsGivenAChangedStatementToSign(t *testing.T) {
	f := signed(t, sample(t))
	if r, err := f.Parse(); err != nil || r.ID != sample(t).ID {
		t.Errorf("got %v, %v", r, err)
	}
	f.Statement = append(f.Statement, "more\n"...)
	if _, err := f.Parse(); !errors.Is(err, kms.ErrCorrupt) || !strings.Contains(err.Error(), "`more`") {
		t.Errorf("got %v", err)
	}
	f.Record = nil
	if _, err := f.Parse(); !errors.Is(err, kms.ErrInvalid) {
		t.Errorf("no record: got %v", err)
	}
}

func TestAWitnessWithAnotherKeyThanIsExpectedIsSaid(t *testing.T) {
	known := witnesses(t, "alice", "bob")
	known[1].Key = named("mallory").line()
	report, err := signed(t, sample(t)).Verify(known)
	if err != nil || len(report.Problems) != 1 || !strings.Contains(report.Problems[0], "of bob") {
		t.Errorf("got %v, %v", report, err)
	}
}

func TestEveryFieldIsInTheStatement(t *testing.T) {
	good := string(sample(t).Statement())
	for name, change := range map[string]func(*Record){
		"id": func(r *Record) { r.ID = "x" }, "tool": func(r *Record) { r.Tool = "x" }, "reason": func(r *Record) { r.Reason = "x" },
		"start": func(r *Record) { r.Started = r.Started.Add(1e9) }, "end": func(r *Record) { r.Ended = r.Ended.Add(1e9) },
		"module": func(r *Record) { r.Module.Path = "x" }, "file": func(r *Record) { r.Module.File = "x" },
		"module hash": func(r *Record) { r.Module.SHA256 = "x" }, "library": func(r *Record) { r.Module.Manufacturer = "x" },
		"description": func(r *Record) { r.Module.Description = "x" }, "version": func(r *Record) { r.Module.Version = "x" },
		"cryptoki": func(r *Record) { r.Module.Cryptoki = "x" }, "token": func(r *Record) { r.Token.Label = "x" },
		"serial": func(r *Record) { r.Token.Serial = "x" }, "maker": func(r *Record) { r.Token.Manufacturer = "x" },
		"model": func(r *Record) { r.Token.Model = "x" }, "firmware": func(r *Record) { r.Token.Firmware = "x" },
		"slot": func(r *Record) { r.Token.Slot = 9 }, "KEK": func(r *Record) { r.Keys[0].KEK = "x" },
		"label": func(r *Record) { r.Keys[0].Label = "x" }, "mechanism": func(r *Record) { r.Keys[0].Mechanism = "x" },
		"URI": func(r *Record) { r.Keys[0].URI = "x" }, "dialect": func(r *Record) { r.Keys[0].Dialect = "x" },
		"object": func(r *Record) { r.Keys[0].Objects[0].Label = "x" }, "class": func(r *Record) { r.Keys[0].Objects[0].Class = "x" },
		"type": func(r *Record) { r.Keys[0].Objects[0].Type = "x" }, "bits": func(r *Record) { r.Keys[0].Objects[0].Bits = 1 },
		"attribute": func(r *Record) { r.Keys[0].Objects[0].Attributes[0].Name = "x" }, "its value": func(r *Record) { r.Keys[0].Objects[0].Attributes[0].Value = "x" },
		"check value": func(r *Record) { r.Keys[0].Objects[0].CheckValues[0].Value = "x" }, "its method": func(r *Record) { r.Keys[0].Objects[0].CheckValues[0].Method = "x" },
		"public half": func(r *Record) { r.Keys[0].Objects[0].PublicKey = "x" }, "test": func(r *Record) { r.Keys[0].Tests[1] = "x" },
		"witness": func(r *Record) { r.Witnesses[0].Name = "x" }, "witness's key": func(r *Record) { r.Witnesses[0].Key = r.Witnesses[1].Key },
		"a key less": func(r *Record) { r.Keys = nil }, "a witness less": func(r *Record) { r.Witnesses = r.Witnesses[:1] },
	} {
		r := sample(t)
		change(r)
		if string(r.Statement()) == good {
			t.Errorf("%s: not in the statement", name)
		}
	}
	// A reason with a line of its own in it stays one line.
	if strings.Count(good, "\nkey ") != 1 {
		t.Errorf("a value made a line:\n%s", good)
	}
}

func TestRecordsHaveOneForm(t *testing.T) {
	good := signed(t, sample(t)).Record
	if _, err := ParseRecord(good); err != nil {
		t.Fatal(err)
	}
	replace := func(old, with string) []byte {
		t.Helper()
		out := bytes.Replace(good, []byte(old), []byte(with), 1)
		if bytes.Equal(out, good) {
			t.Fatalf("the record has no %q", old)
		}
		return out
	}
	for name, text := range map[string][]byte{
		"empty":           nil,
		"not JSON":        []byte("hello"),
		"something after": append(bytes.Clone(good), '{'),
		"other spaces":    replace("  ", " "),
		"a name twice":    replace(`"version": 1,`, "\"version\": 1,\n  \"version\": 1,"),
		"a name's case":   replace(`"version"`, `"Version"`),
		"a stranger":      replace(`"version": 1,`, "\"version\": 1,\n  \"colour\": 1,"),
		"another version": replace(`"version": 1,`, `"version": 2,`),
		"id":              replace("00112233", "0011223x"),
		"id in capitals":  replace("aabbcc", "AABBCC"),
		"end first":       replace("10:01:00", "09:01:00"),
		"no zone":         replace("10:01:00Z", "10:01:00+01:00"),
		"part of second":  replace("10:01:00Z", "10:01:00.5Z"),
		"KEK":             replace(`"kek": "main.v1"`, `"kek": "main v1"`),
		"a witness's key": replace(`"key": "ed25519:`, `"key": "ed25519:A`),
		"same witness":    replace(`"name": "bob"`, `"name": "ALICE"`),
		"too long":        bytes.Repeat([]byte(" "), maxRecord+1),
	} {
		if _, err := ParseRecord(text); !errors.Is(err, kms.ErrInvalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestFoldersThatAreNoneAreSaid(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadFolder(filepath.Join(dir, "none")); !errors.Is(err, kms.ErrNotFound) {
		t.Errorf("no folder: got %v", err)
	}
	f := signed(t, sample(t))
	for name, text := range map[string][]byte{RecordFile: f.Record, StatementFile: f.Statement} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := ReadFolder(dir); err != nil || !bytes.Equal(got.Record, f.Record) || len(got.Signatures) != 0 {
		t.Errorf("got %v, %v", got, err)
	}
	if err := os.Mkdir(filepath.Join(dir, "x.sig"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFolder(dir); !errors.Is(err, kms.ErrInvalid) {
		t.Errorf("a folder for a signature: got %v", err)
	}
}

func TestASignerIsAWitness(t *testing.T) {
	r := sample(t)
	if w, err := r.Signer(named("bob").sign(r.Statement())); err != nil || w.Name != "bob" {
		t.Errorf("got %v, %v", w, err)
	}
	for name, tc := range map[string]struct {
		signature string
		is        error
	}{
		"stranger":        {named("mallory").sign(r.Statement()), kms.ErrDenied},
		"other statement": {named("bob").sign([]byte("x")), kms.ErrDenied},
		"no signature":    {"x", kms.ErrInvalid},
	} {
		if _, err := r.Signer(tc.signature); !errors.Is(err, tc.is) || !strings.Contains(err.Error(), "none of alice, bob") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func FuzzRecord(f *testing.F) {
	good := signed(f, sample(f))
	f.Add(good.Record, good.Statement, good.Signatures["alice"])
	f.Add([]byte(`{"version":1}`), []byte(statementDomain), "ed25519:AAAA")
	f.Add([]byte("null"), []byte(nil), "")
	alice := named("alice").witness(f)
	f.Fuzz(func(t *testing.T, record, statement []byte, signature string) {
		report, err := Files{Record: record, Statement: statement, Signatures: map[string]string{"alice": signature}}.Verify(nil)
		if err != nil {
			return
		}
		again, err := report.Record.encode()
		if err != nil || !bytes.Equal(again, record) {
			t.Errorf("two forms of one record: %v", err)
		}
		// Whoever has not alice's key signs nothing but what she signed.
		if slices.Contains(report.Record.Witnesses, alice) && slices.Contains(report.Signed, "alice") && !bytes.Equal(statement, good.Statement) {
			t.Error("a signature was made without the key")
		}
	})
}
