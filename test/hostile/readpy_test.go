package hostile

import (
	"bufio"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chatelaine/gateway/objects"
	"chatelaine/gateway/sealed"
)

var forged = flag.Int("forgeries", 150, "how many forgeries for deploy/break-glass/read.py")

const breakGlass = "../../deploy/break-glass"

// readPy is deploy/break-glass/read.py, started once. It is for one goroutine.
type readPy struct {
	dir string
	in  io.WriteCloser
	out *bufio.Reader
}

func newReadPy(t *testing.T) *readPy {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "python3", "-B", "drive.py", breakGlass)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	return &readPy{dir: t.TempDir(), in: in, out: bufio.NewReader(out)}
}

// downloaded is what somebody has fetched, and says that it is.
type downloaded struct {
	object      rope
	envelope    string
	key         string
	mirror, raw []byte
}

// result is what came of one run of read.py.
type result struct {
	Code int    `json:"code"`
	Said string `json:"said"`
	file []byte // what it has made; nil: nothing
	left []string
}

func (r *readPy) run(d downloaded) (result, error) {
	name := func(s string) string { return filepath.Join(r.dir, s) }
	for file, b := range map[string][]byte{
		"object": d.object.bytes(), "envelope": []byte(d.envelope), "mirror": d.mirror, "bucket-key": []byte(hex.EncodeToString(d.raw)),
	} {
		if err := os.WriteFile(name(file), b, 0o600); err != nil {
			return result{}, err
		}
	}
	args, err := json.Marshal([]string{
		"--object", name("object"), "--envelope", name("envelope"), "--key", d.key,
		"--mirror", name("mirror"), "--bucket-key", name("bucket-key"), "--out", name("plain"),
	})
	if err != nil {
		return result{}, err
	}
	if _, err := r.in.Write(append(args, '\n')); err != nil {
		return result{}, err
	}
	line, err := r.out.ReadBytes('\n')
	if err != nil {
		return result{}, err
	}
	var out result
	if err := json.Unmarshal(line, &out); err != nil {
		return result{}, err
	}
	return out, r.collect(&out)
}

// collect takes away what a run has left.
func (r *readPy) collect(out *result) error {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if slices.Contains([]string{"object", "envelope", "mirror", "bucket-key"}, e.Name()) {
			continue
		}
		path := filepath.Join(r.dir, e.Name())
		out.left = append(out.left, e.Name())
		if e.Name() == "plain" {
			if out.file, err = os.ReadFile(path); err != nil {
				return err
			}
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// keyOf is the mirror of a subject's bucket key, and what unwrap.py makes of that.
func (v *vault) keyOf(s *subject) (mirror, raw []byte) {
	id, err := sealed.EnvelopeKeyID(s.now.stored.envelope())
	if err != nil {
		panic(err)
	}
	key, ok := v.made.Load([16]byte(id))
	if !ok {
		panic(fmt.Sprintf("there is no key %x", id))
	}
	return key.(madeKey).mirror, key.(madeKey).raw
}

// download is what comes of it when somebody fetches the subject's object.
func (t *trial) download(f forgery) (downloaded, string) {
	a := f.make(t.gen)
	o := t.s.now.stored
	o.info.Attributes.Metadata = maps.Clone(o.info.Attributes.Metadata)
	if a.thing != nil {
		a.thing(&o)
	}
	d := downloaded{object: o.bytes, envelope: o.envelope(), key: t.s.key}
	if d.mirror, d.raw = t.vault.keyOf(t.s); f.also != nil {
		f.also(t.gen, t.vault, &d)
	}
	return d, a.detail
}

// judgeFile: a file is there, whole and true, or there is none and it says REFUSED.
func (t *trial) judgeFile(got result) verdict {
	switch {
	case got.Code < 0:
		return lie("crash: %s", got.Said)
	case got.Code != 0 && len(got.left) > 0:
		return lie("it has refused, and left %q", got.left)
	case got.Code != 0 && !strings.Contains(got.Said, "REFUSED"):
		return lie("it does not say that it refuses: %s", got.Said)
	case got.Code != 0:
		return verdict{outcome: refused}
	case !slices.Equal(got.left, []string{"plain"}):
		return lie("it ends well, and left %q", got.left)
	}
	st, err := spoken(got.Said)
	if err != nil {
		return lie("what it says: %v", err)
	}
	st.Size = int64(len(got.file))
	return t.judge(all, st, objects.Span{Length: st.Size}, got.file, nil)
}

// spoken are the attributes that read.py prints.
func spoken(text string) (objects.Stat, error) {
	var said struct {
		Attributes [][2]string `json:"attributes"`
	}
	if err := json.Unmarshal([]byte(text), &said); err != nil {
		return objects.Stat{}, err
	}
	st := objects.Stat{Attributes: objects.Attributes{Metadata: map[string]string{}}}
	for _, a := range said.Attributes {
		switch name, meta := strings.CutPrefix(a[0], "x-amz-meta-"); {
		case meta:
			st.Metadata[name] = a[1]
		case a[0] == "Content-Type":
			st.ContentType = a[1]
		case a[0] == "Cache-Control":
			st.CacheControl = a[1]
		}
	}
	return st, nil
}

// forgery is a way to change what was downloaded.
type forgery struct {
	kind
	also func(g *gen, v *vault, d *downloaded) // beside what kind makes; nil: nothing
}

// forgeries are all attacks on things, and mistakes or lies about what belongs together.
// What is answered otherwise than it lies there has become a file by then.
func forgeries() []forgery {
	var out []forgery
	for _, k := range things() {
		if k.name != "size lied about" { // files have their sizes
			out = append(out, forgery{kind: k})
		}
	}
	nothing := func(*gen) *attack { return &attack{} }
	mixed := func(name string, also func(g *gen, v *vault, d *downloaded)) {
		out = append(out, forgery{kind{name: name, make: nothing}, also})
	}
	mixed("name of another object", func(g *gen, _ *vault, d *downloaded) {
		d.key = g.other().key + "x"
	})
	mixed("mirror flipped", func(g *gen, _ *vault, d *downloaded) {
		d.mirror = rope{d.mirror}.flip(g.within(int64(len(d.mirror))), g.mask()).bytes()
	})
	mixed("mirror cut", func(g *gen, _ *vault, d *downloaded) { d.mirror = d.mirror[:g.IntN(len(d.mirror))] })
	mixed("mirror of another bucket", func(g *gen, v *vault, d *downloaded) {
		d.mirror, _ = v.keyOf(g.elsewhere())
	})
	mixed("mirror and key of another bucket", func(g *gen, v *vault, d *downloaded) {
		d.mirror, d.raw = v.keyOf(g.elsewhere())
	})
	mixed("bucket key flipped", func(g *gen, _ *vault, d *downloaded) {
		d.raw = rope{d.raw}.flip(g.within(32), g.mask()).bytes()
	})
	return out
}

// TestForgeriesForTheIndependentReader has read.py read what a provider has forged: each
// kind in turn, on a random object.
func TestForgeriesForTheIndependentReader(t *testing.T) {
	if testing.Short() {
		t.Skip("needs python3-cryptography")
	}
	if out, err := exec.CommandContext(t.Context(), "python3", "-c", "import cryptography").CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("python3-cryptography: %v: %s", err, out)
		}
		t.Skipf("python3-cryptography is missing: %v", err)
	}
	vault, err := newVault(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer vault.provider.Close()
	w, err := newWorld(t.Context(), vault)
	if err != nil {
		t.Fatal(err)
	}
	c := &campaign{t: t, w: w, vault: vault, seed: cmp.Or(*seed, uint64(time.Now().UnixNano())), tally: newTally()}
	reader, all := newReadPy(t), forgeries()
	for i := range *forged {
		if err := c.forge(reader, i, all[i%len(all)]); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed %d%s", c.seed, c.tally)
	if name, n := c.tally.least(); *forged >= 500*len(all) && n < 500 {
		t.Errorf("%q was tried %d times, want 500", name, n)
	}
}

// forge tries one forgery.
func (c *campaign) forge(reader *readPy, i int, f forgery) error {
	g := &gen{Rand: rand.New(rand.NewPCG(c.seed, uint64(i))), w: c.w}
	from := c.w.subjects
	if f.large {
		from = c.w.large
	}
	g.s = from[g.IntN(len(from))]
	t := &trial{gen: g, kind: f.kind, vault: c.vault}
	d, detail := t.download(f)
	got, err := reader.run(d)
	if err != nil {
		return fmt.Errorf("seed %d, forgery %d: %w", c.seed, i, err)
	}
	v := t.judgeFile(got)
	c.tally.add("read.py: "+f.name, "read.py", v.outcome)
	if v.outcome == wrong {
		c.t.Errorf("seed %d, forgery %d: %s (%s) of %s: %s", c.seed, i, f.name, detail, g.s.name, v.why)
	}
	return nil
}

// TestTheJudgeOfFilesFindsLies gives the judge runs of a reader that does not do what it
// should.
func TestTheJudgeOfFilesFindsLies(t *testing.T) {
	now := &version{
		plain: []byte("some text"), parts: []part{{length: 9}},
		attrs: objects.Attributes{ContentType: "text/x", Metadata: map[string]string{"note": "a"}},
	}
	said := `{"attributes": [["Content-Type", "text/x"], ["x-amz-meta-note", "a"]]}`
	whole := []string{"plain"}
	for name, tt := range map[string]struct {
		got  result
		want outcome
	}{
		"the truth":               {result{0, said, now.plain, whole}, truthful},
		"a refusal":               {result{1, "REFUSED: it", nil, nil}, refused},
		"a refusal without words": {result{1, "", nil, nil}, wrong},
		"a refusal and a file":    {result{1, "REFUSED: it", now.plain, whole}, wrong},
		"a refusal and half":      {result{1, "REFUSED: it", nil, []string{"plain.partial"}}, wrong},
		"a crash":                 {result{-1, "Traceback", nil, nil}, wrong},
		"no file":                 {result{0, said, nil, nil}, wrong},
		"more than the file":      {result{0, said, now.plain, []string{"plain", "plain.partial"}}, wrong},
		"a short file":            {result{0, said, now.plain[:8], whole}, wrong},
		"another byte":            {result{0, said, []byte("some test"), whole}, wrong},
		"another type":            {result{0, strings.Replace(said, "text/x", "text/y", 1), now.plain, whole}, wrong},
		"no metadata":             {result{0, `{"attributes": []}`, now.plain, whole}, wrong},
		"no attributes":           {result{0, "", now.plain, whole}, wrong},
	} {
		trial := &trial{gen: &gen{s: &subject{now: now, old: now}}}
		if got := trial.judgeFile(tt.got); got.outcome != tt.want {
			t.Errorf("%s: got %v (%s), want %v", name, got.outcome, got.why, tt.want)
		}
	}
}
