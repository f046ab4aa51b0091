package backendtest

import (
	"errors"
	"slices"
	"strings"

	"chatelaine/backends"
)

func keyTests() map[string]func(*fixture) {
	return map[string]func(*fixture){
		"AreUsedAsTheyAreOneByOne":  keysAlone,
		"AreUsedAsTheyAreTogether":  keysTogether,
		"ThatAreNoneAreRefused":     keysRefused,
		"OfManyFoldersCanBeDeleted": keysDeep,
	}
}

// OddKeys are keys that S3 allows and that stores get wrong.
func OddKeys() []string {
	long := strings.Repeat("0123456789abcdef", 64)
	keys := []string{
		"a", "a/", "a/b", "a/b/", "a-", "a-b", "a.b", "a0", "A", "A/b", "aa", "ab/c",
		"/", "//", "///", "/a", "//a", "a//", "a//b", "a///b",
		".", "..", "./", "../", "./a", "../a", "a/.", "a/..", "a/./b", "a/../b", "../../etc/passwd", "...", ".hidden", "a/.hidden",
		"%", "%%", "%2F", "%2f", "a%2Fb", "%00", "%_", "a%", "a%+", "%+", "a%/b", "%25", "%2", "a%zz",
		"+", "a+b", "a b", " ", " a", "a ", "a/ b", "a%20b", "a+b c",
		"\"", "'", "`", "\\", "a\\b", "<&>", "{}[]|^~", "?", "#", "a?b=c&d", "*", "a*", ":", "C:", ";", "=", "@", ",", "$HOME", "!",
		"\t", "a\tb", "a\nb", "a\rb", "\x7f", "a\u0085b",
		"é", "e\u0301", "日本語/キー", "😀", "a😀/b", "\u00a0", "\u2028", "\ufeff", "\ufffd", "\U0010ffff", "ﬁ", "ß", "SS", "İ",
		"con", "nul.txt", "name.", "name ", "report.pdf", "Report.pdf", "REPORT.PDF",
		".chatelaine", ".minio.sys/x", "xl.meta", "a/xl.meta",
		long, long[:1023] + "/", long[:255], long[:255] + "/x", long[:256], long[:300] + "/x", long[:238], long[:238] + "/", long[:237], long[:237] + "/", long[:239], long[:240], long[:241],
		strings.Repeat("é", 512), strings.Repeat("%", 1024), strings.Repeat("%", 200) + "/" + strings.Repeat("%", 80) + "x",
		strings.Repeat("/", 1024), strings.Repeat("a/", 512), strings.Repeat("./", 400), strings.Repeat("日", 100),
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

func (f *fixture) accepted(keys []string) (yes, no []string) {
	for _, key := range keys {
		if f.opts.Refuses != nil && f.opts.Refuses(key) {
			no = append(no, key)
		} else {
			yes = append(yes, key)
		}
	}
	return yes, no
}

// keysAlone puts, looks up, lists and deletes each key in an otherwise empty bucket.
func keysAlone(f *fixture) {
	yes, no := f.accepted(OddKeys())
	for _, key := range yes {
		f.put(key, []byte(key))
		f.holds(key, []byte(key))
		info, err := f.store.Head(f.Context(), f.id(key), nil)
		f.ok(err)
		page, err := f.store.List(f.Context(), f.bucket, nil)
		f.ok(err)
		if len(page.Entries) != 1 || page.Entries[0].Key != key || info.Key != key {
			f.Fatalf("key %.80q: Head says %.80q, List says %.300q", key, info.Key, keysOf(page.Entries))
		}
		_, err = f.store.Delete(f.Context(), f.id(key), nil)
		f.ok(err)
		f.lacks(key)
	}
	for _, key := range no {
		_, err := f.putIf(key, []byte(key), backends.Conditions{})
		f.is(err, backends.ErrInvalidName)
	}
}

// keysTogether wants none to stand for another, and all in the order of their bytes.
func keysTogether(f *fixture) {
	if f.opts.Merges {
		f.Skip("the store cannot hold a and a/b")
	}
	keys, _ := f.accepted(OddKeys())
	f.each(len(keys), func(i int) error {
		_, err := f.putIf(keys[i], []byte(keys[i]), backends.Conditions{})
		return err
	})
	for _, key := range keys {
		f.holds(key, []byte(key))
	}
	page, err := f.store.List(f.Context(), f.bucket, nil)
	f.ok(err)
	if got := keysOf(page.Entries); !slices.Equal(got, keys) {
		f.Fatalf("listed %.2000q,\nwant %.2000q", got, keys)
	}
	for i, key := range keys {
		if i%2 == 0 {
			_, err := f.store.Delete(f.Context(), f.id(key), nil)
			f.ok(err)
		}
	}
	for i, key := range keys {
		if i%2 == 0 {
			f.lacks(key)
		} else {
			f.holds(key, []byte(key))
		}
	}
}

func keysOf(entries []backends.Info) []string {
	keys := make([]string, 0, len(entries))
	for _, e := range entries {
		keys = append(keys, e.Key)
	}
	return keys
}

func keysRefused(f *fixture) {
	for _, key := range []string{"", strings.Repeat("x", 1025), strings.Repeat("é", 513)} {
		_, err := f.putIf(key, []byte("x"), backends.Conditions{})
		if !errors.Is(err, backends.ErrInvalidName) {
			f.Errorf("putting a key of %d bytes: %v, want ErrInvalidName", len(key), err)
		}
	}
}

func keysDeep(f *fixture) {
	deep := strings.Repeat("d/", 50)
	keys, _ := f.accepted([]string{deep, "d/x", deep + "x"})
	for _, key := range slices.Backward(keys) {
		f.put(key, []byte(key))
	}
	for _, key := range keys {
		f.holds(key, []byte(key))
		_, err := f.store.Delete(f.Context(), f.id(key), nil)
		f.ok(err)
		f.lacks(key)
	}
}
