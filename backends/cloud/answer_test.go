package cloud

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"chatelaine/backends"
)

func TestAnAnswerHasWhatItsHeaderPromised(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		body io.Reader
		left int64
		want error
	}{
		"all":                 {strings.NewReader("12345"), 5, nil},
		"all, and the end":    {iotest.DataErrReader(strings.NewReader("12345")), 5, nil},
		"nothing":             {strings.NewReader(""), 0, nil},
		"less":                {strings.NewReader("1234"), 5, io.ErrUnexpectedEOF},
		"more":                {strings.NewReader("123456"), 5, backends.ErrUnavailable},
		"an error":            {io.MultiReader(strings.NewReader("1234"), iotest.ErrReader(broken)), 5, broken},
		"an error at its end": {io.MultiReader(strings.NewReader("12345"), iotest.ErrReader(broken)), 5, broken},
		"a broken connection": {io.MultiReader(strings.NewReader("1"), iotest.ErrReader(io.ErrUnexpectedEOF)), 5, backends.ErrUnavailable},
	} {
		a := &Answer{Body: io.NopCloser(c.body), Left: c.left, Wrap: func(err error) error { return fmt.Errorf("driver: %w", err) }}
		got, err := io.ReadAll(a)
		if !errors.Is(err, c.want) || err == nil && int64(len(got)) != c.left || err != nil && !strings.HasPrefix(err.Error(), "driver: ") {
			t.Errorf("%s: %q, %v; want %v", name, got, err, c.want)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
}
