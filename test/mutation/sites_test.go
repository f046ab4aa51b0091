package mutation

import (
	"bytes"
	"cmp"
	"errors"
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

// folder is where verifications are looked for.
type folder struct {
	path string // from the root of the module
	// refusals match statements that say that something was looked at and found false.
	refusals *regexp.Regexp
	// checks match calls whose error says so. It has to be heeded.
	checks *regexp.Regexp
	least  int // verifications that it has
}

func folders() []folder {
	const fresh = `fmt\.Errorf\(|\b(Err|err)[A-Z]\w+|\b\w+Error\{`
	return []folder{
		{
			"gateway/sealed",
			regexp.MustCompile(`\b(Err(Corrupt|Unsupported|Token|NoToken|Key|Range|TooLarge|ShortBody|LongBody|Part\w+)|badSize)\b`),
			regexp.MustCompile(`\b([cC]heck|[oO]pen|find|decode|parse|begin|resume|bytes|claims|fill)\w*\(`),
			160,
		},
		{
			"gateway/objects",
			regexp.MustCompile(fresh),
			regexp.MustCompile(`\b(sealed\.\w+|\w*suite\.\w+|[cC]heck\w*|[lL]ive|open\w*|resolve|writeConditions|Window|ended|mayBegin|onlyOurs|conditional|mirror\w*)\(`),
			100,
		},
		{
			"gateway/keys",
			regexp.MustCompile(fresh),
			// What the KMS refuses counts as well: it looks at leases and states, and the
			// gateway has to heed it.
			regexp.MustCompile(`\b(leased|again|edit|shared|find\w*|fetch\w*|open|ensure|renew|replace|trouble|request|keepUnless|bucketOf|adoptionOf|signingKeyOf|next|uuid\.Parse|sealed\.NewKey)\(`),
			130,
		},
	}
}

// site is one condition that can be switched off: an operand of "||" in a condition under
// which a function answers with a refusal, or a place of byHand.
type site struct {
	id         string // folder, file, function and condition
	start, end int    // in the file
	text       string // that takes its place
}

// source is one file, and what there is to switch off in it.
type source struct {
	folder
	path  string // from the root of the module
	text  []byte
	sites []site
}

// named is the file as it begins the names of its sites.
func (s *source) named() string {
	return filepath.Base(s.folder.path) + "/" + filepath.Base(s.path) + " "
}

// sources reads the files of a folder.
func (f folder) sources() ([]*source, error) {
	names, err := filepath.Glob(filepath.Join(root, f.path, "*.go"))
	if err != nil {
		return nil, err
	}
	var out []*source
	var problems error
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		s := &source{folder: f, path: f.path + "/" + filepath.Base(name)}
		if s.text, err = os.ReadFile(name); err != nil {
			return nil, err
		}
		problems = errors.Join(problems, s.find())
		out = append(out, s)
	}
	return out, problems
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
		finder := &finder{source: s, name: s.named() + f.Name.Name, offset: offset, before: map[ast.Stmt]ast.Stmt{}}
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
	before map[ast.Stmt]ast.Stmt // what stands before an if
}

func (f *finder) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.BlockStmt:
		f.note(n.List)
	case *ast.CaseClause:
		f.note(n.Body)
	case *ast.IfStmt:
		f.condition(n.Cond, f.refuses(n.Body.List), f.heeds(n))
	case *ast.SwitchStmt:
		for _, c := range n.Body.List {
			c, ok := c.(*ast.CaseClause)
			if !ok || n.Tag != nil || !f.refuses(c.Body) {
				continue
			}
			for _, e := range c.List {
				f.condition(e, true, false)
			}
		}
	}
	return true
}

func (f *finder) note(list []ast.Stmt) {
	for i, s := range list {
		if i > 0 {
			f.before[s] = list[i-1]
		}
	}
}

func (f *finder) textOf(n ast.Node) []byte { return f.text[f.offset(n.Pos()):f.offset(n.End())] }

// refuses says whether statements answer with a refusal.
func (f *finder) refuses(body []ast.Stmt) bool {
	return slices.ContainsFunc(body, func(s ast.Stmt) bool {
		switch s.(type) {
		case *ast.ReturnStmt, *ast.AssignStmt:
			return f.refusals.Match(f.textOf(s))
		}
		return false
	})
}

// heeds says whether a condition is about the error of a call that checks something: in the
// statement itself, or the one before it.
func (f *finder) heeds(n *ast.IfStmt) bool {
	call := n.Init
	if call == nil {
		call = f.before[n]
	}
	assigned, ok := call.(*ast.AssignStmt)
	return ok && f.checks.Match(f.textOf(assigned))
}

// condition makes a site of each operand that is a verification. What tells one error from
// another is none: there has been an error in any case.
func (f *finder) condition(e ast.Expr, refused, heeded bool) {
	if b, ok := e.(*ast.BinaryExpr); ok && b.Op == token.LOR {
		f.condition(b.X, refused, heeded)
		f.condition(b.Y, refused, heeded)
		return
	}
	if p, ok := e.(*ast.ParenExpr); ok {
		f.condition(p.X, refused, heeded)
		return
	}
	text := string(f.textOf(e))
	failed := text == "err != nil"
	switch {
	case strings.HasPrefix(text, "errors."), strings.Contains(text, "&& !errors."):
		return
	case failed && !heeded && (!refused || filepath.Base(f.folder.path) != "sealed"):
		return
	case !failed && !refused:
		return
	}
	id := f.name + ": " + strings.Join(strings.Fields(text), " ")
	f.sites = append(f.sites, site{id, f.offset(e.Pos()), f.offset(e.End()), fmt.Sprintf("((%s) && !mutantOff(%q))", text, id)})
}

// byHand adds what is verified without a condition of its own.
func (s *source) byHand() (missing error) {
	for _, h := range places() {
		if h.path != s.path {
			continue
		}
		at := bytes.Index(s.text, []byte(h.old))
		if at < 0 || bytes.Count(s.text, []byte(h.old)) != 1 {
			missing = errors.Join(missing, fmt.Errorf("%s: %q is not there once", s.path, h.old))
			continue
		}
		id := s.named() + h.id
		text := strings.ReplaceAll(h.new, "OFF", fmt.Sprintf("%q", id))
		s.sites = append(s.sites, site{id, at, at + len(h.old), text})
	}
	return missing
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
