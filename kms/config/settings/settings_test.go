package settings

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

type sample struct {
	Name   string           `yaml:"name"`
	Count  int              `yaml:"count"`
	On     bool             `yaml:"on"`
	Wait   time.Duration    `yaml:"wait"`
	List   []string         `yaml:"list"`
	Stores map[string]inner `yaml:"stores"`
	Extra  *inner           `yaml:"extra"`
	hidden string
}

type inner struct {
	URL string `yaml:"url"`
}

func TestDecodeFillsTheStructAndKeepsWhatIsNotMentioned(t *testing.T) {
	got := sample{Name: "kept", Count: 7, hidden: "kept"}
	var problems Problems
	err := Decode([]byte("count: -3\non: true\nwait: 1m30s\nlist: [a, b]\nstores: {x: {url: u}, y: {}}\nextra: {url: v}\n"), &got, &problems)
	if err != nil || problems.Err("f") != nil {
		t.Fatal(err, problems.Err("f"))
	}
	want := sample{
		Name: "kept", Count: -3, On: true, Wait: 90 * time.Second, List: []string{"a", "b"},
		Stores: map[string]inner{"x": {"u"}, "y": {}}, Extra: &inner{"v"}, hidden: "kept",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestEmptyDocumentAndNullsChangeNothing(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "name:\nextra: null\nstores: ~\n"} {
		got := sample{Name: "kept"}
		var problems Problems
		if err := Decode([]byte(text), &got, &problems); err != nil || problems.Err("f") != nil {
			t.Errorf("%q: %v, %v", text, err, problems.Err("f"))
		}
		if got.Name != "kept" || got.Extra != nil {
			t.Errorf("%q: got %+v", text, got)
		}
	}
}

func TestAllProblemsAreReportedAtOnceWithTheirPaths(t *testing.T) {
	text := `
name: [1]
count: "3"
on: 1
wait: 30
list: {a: 1}
stores: {x: {ulr: u}, y: 3}
extra: {url: 4.5}
hidden: x
nmae: x
`
	var problems Problems
	if err := Decode([]byte(text), &sample{}, &problems); err != nil {
		t.Fatal(err)
	}
	want := `f.yaml: 10 problem(s) in the configuration
  count: is text, want a whole number
  extra.url: is a number, want text (put it into quotes)
  hidden: is not a setting; there are name, count, on, wait, list, stores, extra
  list: is a mapping, want a list
  name: is a list, want text (put it into quotes)
  nmae: is not a setting; there are name, count, on, wait, list, stores, extra
  on: is a number, want true or false
  stores.x.ulr: is not a setting; there are url
  stores.y: is a number, want a mapping
  wait: is no duration, want one such as 30s or 5m`
	if got := problems.Err("f.yaml").Error(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestItemsOfListsHaveTheirNumberInThePath(t *testing.T) {
	var problems Problems
	if err := Decode([]byte("list: [a, 1]"), &sample{}, &problems); err != nil {
		t.Fatal(err)
	}
	if got := problems.Err("f"); got == nil || !strings.Contains(got.Error(), "list[1]: is a number") {
		t.Errorf("got %v", got)
	}
}

func TestWhatIsNotYAMLIsAnError(t *testing.T) {
	for name, text := range map[string]string{
		"syntax":              "name: [",
		"key twice":           "name: a\nname: b\n",
		"key twice, below":    "stores: {x: {url: a, url: b}}",
		"number out of range": "count: 99999999999999999999999",
	} {
		var problems Problems
		err := Decode([]byte(text), &sample{}, &problems)
		if err == nil && problems.Err("f") == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestValuesInTheWrongPlaceAreNotPrinted(t *testing.T) {
	var problems Problems
	if err := Decode([]byte("count: hunter2\nwait: hunter2\non: hunter2\n"), &sample{}, &problems); err != nil {
		t.Fatal(err)
	}
	if got := problems.Err("f").Error(); strings.Contains(got, "hunter2") {
		t.Errorf("got %s", got)
	}
}

func TestLoadNamesTheFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "x.yaml")
	var problems Problems
	if err := Load(name, &sample{}, &problems); err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("missing file: got %v", err)
	}
	if err := os.WriteFile(name, []byte("name: ["), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Load(name, &sample{}, &problems); err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("bad file: got %v", err)
	}
}

func TestSecretsComeFromTheirPlaces(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		return name
	}
	t.Setenv("CHATELAINE_TEST_SECRET", "from env")
	tests := map[string]struct {
		secret Secret
		want   string
		err    string
	}{
		"none":             {Secret{}, "", ""},
		"file":             {Secret{File: file("a", "from file", 0o600)}, "from file", ""},
		"newline":          {Secret{File: file("b", " x \n", 0o640)}, " x ", ""},
		"variable":         {Secret{Env: "CHATELAINE_TEST_SECRET"}, "from env", ""},
		"unset variable":   {Secret{Env: "CHATELAINE_TEST_NONE"}, "", "is not set"},
		"missing file":     {Secret{File: filepath.Join(dir, "none")}, "", "no such file"},
		"empty file":       {Secret{File: file("c", "\n", 0o600)}, "", "is empty"},
		"readable by all":  {Secret{File: file("d", "hunter2", 0o644)}, "", "everybody"},
		"file that is one": {Secret{File: dir}, "", "settings: reading a secret"},
	}
	for name, tc := range tests {
		got, err := tc.secret.Read()
		if got != tc.want || (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s: got %q, %v; want %q, %q", name, got, err, tc.want, tc.err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error tells the secret: %v", name, err)
		}
	}
}

func TestASecretInTwoPlacesIsAProblem(t *testing.T) {
	var problems Problems
	Secret{File: "f", Env: "E"}.Check("pin", &problems)
	if err := problems.Err("x"); err == nil || !strings.Contains(err.Error(), "pin_file: is given beside pin_env") {
		t.Errorf("got %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{"", "name: a", "stores: {x: {url: u}}", "list: [a, [b]]", "a: &x [*x]", "1: 2\n", "? [a]\n: b"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(_ *testing.T, text []byte) {
		var problems Problems
		_ = Decode(text, &sample{}, &problems)
		_ = problems.Err("f")
	})
}
