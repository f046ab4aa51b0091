package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"chatelaine/hsm"
	"chatelaine/kms"
	"chatelaine/kms/config/settings"
)

// Exit codes that other programs rely on.
const (
	exitFailure = 1
	exitUsage   = 2 // usage or configuration: trying again does not help
	// exitConfig is exitUsage of a service (EX_CONFIG of sysexits.h): a supervisor does
	// not start it again. It is not 2, because Go's runtime ends with 2 when it panics
	// and when a vendor's module crashes, and then it must be started again.
	exitConfig = 78
)

// run is main without the process: it returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// From the first signal on, a second one ends the process at once.
	context.AfterFunc(ctx, stop)

	service, err := execute(ctx, args, stdout, stderr)
	code := exitCode(err)
	if service && code == exitUsage {
		code = exitConfig
	}
	if text := errorText(err); text != "" {
		fmt.Fprintln(stderr, "chatelaine: "+text)
	}
	return code
}

// execute finds and runs the subcommand, and tells whether it was one that is
// supervised. What goes wrong before it has begun to run is the caller's usage.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) (service bool, err error) {
	begun := false
	root := &cobra.Command{
		Use:           "chatelaine",
		Short:         "S3 on any cloud, with the keys at home",
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError{errors.New("which command? Try `chatelaine up --help`")}
		},
		PersistentPreRun: func(*cobra.Command, []string) { begun = true },
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(userCommand(), bucketCommand(), reportCommand())
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetArgs(args)
	services := []*cobra.Command{upCommand(), gatewayCommand(), kmsCommand()}
	root.AddCommand(services...)
	root.AddCommand(versionCommand(), keyCommand(),
		approveCommand(), rejectCommand(), pendingCommand(), approvalsCommand(), rulesCommand(), ceremonyCommand(), recoverCommand(), backupCommand(), restoreCommand(), policyCommand(), hsmCommand(), backendCommand(), objectCommand())
	ran, err := root.ExecuteContextC(ctx)
	if err != nil && !begun {
		err = usageError{err}
	}
	return slices.Contains(services, ran), err
}

// usageError is one that the caller's flags or configuration made.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// exitError ends the process with the code of a process that it depends on, which
// has said why itself.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func exitCode(err error) int {
	var exit *exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.code
	case isConfiguration(err):
		return exitUsage
	}
	return exitFailure
}

// isConfiguration tells errors that only a person can mend. A refused PIN is one of
// them: a supervisor that starts the process again would lock the token.
func isConfiguration(err error) bool {
	var usage usageError
	var problems *settings.Error
	if errors.As(err, &usage) || errors.As(err, &problems) {
		return true
	}
	for _, cause := range []error{kms.ErrPIN, kms.ErrInvalid, kms.ErrUnsafe, kms.ErrAmbiguous, hsm.ErrPIN, hsm.ErrModule, hsm.ErrInvalid} {
		if errors.Is(err, cause) {
			return true
		}
	}
	return false
}

func errorText(err error) string {
	var exit *exitError
	if err == nil || errors.As(err, &exit) {
		return ""
	}
	return err.Error()
}
