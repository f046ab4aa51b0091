package mutation

import (
	"bytes"
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// folders are where verifications are looked for, from the root of the module.
func folders() []string { return []string{"gateway/sealed"} }

// site is one condition that can be switched off: an operand of "||" in a condition under
// which a function answers with a refusal, or a place of byHand.
type site struct {
	id         string // file, function and condition
	start, end int    // in the file
	text       string // that takes its place
}

// source is one file, and what there is to switch off in it.
type source struct {
	path  string // from the root of the module
	text  []byte
	sites []site

	refusals *regexp.Regexp
}

// refusals are the errors that say that something was looked at and found false.
func refusals() *regexp.Regexp {
	return regexp.MustCompile(`\b(Err(Corrupt|Unsupported|Token|NoToken|Key|Range|ShortBody|LongBody|Part\w+)|badSize)\b`)
}

// sources reads the files of a folder.
func sources(root, folder string) ([]*source, error) {
	names, err := filepath.Glob(filepath.Join(root, folder, "*.go"))
	if err != nil {
		return nil, err
	}
	var out []*source
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		s := &source{path: folder + "/" + filepath.Base(name), refusals: refusals()}
		if s.text, err = os.ReadFile(name); err != nil {
			return nil, err
		}
		if err := s.find(); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// find fills in the sites.
func (s *source) find() error {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, s.path, s.text, 0)
	if err != nil {
		return err
	}
	offset := func(p token.Pos) int { return files.Position(p).Offset }
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Body == nil {
			continue
		}
		finder := &finder{source: s, name: filepath.Base(s.path) + " " + f.Name.Name, offset: offset}
		ast.Inspect(f.Body, finder.visit)
	}
	if err := s.byHand(); err != nil {
		return err
	}
	return s.unique()
}

// unique numbers sites that would have one name.
func (s *source) unique() error {
	slices.SortFunc(s.sites, func(a, b site) int { return cmp.Compare(a.start, b.start) })
	seen := map[string]int{}
	for i := range s.sites {
		id := s.sites[i].id
		if seen[id]++; seen[id] > 1 {
			s.sites[i].id = fmt.Sprintf("%s #%d", id, seen[id])
			s.sites[i].text = strings.ReplaceAll(s.sites[i].text, fmt.Sprintf("%q", id), fmt.Sprintf("%q", s.sites[i].id))
		}
		if i > 0 && s.sites[i].start < s.sites[i-1].end {
			return fmt.Errorf("%s: two sites overlap: %q and %q", s.path, s.sites[i-1].id, s.sites[i].id)
		}
	}
	return nil
}

// finder looks through one function.
type finder struct {
	*source
	name   string
	offset func(token.Pos) int
}

func (f *finder) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.IfStmt:
		if f.refuses(n.Body.List) {
			f.condition(n.Cond)
		}
	case *ast.SwitchStmt:
		for _, c := range n.Body.List {
			c, ok := c.(*ast.CaseClause)
			if !ok || n.Tag != nil || !f.refuses(c.Body) {
				continue
			}
			for _, e := range c.List {
				f.condition(e)
			}
		}
	}
	return true
}

// refuses says whether statements answer with a refusal.
func (f *finder) refuses(body []ast.Stmt) bool {
	return slices.ContainsFunc(body, func(s ast.Stmt) bool {
		switch s.(type) {
		case *ast.ReturnStmt, *ast.AssignStmt:
			return f.refusals.Match(f.text[f.offset(s.Pos()):f.offset(s.End())])
		}
		return false
	})
}

// condition makes a site of each operand.
func (f *finder) condition(e ast.Expr) {
	if b, ok := e.(*ast.BinaryExpr); ok && b.Op == token.LOR {
		f.condition(b.X)
		f.condition(b.Y)
		return
	}
	if p, ok := e.(*ast.ParenExpr); ok {
		f.condition(p.X)
		return
	}
	start, end := f.offset(e.Pos()), f.offset(e.End())
	text := string(f.text[start:end])
	id := f.name + ": " + strings.Join(strings.Fields(text), " ")
	f.sites = append(f.sites, site{id, start, end, fmt.Sprintf("((%s) && !mutantOff(%q))", text, id)})
}

// byHand adds what is verified without a condition of its own.
func (s *source) byHand() error {
	for _, h := range places() {
		if h.path != s.path {
			continue
		}
		at := bytes.Index(s.text, []byte(h.old))
		if at < 0 || bytes.Count(s.text, []byte(h.old)) != 1 {
			return fmt.Errorf("%s: %q is not there once", s.path, h.old)
		}
		id := filepath.Base(s.path) + " " + h.id
		text := strings.ReplaceAll(h.new, "OFF", fmt.Sprintf("%q", id))
		s.sites = append(s.sites, site{id, at, at + len(h.old), text})
	}
	return nil
}

// mutable is the file with all its sites put in, each off when it is named.
func (s *source) mutable() []byte {
	var out bytes.Buffer
	at := 0
	for _, site := range s.sites {
		out.Write(s.text[at:site.start])
		out.WriteString(site.text)
		at = site.end
	}
	out.Write(s.text[at:])
	return out.Bytes()
}
