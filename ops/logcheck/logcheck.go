// Package logcheck tells an operator whether Kafka, the topic and the user's rights fit a change log: a row for each thing
// that is looked at, what it is, what it should be, and the command that changes it. It writes nothing to Kafka.
package logcheck

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/drover-io/drover/changelog"
)

// ErrFailed means that at least one check failed. Exit code 1.
var ErrFailed = errors.New("the change log does not fit")

// Log is what the checks need of a change log; *changelog.Log has it.
type Log interface {
	Topic() string
	Brokers() []string
	// Describe returns what the user may not see as empty parts.
	Describe(ctx context.Context) (changelog.Description, error)
	// Reach asks one broker by its own address, and returns how long the answer took.
	Reach(ctx context.Context, addr string) (time.Duration, error)
	Bounds(ctx context.Context) (first, next int64, err error)
	Tail(ctx context.Context) (changelog.Tail, error)
}

// Result of a check.
type Result string

// The results. A warning is something that works but promises less.
const (
	OK   Result = "ok"
	Warn Result = "warn"
	Fail Result = "FAIL"
)

// Row is one check.
type Row struct {
	Check  string `json:"check"`
	Have   string `json:"have"`
	Want   string `json:"want"`
	Result Result `json:"result"`
	// Fix is a command, or what to do; empty when nothing is.
	Fix string `json:"fix,omitempty"`
}

// Options of a Checker.
type Options struct {
	Log Log
	// Retention that the topic should have at least; default changelog.DefaultRetention; below 0: for ever.
	Retention time.Duration
	// Timeout of each question; default 10 s.
	Timeout time.Duration
	JSON    bool // an array of rows instead of a table
	Out     io.Writer
}

// Checker looks at one change log.
type Checker struct{ o Options }

// New returns a Checker.
func New(o Options) *Checker {
	if o.Retention == 0 {
		o.Retention = changelog.DefaultRetention
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	return &Checker{o: o}
}

// Run checks and prints. It returns [ErrFailed] when a check fails, or why it could not check at all.
func (c *Checker) Run(ctx context.Context) error {
	rows, err := c.Rows(ctx)
	if err != nil {
		return err
	}
	if err := c.print(rows); err != nil {
		return err
	}
	failed := 0
	for _, r := range rows {
		if r.Result == Fail {
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%w: %d of %d checks failed", ErrFailed, failed, len(rows))
	}
	return nil
}

func (c *Checker) print(rows []Row) error {
	if c.o.JSON {
		encoder := json.NewEncoder(c.o.Out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(rows)
	}
	w := tabwriter.NewWriter(c.o.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "RESULT\tCHECK\tHAVE\tWANT")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.Result, r.Check, r.Have, r.Want)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	// Below the table: a command is longer than a row should be, and is copied whole.
	for _, r := range rows {
		if r.Fix == "" {
			continue
		}
		if _, err := fmt.Fprintf(c.o.Out, "\n%s %s: %s\n", r.Result, r.Check, r.Fix); err != nil {
			return err
		}
	}
	return nil
}

// Rows checks.
func (c *Checker) Rows(ctx context.Context) ([]Row, error) {
	asked, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	d, err := c.o.Log.Describe(asked)
	if err != nil {
		return nil, err
	}
	t := table{c: c, d: d}
	t.brokers(ctx)
	t.protocol()
	if t.topic() {
		t.partition()
		t.settings()
		t.content(ctx)
	}
	t.rights()
	return t.rows, nil
}
