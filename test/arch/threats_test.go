package arch

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
)

const threats = "gateway/sealed/THREATS.md"

// namedTest is how a document names a test: its folder and its function.
var namedTest = regexp.MustCompile("`([a-z0-9/]+) ((?:Test|Fuzz)\\w+)`")

// missingTests are the tests that a document names and the tree does not have, and
// how many it names.
func missingTests(tree fs.FS, document string) (missing []string, named int, err error) {
	text, err := fs.ReadFile(tree, document)
	if err != nil {
		return nil, 0, err
	}
	for _, match := range namedTest.FindAllStringSubmatch(string(text), -1) {
		named++
		has, err := hasTest(tree, match[1], match[2])
		if err != nil {
			return nil, named, err
		}
		if !has {
			missing = append(missing, fmt.Sprintf("%s %s", match[1], match[2]))
		}
	}
	return missing, named, nil
}

func hasTest(tree fs.FS, folder, name string) (bool, error) {
	files, err := fs.Glob(tree, path.Join(folder, "*_test.go"))
	if err != nil {
		return false, err
	}
	for _, file := range files {
		text, err := fs.ReadFile(tree, file)
		if err != nil {
			return false, err
		}
		if strings.Contains(string(text), "\nfunc "+name+"(") {
			return true, nil
		}
	}
	return false, nil
}

// TestThreatsNameTestsThatThereAre: a promise that a renamed or deleted test has shown
// is not shown any more. A line that names a test in another form would not be seen,
// so every word that begins as a test's name must be in that form.
func TestThreatsNameTestsThatThereAre(t *testing.T) {
	tree := os.DirFS("../..")
	missing, named, err := missingTests(tree, threats)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range missing {
		t.Errorf("%s names %s, which is not there", threats, name)
	}
	text, err := fs.ReadFile(tree, threats)
	if err != nil {
		t.Fatal(err)
	}
	if words := strings.Count(string(text), "Test"); named != words || named < 30 {
		t.Errorf("%s: got %d tests in the form that is looked for, want all %d and at least 30", threats, named, words)
	}
}

func TestAThreatWhoseTestIsGoneIsFound(t *testing.T) {
	tree := fstest.MapFS{
		threats:                 {Data: []byte("`kms TestThere`, `kms TestGone`, `kms/x TestThere`, `kms FuzzThere`")},
		"kms/a_test.go":         {Data: []byte("package kms\n\nfunc TestThere(t *testing.T) {}\nfunc TestGoneNow(t *testing.T) {}\n")},
		"kms/b_test.go":         {Data: []byte("package kms\n\nfunc FuzzThere(f *testing.F) {}\n")},
		"kms/not_a_test.go.txt": {Data: []byte("\nfunc TestGone(t *testing.T) {}\n")},
	}
	missing, named, err := missingTests(tree, threats)
	if want := "[kms TestGone kms/x TestThere]"; err != nil || fmt.Sprint(missing) != want || named != 4 {
		t.Errorf("got %v of %d and %v, want %s of 4", missing, named, err, want)
	}
}
