package mutation

import (
	"slices"
	"time"
)

// suite is a package of tests.
type suite struct {
	name   string // in the lists
	folder string // from the root of the module
	args   []string
	env    []string
}

// patience is how long tests may run.
const patience = 2 * time.Minute

// suites are the tests, in the order of their cost.
func suites() []suite {
	return []suite{
		{name: "sealed", folder: "gateway/sealed", args: []string{"-test.short"}},
		{name: "keys", folder: "gateway/keys", args: []string{"-test.short"}},
		{name: "objects", folder: "gateway/objects", args: []string{"-test.short"}},
		{name: "hostile", folder: "test/hostile", args: []string{"-seed", "1", "-attacks", "4500"}},
	}
}

func suiteNamed(name string) (suite, bool) {
	all := suites()
	i := slices.IndexFunc(all, func(s suite) bool { return s.name == name })
	if i < 0 {
		return suite{}, false
	}
	return all[i], true
}
