package filestore

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"chatelaine/backends"
)

// Tests with several processes run this test binary again, with what it shall do
// in the environment.
const (
	childEnv = "FILESTORE_CHILD"
	rootEnv  = "FILESTORE_ROOT"
)

func TestMain(m *testing.M) {
	do := map[string]func(*Store) error{"write": writeForEver, "version": versionForEver, "create": createOnce, "count": countUp}[os.Getenv(childEnv)]
	if do == nil {
		os.Exit(m.Run())
	}
	s, err := New(Config{Root: os.Getenv(rootEnv)})
	if err == nil {
		err = do(s)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// child starts this binary on the folder. It dies with its parent.
func child(t *testing.T, what, root string) (*exec.Cmd, io.Reader) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+what, rootEnv+"="+root)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

// step is a line of a writing child, before and after it does it. Seed 0 is a delete.
type step struct {
	Key  string
	Seed int
	Done bool
}

func (s step) say() {
	line, _ := json.Marshal(s)
	os.Stdout.Write(append(line, '\n'))
}

// content is what a seed stands for: some sizes are around a buffer, most are small.
func content(seed int) []byte {
	r := rand.New(rand.NewPCG(uint64(seed), 0))
	n := r.IntN(3000)
	if seed%7 == 0 {
		n = wholeWrite - 2000 + r.IntN(200<<10)
	}
	return bytes.Repeat([]byte(fmt.Sprintf("%d,", seed)), n/4+1)
}

// writeForEver puts, completes and deletes in a few goroutines, each with keys of
// its own, until it is killed.
func writeForEver(s *Store) error {
	var wg sync.WaitGroup
	errs := make(chan error, 1)
	for worker := range 6 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(worker)))
			for {
				key := fmt.Sprintf("d%d/%s", worker, []string{"a", "a/b", "c/d/e", "c/f", "..", "m"}[r.IntN(6)])
				st := step{Key: key, Seed: r.IntN(1 << 30)}
				if r.IntN(4) == 0 {
					st.Seed = 0
				}
				st.say()
				if err := do(s, st, r.IntN(3) == 0); err != nil {
					errs <- fmt.Errorf("%+v: %w", st, err)
				}
				st.Done = true
				st.say()
			}
		})
	}
	return <-errs
}

func do(s *Store, st step, multipart bool) error {
	ctx, id := context.Background(), backends.ObjectID{Bucket: "bucket", Key: st.Key}
	if st.Seed == 0 {
		_, err := s.Delete(ctx, id, nil)
		return err
	}
	data := content(st.Seed)
	body := backends.Body{Reader: bytes.NewReader(data), Size: int64(len(data))}
	attrs := backends.Attributes{Metadata: map[string]string{"seed": strconv.Itoa(st.Seed)}}
	if !multipart {
		_, err := s.Put(ctx, id, body, &backends.PutOptions{Attributes: attrs})
		return err
	}
	up, err := s.CreateUpload(ctx, id.Bucket, id.Key, attrs)
	if err != nil {
		return err
	}
	p, err := s.PutPart(ctx, up, 1, body)
	if err != nil {
		return err
	}
	_, err = s.Complete(ctx, up, []backends.Part{p}, backends.Conditions{})
	return err
}

// TestEveryAcknowledgedObjectSurvivesKill9 kills a writing process again and again.
// What it had been told is done must be there, what it was about to do may be, and
// whatever is there must be whole.
func TestEveryAcknowledgedObjectSurvivesKill9(t *testing.T) {
	root := t.TempDir()
	f := within(t, open(t, root))
	defer f.Close()
	state, rounds, steps := map[string]int{}, 25, 0
	for round := range rounds {
		cmd, out := child(t, "write", root)
		kill := time.AfterFunc(time.Duration(30+rand.IntN(150))*time.Millisecond, func() { cmd.Process.Kill() })
		pending := map[string]step{}
		for lines := bufio.NewScanner(out); lines.Scan(); steps++ {
			var st step
			if err := json.Unmarshal(lines.Bytes(), &st); err != nil {
				t.Fatalf("round %d: line %q: %v", round, lines.Bytes(), err)
			}
			if pending[st.Key] = st; st.Done {
				state[st.Key] = st.Seed
				delete(pending, st.Key)
			}
		}
		kill.Stop()
		if err := cmd.Wait(); cmd.ProcessState.ExitCode() != -1 {
			t.Fatalf("round %d: the child ended by itself: %v", round, err)
		}
		f.settleState(state, pending)
	}
	if steps < 10*rounds {
		t.Errorf("only %d steps in %d rounds", steps, rounds)
	}
	t.Logf("%d steps in %d rounds, %d objects", steps, rounds, len(state))
	f.noLeftovers()
}

// settleState compares what is there with what must and may be, and makes it what
// must be in the next round.
func (f inBucket) settleState(state map[string]int, pending map[string]step) {
	f.Helper()
	keys := map[string]bool{}
	for key := range state {
		keys[key] = true
	}
	for key := range pending {
		keys[key] = true
	}
	var want []string
	for key := range keys {
		seed := f.seedOf(key)
		if p, ok := pending[key]; seed != state[key] && (!ok || seed != p.Seed) {
			f.Fatalf("%q holds seed %d; acknowledged was %d, under way %+v", key, seed, state[key], p)
		}
		if state[key] = seed; seed != 0 {
			want = append(want, key)
		}
	}
	slices.Sort(want)
	page, err := f.List(f.Context(), f.bucket, nil)
	if err != nil {
		f.Fatal(err)
	}
	var got []string
	for _, e := range page.Entries {
		got = append(got, e.Key)
	}
	if !slices.Equal(got, want) {
		f.Fatalf("listed %q, want %q", got, want)
	}
}

// seedOf reads an object and checks that it is whole; 0 where there is none.
func (f inBucket) seedOf(key string) int {
	f.Helper()
	info, err := f.Head(f.Context(), f.id(key), nil)
	if errors.Is(err, backends.ErrNotFound) {
		return 0
	}
	if err != nil {
		f.Fatal(err)
	}
	seed, err := strconv.Atoi(info.Attributes.Metadata["seed"])
	if err != nil {
		f.Fatal(err)
	}
	f.holds(key, content(seed))
	return seed
}

// noLeftovers sweeps as if a long time had passed, and then wants nothing there but
// the parts of objects and of unfinished uploads.
func (f inBucket) noLeftovers() {
	f.Helper()
	for _, dir := range []string{f.path("tmp"), f.path("buckets", f.bucket, "parts")} {
		for _, name := range names(f.T, dir) {
			age(f.T, dir+"/"+name)
		}
	}
	f.sweep(f.Context())
	if got := names(f.T, f.path("tmp")); len(got) != 0 {
		f.Errorf("left over: %q", got)
	}
	used := map[string]bool{}
	page, err := f.List(f.Context(), f.bucket, nil)
	if err != nil {
		f.Fatal(err)
	}
	for _, e := range page.Entries {
		rec, err := readRecord(f.objects(f.bucket) + "/" + keyPath(e.Key))
		if err != nil {
			f.Fatal(err)
		}
		used[rec.Upload] = true
	}
	for _, id := range names(f.T, f.path("buckets", f.bucket, "parts")) {
		if !used[id] && !exists(f.uploadPath(f.bucket, id)) {
			f.Errorf("parts of nothing: %s", id)
		}
	}
}

// createOnce waits for a line, so that all children begin at once, and says whether
// it was the one to create the object.
func createOnce(s *Store) error {
	fmt.Println("ready")
	for line := bufio.NewScanner(os.Stdin); line.Scan(); {
		_, err := s.Put(context.Background(), backends.ObjectID{Bucket: "bucket", Key: line.Text()},
			backends.Body{Reader: strings.NewReader(strconv.Itoa(os.Getpid())), Size: int64(len(strconv.Itoa(os.Getpid())))},
			&backends.PutOptions{Conditions: backends.Conditions{IfNoneMatch: []string{"*"}}})
		if err != nil && !errors.Is(err, backends.ErrPrecondition) {
			return err
		}
		fmt.Println(err == nil)
	}
	return nil
}

func TestOneOfTwoProcessesCreatesAnObject(t *testing.T) {
	root := t.TempDir()
	f := within(t, open(t, root))
	defer f.Close()
	type proc struct {
		in  io.Writer
		out *bufio.Scanner
		pid int
	}
	var procs []proc
	for range 2 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"=create", rootEnv+"="+root)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		in, err := cmd.StdinPipe()
		out, err2 := cmd.StdoutPipe()
		if err := errors.Join(err, err2, cmd.Start()); err != nil {
			t.Fatal(err)
		}
		p := proc{in, bufio.NewScanner(out), cmd.Process.Pid}
		procs = append(procs, p)
		if !p.out.Scan() || p.out.Text() != "ready" {
			t.Fatal("a child is not ready")
		}
		defer cmd.Wait()
		defer in.Close()
	}
	wins := map[int]int{}
	for round := range 200 {
		key := fmt.Sprintf("lock/%d", round)
		for _, p := range procs {
			if _, err := io.WriteString(p.in, key+"\n"); err != nil {
				t.Fatal(err)
			}
		}
		won := 0
		for _, p := range procs {
			if !p.out.Scan() {
				t.Fatal("a child has gone")
			}
			if p.out.Text() == "true" {
				won++
				wins[p.pid]++
				f.holds(key, []byte(strconv.Itoa(p.pid)))
			}
		}
		if won != 1 {
			t.Fatalf("round %d: %d processes created %q", round, won, key)
		}
	}
	t.Logf("wins by process: %v", wins)
}

// countUp adds 100 to a counter by compare and swap.
func countUp(s *Store) error {
	ctx, id := context.Background(), backends.ObjectID{Bucket: "bucket", Key: "counter"}
	s.fsync = noSync
	for done := 0; done < 100; {
		o, err := s.Get(ctx, id, nil)
		if err != nil {
			return err
		}
		data, err := io.ReadAll(o.Body)
		if err := errors.Join(err, o.Body.Close()); err != nil {
			return err
		}
		n, err := strconv.Atoi(string(data))
		if err != nil {
			return err
		}
		next := strconv.Itoa(n + 1)
		_, err = s.Put(ctx, id, backends.Body{Reader: strings.NewReader(next), Size: int64(len(next))},
			&backends.PutOptions{Conditions: backends.Conditions{IfMatch: []string{o.ETag}}})
		if err == nil {
			done++
		} else if !errors.Is(err, backends.ErrPrecondition) {
			return err
		}
	}
	return nil
}

func TestProcessesThatCompareAndSwapLoseNothing(t *testing.T) {
	root := t.TempDir()
	f := within(t, open(t, root))
	defer f.Close()
	f.put("counter", []byte("0"))
	var cmds []*exec.Cmd
	for range 3 {
		cmd, _ := child(t, "count", root)
		cmds = append(cmds, cmd)
	}
	for _, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	f.holds("counter", []byte("300"))
}
