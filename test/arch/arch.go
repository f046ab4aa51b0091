// Package arch holds the layers of the product as a table and finds what breaks
// them, and the few rules of style that a machine can judge from one file.
//
// It reads source files and nothing else: no build, no `go list`, whose answer the
// test cache would keep after the tree has changed. It refuses to judge taste.
package arch

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

const (
	module       = "chatelaine"
	maxFileLines = 800
	maxFuncLines = 100
)

// Violation is one broken rule. Where is "file:line", or a folder.
type Violation struct{ Where, What string }

// String is the line that a person reads.
func (v Violation) String() string { return v.Where + ": " + v.What }

// Tree checks all of a source tree against a table and returns what is wrong with
// it in the order of the files. The error is that of reading or parsing.
func Tree(tree fs.FS, table []Folder) ([]Violation, error) {
	c := checker{files: token.NewFileSet(), table: table, imports: map[string][]string{}}
	ignored, err := ignores(tree)
	if err != nil {
		return nil, err
	}
	err = fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // a temporary file that went while we walked
			return nil
		case err != nil:
			return err
		case name == ".":
			return nil
		case !strings.Contains(name, "/") && !ignored(entry.Name()):
			c.topLevel(name)
		case ignored(entry.Name()) && entry.IsDir():
			return fs.SkipDir
		case ignored(entry.Name()):
			return nil
		}
		return c.entry(tree, name, entry)
	})
	if err != nil {
		return nil, fmt.Errorf("arch: walking the tree: %w", err)
	}
	c.reach()
	return c.found, nil
}

// ignores reads the simple patterns of .gitignore: names, with or without slashes
// around them. What git does not keep is nobody's concern here.
func ignores(tree fs.FS) (func(name string) bool, error) {
	patterns := []string{".git"}
	text, err := fs.ReadFile(tree, ".gitignore")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("arch: reading .gitignore: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if p := strings.Trim(strings.TrimSpace(line), "/"); p != "" && !strings.HasPrefix(p, "#") {
			patterns = append(patterns, p)
		}
	}
	return func(name string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool {
			hit, _ := path.Match(p, name)
			return hit
		})
	}, nil
}

type checker struct {
	files   *token.FileSet
	table   []Folder
	found   []Violation
	imports map[string][]string // folder to the folders of ours that it imports, tests not counted
}

func (c *checker) report(where, format string, args ...any) {
	c.found = append(c.found, Violation{where, fmt.Sprintf(format, args...)})
}

func (c *checker) topLevel(name string) {
	if !slices.Contains(topLevel(), name) {
		c.report(name, "the top level is fixed, and this is not part of it")
	}
}

// entry checks one file or folder.
func (c *checker) entry(tree fs.FS, name string, entry fs.DirEntry) error {
	if entry.IsDir() || !entry.Type().IsRegular() {
		return nil
	}
	text, err := fs.ReadFile(tree, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if bytes.IndexByte(text, 0) < 0 {
		c.strings(name, string(text))
	}
	if path.Ext(name) != ".go" || strings.Contains(name, "/testdata/") || nested(tree, name) {
		return nil
	}
	return c.goFile(name, text)
}

// nested says whether a file belongs to a module of its own, as the tools do.
func nested(tree fs.FS, name string) bool {
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if _, err := fs.Stat(tree, path.Join(dir, "go.mod")); err == nil {
			return true
		}
	}
	return false
}

// strings finds names that tell where a file was written.
func (c *checker) strings(name, text string) {
	for number, line := range strings.Split(text, "\n") {
		for _, s := range bannedText() {
			if strings.Contains(line, s) {
				c.report(at(name, number+1), "names %q, which is of one machine or registry", s)
			}
		}
	}
}

func (c *checker) goFile(name string, text []byte) error {
	file, err := parser.ParseFile(c.files, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return fmt.Errorf("arch: parsing: %w", err)
	}
	c.fileImports(name, file)
	c.initFuncs(name, file)
	if ast.IsGenerated(file) {
		return nil
	}
	if lines := bytes.Count(text, []byte("\n")); lines > maxFileLines {
		c.report(name, "has %d lines, %d are allowed", lines, maxFileLines)
	}
	if !isTest(name) {
		c.funcLengths(name, file)
	}
	return nil
}

func (c *checker) fileImports(name string, file *ast.File) {
	dir := path.Dir(name)
	folder, known := c.folder(dir)
	if !known {
		c.report(name, "folder %q is not in the table of test/arch", dir)
		return
	}
	for _, spec := range file.Imports {
		target, _ := strconv.Unquote(spec.Path.Value)
		where := at(name, c.files.Position(spec.Pos()).Line)
		if spec.Name != nil && spec.Name.Name == "_" && target != "embed" {
			c.report(where, "blank import of %q: drivers are named in wire.go", target)
		}
		if !folder.allows(target, isTest(name)) {
			c.report(where, "%q may not import %q", dir, target)
		}
		if inner, ours := strings.CutPrefix(target, module+"/"); ours && !isTest(name) {
			c.imports[dir] = append(c.imports[dir], inner)
		}
	}
}

// folder finds the row of a folder: its own, else that of the nearest one above it
// that ends in "/...".
func (c *checker) folder(dir string) (Folder, bool) {
	for _, f := range c.table {
		if f.Dir == dir {
			return f, true
		}
	}
	for up := dir; up != "."; up = path.Dir(up) {
		for _, f := range c.table {
			if f.Dir == up+"/..." {
				return f, true
			}
		}
	}
	return Folder{}, false
}

func (c *checker) initFuncs(name string, file *ast.File) {
	for _, decl := range file.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if ok && f.Recv == nil && f.Name.Name == "init" && !ast.IsGenerated(file) {
			c.report(at(name, c.files.Position(f.Pos()).Line), "init function: say it where it is needed")
		}
	}
}

func (c *checker) funcLengths(name string, file *ast.File) {
	for _, decl := range file.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok {
			continue
		}
		first, last := c.files.Position(f.Pos()).Line, c.files.Position(f.End()).Line
		if lines := last - first + 1; lines > maxFuncLines {
			c.report(at(name, first), "function %s has %d lines, %d are allowed", f.Name.Name, lines, maxFuncLines)
		}
	}
}

// reach follows imports to the end: what a folder must never reach, it must not
// reach through others either.
func (c *checker) reach() {
	for _, ban := range unreachable() {
		for _, from := range c.under(ban.From) {
			if way := c.way(from, ban.To); way != nil {
				c.report(from, "reaches %q: %s", ban.To, strings.Join(way, " -> "))
			}
		}
	}
}

// under lists the folders that are at or below dir, sorted.
func (c *checker) under(dir string) []string {
	var out []string
	for d := range c.imports {
		if within(d, dir) {
			out = append(out, d)
		}
	}
	slices.Sort(out)
	return out
}

// way is a shortest chain of imports between two folders, or nil.
func (c *checker) way(from, to string) []string {
	before := map[string]string{from: ""}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if within(at, to) {
			var way []string
			for ; at != ""; at = before[at] {
				way = append([]string{at}, way...)
			}
			return way
		}
		for _, next := range c.imports[at] {
			if _, seen := before[next]; !seen {
				before[next] = at
				queue = append(queue, next)
			}
		}
	}
	return nil
}

func isTest(name string) bool { return strings.HasSuffix(name, "_test.go") }

func within(dir, root string) bool { return dir == root || strings.HasPrefix(dir, root+"/") }

func at(name string, line int) string { return name + ":" + strconv.Itoa(line) }
