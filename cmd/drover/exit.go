package main

import (
	"errors"
	"strings"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/master"
	"github.com/drover-io/drover/ops/alert"
	"github.com/drover-io/drover/ops/retention"
	"github.com/drover-io/drover/replica"
	"github.com/drover-io/drover/snapshot"
	"github.com/drover-io/drover/snapshot/schedule"
)

// The exit codes are a contract with scripts and service managers; docs/exit-codes.md explains each to operators.
const (
	exitDone        = 0
	exitFailure     = 1
	exitUsage       = 2
	exitNotRetained = 3
	exitFenced      = 4
	exitDivergence  = 5
	exitHole        = 6
	exitSource      = 7
)

// errUsage marks an error as the caller's: a wrong flag, a wrong configuration file, a datadir of something else.
var errUsage = errors.New("wrong use")

type usage struct{ error }

func (u usage) Is(target error) bool { return target == errUsage }
func (u usage) Unwrap() error        { return u.error }

func usageError(err error) error { return usage{err} }

// exitCode maps an error to the exit code that design and documentation promise for it.
func exitCode(err error) int {
	var geth *master.GethExitError
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errUsage), errors.Is(err, changelog.ErrWrongCluster), errors.Is(err, master.ErrUsage), errors.Is(err, replica.ErrUsage),
		errors.Is(err, master.ErrNotOurs),
		errors.Is(err, snapshot.ErrUsage), errors.Is(err, snapshot.ErrWrongCluster), errors.Is(err, snapshot.ErrNotEmpty),
		errors.Is(err, schedule.ErrNotOurs), errors.Is(err, alert.ErrUsage), errors.Is(err, retention.ErrFigures):
		return exitUsage
	case errors.Is(err, changelog.ErrNotRetained):
		return exitNotRetained
	case errors.Is(err, changelog.ErrFenced):
		return exitFenced
	case errors.Is(err, changelog.ErrHole), errors.Is(err, chaindata.ErrHole):
		return exitHole
	case errors.Is(err, changelog.ErrCorrupt), errors.Is(err, changelog.ErrBadFrame), errors.Is(err, changelog.ErrFutureVersion),
		errors.Is(err, changelog.ErrTimelineMismatch), errors.Is(err, replica.ErrDiverged),
		errors.Is(err, chaindata.ErrCorruptJournal), errors.Is(err, chaindata.ErrBehind), errors.Is(err, changelog.ErrTruncated),
		errors.Is(err, snapshot.ErrCorrupt):
		return exitDivergence
	case errors.Is(err, chaindata.ErrUnsupportedSource):
		return exitSource
	case errors.As(err, &geth):
		return geth.Code
	default:
		return exitFailure
	}
}

// isSilent tells errors that need no line of ours because geth has already said why it ended.
func isSilent(err error) bool {
	var geth *master.GethExitError
	return errors.As(err, &geth)
}

// oneLine folds an error into one line, since that is what people grep for and what service managers show.
func oneLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}
