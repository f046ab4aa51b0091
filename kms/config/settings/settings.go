// Package settings turns a YAML document into a struct and says all that is wrong
// with it at once, each problem with its path.
//
// It serves the gateway's and the KMS's configuration alike. It refuses to know any
// setting: names come from the struct's yaml tags, sense from its owner's checks.
package settings

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// Problems collects what is wrong with a configuration. The zero value is ready.
type Problems struct{ found []Problem }

// Problem is one thing that is wrong. Path is "backends.main.url".
type Problem struct{ Path, What string }

// Add notes a problem.
func (p *Problems) Add(path, format string, args ...any) {
	p.found = append(p.found, Problem{path, fmt.Sprintf(format, args...)})
}

// Required adds a problem where a value is empty.
func (p *Problems) Required(path, value string) {
	if value == "" {
		p.Add(path, "is missing")
	}
}

// OneOf adds a problem where a value is not among those that may be.
func (p *Problems) OneOf(path, value string, values ...string) {
	if !slices.Contains(values, value) {
		p.Add(path, "is %q, want one of %s", value, strings.Join(values, ", "))
	}
}

// Err is nil where there is no problem, and an *Error otherwise, sorted by path. The
// source, a file name, leads the text.
func (p *Problems) Err(source string) error {
	if len(p.found) == 0 {
		return nil
	}
	sorted := slices.Clone(p.found)
	slices.SortStableFunc(sorted, func(a, b Problem) int { return strings.Compare(a.Path, b.Path) })
	return &Error{Source: source, Problems: sorted}
}

// Error is a configuration that cannot be used: a line for each problem.
type Error struct {
	Source   string
	Problems []Problem
}

func (e *Error) Error() string {
	lines := []string{fmt.Sprintf("%s: %d problem(s) in the configuration", e.Source, len(e.Problems))}
	for _, p := range e.Problems {
		lines = append(lines, "  "+strings.TrimPrefix(p.Path+": ", ": ")+p.What)
	}
	return strings.Join(lines, "\n")
}

// Decode fills the struct that dst points to. Keys that the struct does not have and
// values of another kind become problems; what is not mentioned keeps its value, so
// defaults are set before. An empty document is an empty mapping. An error means that
// the text is not YAML, or has a key twice: then nothing is known about the rest.
//
// Fields are strings, bools, ints, time.Durations ("30s"), slices, maps with string
// keys, structs, and pointers to them. A field without a yaml tag cannot be set.
func Decode(text []byte, dst any, problems *Problems) error {
	var document any
	if err := yaml.UnmarshalWithOptions(text, &document, yaml.Strict()); err != nil {
		return fmt.Errorf("settings: reading YAML: %w", err)
	}
	d := decoder{problems}
	d.value("", document, reflect.ValueOf(dst).Elem())
	return nil
}

type decoder struct{ problems *Problems }

// value stores what YAML gave. A null leaves the destination as it is.
func (d decoder) value(path string, from any, to reflect.Value) {
	if from == nil {
		return
	}
	if to.Type() == reflect.TypeFor[time.Duration]() {
		d.duration(path, from, to)
		return
	}
	switch to.Kind() {
	case reflect.Pointer:
		to.Set(reflect.New(to.Type().Elem()))
		d.value(path, from, to.Elem())
	case reflect.Struct:
		d.mapping(path, from, func(name string, v any) { d.field(path, name, v, to) })
	case reflect.Map:
		d.entries(path, from, to)
	case reflect.Slice:
		d.items(path, from, to)
	default:
		d.scalar(path, from, to)
	}
}

func (d decoder) duration(path string, from any, to reflect.Value) {
	text, _ := from.(string)
	v, err := time.ParseDuration(text)
	if err != nil || v < 0 {
		d.problems.Add(path, "is no duration, want one such as 30s or 5m")
		return
	}
	to.SetInt(int64(v))
}

// mapping calls each for every key, in order, so that problems come in one order.
func (d decoder) mapping(path string, from any, each func(name string, v any)) {
	m, ok := from.(map[string]any)
	if !ok {
		d.problems.Add(path, "is %s, want a mapping", kind(from))
		return
	}
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		each(name, m[name])
	}
}

func (d decoder) field(path, name string, v any, to reflect.Value) {
	known := make([]string, 0, to.NumField())
	for i := range to.NumField() {
		tag := to.Type().Field(i).Tag.Get("yaml")
		if tag == name {
			d.value(Join(path, name), v, to.Field(i))
			return
		}
		if tag != "" {
			known = append(known, tag)
		}
	}
	d.problems.Add(Join(path, name), "is not a setting; there are %s", strings.Join(known, ", "))
}

func (d decoder) entries(path string, from any, to reflect.Value) {
	if to.IsNil() {
		to.Set(reflect.MakeMap(to.Type()))
	}
	d.mapping(path, from, func(name string, v any) {
		item := reflect.New(to.Type().Elem()).Elem()
		d.value(Join(path, name), v, item)
		to.SetMapIndex(reflect.ValueOf(name), item)
	})
}

func (d decoder) items(path string, from any, to reflect.Value) {
	list, ok := from.([]any)
	if !ok {
		d.problems.Add(path, "is %s, want a list", kind(from))
		return
	}
	to.SetZero()
	if len(list) > 0 { // an empty list is no list
		to.Set(reflect.MakeSlice(to.Type(), len(list), len(list)))
	}
	for i, v := range list {
		d.value(fmt.Sprintf("%s[%d]", path, i), v, to.Index(i))
	}
}

// scalar stores a string, a bool or an int. Nothing is converted: `port: "1"` and
// `name: yes` are mistakes that a person should see.
func (d decoder) scalar(path string, from any, to reflect.Value) {
	switch v := from.(type) {
	case string:
		if to.Kind() == reflect.String {
			to.SetString(v)
			return
		}
	case bool:
		if to.Kind() == reflect.Bool {
			to.SetBool(v)
			return
		}
	case uint64:
		if to.CanInt() && v <= 1<<63-1 && !to.OverflowInt(int64(v)) {
			to.SetInt(int64(v))
			return
		}
	case int64:
		if to.CanInt() && !to.OverflowInt(v) {
			to.SetInt(v)
			return
		}
	}
	d.problems.Add(path, "is %s, want %s", kind(from), wanted(to))
}

func wanted(to reflect.Value) string {
	switch {
	case to.CanInt():
		return "a whole number"
	case to.Kind() == reflect.Bool:
		return "true or false"
	default:
		return "text (put it into quotes)"
	}
}

// kind names what YAML gave. Values stay out of it: one may be a secret that was put
// into the wrong place.
func kind(v any) string {
	switch v.(type) {
	case map[string]any:
		return "a mapping"
	case []any:
		return "a list"
	case string:
		return "text"
	case bool:
		return "true or false"
	default:
		return "a number"
	}
}

// Join makes a path of a path and a name.
func Join(path, name string) string {
	return strings.TrimPrefix(path+"."+name, ".")
}

// Load reads a file and decodes it. Problems are added; an error means that the file
// cannot be read or is not YAML.
func Load(name string, dst any, problems *Problems) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("settings: reading the configuration: %w", err)
	}
	if err := Decode(text, dst, problems); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// Encode writes a struct as the document that Decode reads: for the configuration of
// a process that this one starts.
func Encode(src any) ([]byte, error) {
	text, err := yaml.Marshal(src)
	if err != nil {
		return nil, fmt.Errorf("settings: writing YAML: %w", err)
	}
	return text, nil
}
