package main

import (
	"errors"
	"fmt"
	"testing"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/master"
	"github.com/drover-io/drover/replica"
)

func TestExitCodesFollowTheContract(t *testing.T) {
	cases := []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("a broker is away"), 1},
		{changelog.ErrBrokersUnreachable, 1},
		{usageError(errors.New("no such flag")), 2},
		{replica.ErrUsage, 2},
		{master.ErrUsage, 2},
		{master.ErrNotOurs, 2},
		{changelog.ErrWrongCluster, 2},
		{&changelog.NotRetainedError{}, 3},
		{changelog.ErrFenced, 4},
		{changelog.ErrCorrupt, 5},
		{replica.ErrDiverged, 5},
		{changelog.ErrTimelineMismatch, 5},
		{&chaindata.CorruptError{}, 5},
		{chaindata.ErrBehind, 5},
		{changelog.ErrTruncated, 5},
		{&chaindata.HoleError{}, 6},
		{&changelog.HoleError{}, 6},
		{chaindata.ErrUnsupportedSource, 7},
		{&master.GethExitError{Code: 42}, 42},
	}
	for _, c := range cases {
		wrapped := c.err
		if wrapped != nil {
			wrapped = fmt.Errorf("while running: %w", c.err)
		}
		if got := exitCode(wrapped); got != c.want {
			t.Errorf("%v: exit code %d, want %d", c.err, got, c.want)
		}
	}
}

func TestErrorsAreOneLine(t *testing.T) {
	if got := oneLine(errors.New("first\n\tsecond  third")); got != "first second third" {
		t.Errorf("%q", got)
	}
}

func TestWrongUseEndsWithTwo(t *testing.T) {
	for _, args := range [][]string{
		{"drover", "nonsense"},
		{"drover", "--nonsense"},
		{"drover", "replica", "--nonsense"},
		{"drover", "replica"},
		{"drover", "log", "nonsense"},
		{"drover", "log", "inspect"},
		{"drover", "master", "--cluster", "a", "--kafka.brokers", "127.0.0.1:1", "--datadir", "d", "--attach", "--", "geth"},
		{"drover", "master", "--cluster", "a", "--kafka.brokers", "127.0.0.1:1", "--datadir", "d"},
		{"drover", "master", "--log.level", "loud", "--cluster", "a", "--kafka.brokers", "127.0.0.1:1", "--datadir", "d"},
		{"drover", "master", "--heartbeat.interval", "soon"},
	} {
		if got := run(args); got != exitUsage {
			t.Errorf("%v: exit code %d, want %d", args[1:], got, exitUsage)
		}
	}
}
