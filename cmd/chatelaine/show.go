package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// table is an answer for people.
type table struct {
	header []string
	rows   [][]string
	empty  string // said where there are no rows
}

// show answers: tables for people, or v as JSON with --json. v is a message of the
// RPC, or what encoding/json knows.
func (a *admin) show(v any, tables ...table) error {
	if !a.json {
		return writeTables(a.out, tables)
	}
	text, err := encode(v)
	if err == nil {
		_, err = a.out.Write(append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	return nil
}

// encode makes JSON. protojson varies its spaces on purpose, so they are set here.
func encode(v any) ([]byte, error) {
	message, ok := v.(proto.Message)
	if !ok {
		return json.MarshalIndent(v, "", "  ")
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(message)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = json.Indent(&out, text, "", "  ")
	return out.Bytes(), err
}

// writeTables puts an empty line between tables.
func writeTables(out io.Writer, tables []table) error {
	for i, t := range tables {
		if i > 0 {
			fmt.Fprintln(out)
		}
		if err := t.write(out); err != nil {
			return err
		}
	}
	return nil
}

func (t table) write(out io.Writer) error {
	if len(t.rows) == 0 {
		if t.empty != "" {
			fmt.Fprintln(out, t.empty)
		}
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if len(t.header) > 0 {
		fmt.Fprintln(w, strings.Join(t.header, "\t"))
	}
	for _, row := range t.rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	return nil
}

// when shows a time to people, in UTC; "-" for none.
func when(at *timestamppb.Timestamp) string {
	if at == nil || !at.IsValid() || at.AsTime().IsZero() {
		return "-"
	}
	return at.AsTime().UTC().Format("2006-01-02 15:04:05")
}

// lasting shows a duration to people, in days where it is days; "-" for none.
func lasting(d *durationpb.Duration) string {
	const day = 24 * time.Hour
	switch length := d.AsDuration(); {
	case length == 0:
		return "-"
	case length%day == 0:
		return fmt.Sprintf("%dd", length/day)
	default:
		return length.String()
	}
}

// dash stands where there is nothing to say.
func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// progress shows long work on stderr: a bar that moves on a terminal, and a line now
// and then otherwise. It is not for concurrent use.
type progress struct {
	out      io.Writer
	label    string
	terminal bool
	said     time.Time
}

func newProgress(out io.Writer, label string) *progress {
	return &progress{out: out, label: label, terminal: isTerminal(out)}
}

// Widths of the bar, and times between two looks of it.
const (
	barWidth      = 30
	barInterval   = 100 * time.Millisecond
	linesInterval = 5 * time.Second
)

// set says how far it has come.
func (p *progress) set(done, total uint64) {
	interval := linesInterval
	if p.terminal {
		interval = barInterval
	}
	if time.Since(p.said) < interval && done < total {
		return
	}
	p.said = time.Now()
	if !p.terminal {
		fmt.Fprintf(p.out, "%s: %d of %d\n", p.label, done, total)
		return
	}
	filled := barWidth
	if total > 0 {
		filled = int(float64(barWidth) * float64(min(done, total)) / float64(total))
	}
	fmt.Fprintf(p.out, "\r%s [%s%s] %d of %d ", p.label, strings.Repeat("#", filled), strings.Repeat(".", barWidth-filled), done, total)
}

// note says how far work has come of which nobody knows the end.
func (p *progress) note(text string) {
	interval := linesInterval
	if p.terminal {
		interval = barInterval
	}
	if time.Since(p.said) < interval {
		return
	}
	p.said = time.Now()
	if !p.terminal {
		fmt.Fprintf(p.out, "%s: %s\n", p.label, text)
		return
	}
	fmt.Fprintf(p.out, "\r%s: %s\x1b[K", p.label, text)
}

// end leaves the line of the bar.
func (p *progress) end() {
	if p.terminal && !p.said.IsZero() {
		fmt.Fprintln(p.out)
	}
}

// isTerminal says whether a person may be at the other end.
func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}
