package settings

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// Secret says where a secret is: in a file, or in a variable of the environment. A
// configuration never holds the secret itself. The zero value means that none is given.
type Secret struct{ File, Env string }

// Given says whether the configuration names a place.
func (s Secret) Given() bool { return s.File != "" || s.Env != "" }

// Check adds a problem where both places are named.
func (s Secret) Check(path string, problems *Problems) {
	if s.File != "" && s.Env != "" {
		problems.Add(path+"_file", "is given beside %s_env, want one of them", path)
	}
}

// Read fetches the secret. A file that everybody may read is refused. One newline at the end of a file is not part of it. Errors
// name the place and never the content. Without a place the secret is empty.
func (s Secret) Read() (string, error) {
	if s.File != "" {
		return s.readFile()
	}
	if s.Env == "" {
		return "", nil
	}
	value := os.Getenv(s.Env)
	if value == "" {
		return "", fmt.Errorf("settings: variable %q, which the configuration names, is not set", s.Env)
	}
	return value, nil
}

func (s Secret) readFile() (string, error) {
	info, err := os.Stat(s.File)
	if err != nil {
		return "", fmt.Errorf("settings: reading a secret: %w", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return "", fmt.Errorf("settings: reading a secret: everybody on this machine may read %q (mode %04o): chmod o= it", s.File, info.Mode().Perm())
	}
	text, err := os.ReadFile(s.File)
	if err != nil {
		return "", fmt.Errorf("settings: reading a secret: %w", err)
	}
	value := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if value == "" {
		return "", errors.New("settings: file " + s.File + ", which should hold a secret, is empty")
	}
	return value, nil
}
