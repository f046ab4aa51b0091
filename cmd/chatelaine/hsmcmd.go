package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	kmsconfig "chatelaine/kms/config"
	"chatelaine/kms/config/settings"
)

// hsmCommand is about the HSM itself. Its commands load the module into this process,
// and need no KMS.
func hsmCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "hsm", Short: "The HSM itself: examine it, make keys in it before witnesses", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("which command? Try `chatelaine hsm --help`")}
		},
	}
	cmd.AddCommand(doctorCommand(), keyCeremonyCommand())
	return cmd
}

// tokenFlags say which token is meant: that of a KMS's configuration, or one that the
// flags name.
type tokenFlags struct {
	config string
	c      kmsconfig.PKCS11
}

func (f *tokenFlags) bind(cmd *cobra.Command) { f.bindAs(cmd, "config", "prefix") }

// bindAs is bind where two of the names mean something else.
func (f *tokenFlags) bindAs(cmd *cobra.Command, config, prefix string) {
	flags := cmd.Flags()
	flags.StringVar(&f.config, config, "", "the KMS's configuration; the flags below go before it")
	flags.StringVar(&f.c.Module, "module", "", "path of the PKCS#11 library")
	flags.StringVar(&f.c.Parameters, "parameters", "", "text that the library is initialised with, where it wants one")
	flags.StringVar(&f.c.Token, "token", "", "label of the token, or a pkcs11: URI")
	flags.StringVar(&f.c.PINFile, "pin-file", "", "file with the user's PIN")
	flags.StringVar(&f.c.PINEnv, "pin-env", "", "variable of the environment with the user's PIN")
	flags.StringVar(&f.c.Prefix, prefix, "", "what our keys' labels begin with")
}

// read is the part of the configuration that is about the token, and the name of the
// default KEK; "" where no file names one.
func (f *tokenFlags) read() (kmsconfig.PKCS11, string, error) {
	c, kek := f.c, ""
	if f.config != "" {
		file, err := kmsconfig.Load(f.config)
		if err != nil {
			return c, "", usageError{err}
		}
		if file.Provider.PKCS11 == nil {
			return c, "", usageError{errors.New("the configuration names no HSM (provider.pkcs11)")}
		}
		c, kek = over(*file.Provider.PKCS11, f.c), file.KEK
	}
	var problems []error
	if c.Module == "" && !strings.Contains(c.Token, "module-path=") {
		problems = append(problems, errors.New("which module? Say --config, or --module"))
	}
	if c.Token == "" {
		problems = append(problems, errors.New("which token? Say --config, or --token"))
	}
	if err := errors.Join(problems...); err != nil {
		return c, "", usageError{err}
	}
	return c, kek, nil
}

// over puts the flags that are given over the file. Parameters are the module's, and
// the failover list is the token's.
func over(file, flags kmsconfig.PKCS11) kmsconfig.PKCS11 {
	if flags.Module != "" {
		file.Module, file.Parameters = flags.Module, ""
	}
	if flags.Token != "" {
		file.Token, file.Failover = flags.Token, nil
	}
	for _, f := range []struct{ to, from *string }{{&file.Parameters, &flags.Parameters}, {&file.Prefix, &flags.Prefix}} {
		if *f.from != "" {
			*f.to = *f.from
		}
	}
	if flags.PIN().Given() {
		file.PINFile, file.PINEnv = flags.PINFile, flags.PINEnv
	}
	return file
}

// checkPIN refuses a PIN that flags place twice.
func checkPIN(c kmsconfig.PKCS11) error {
	var problems settings.Problems
	c.PIN().Check("pin", &problems)
	return problems.Err("the flags")
}
