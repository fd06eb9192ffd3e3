// Command bench measures what Drover costs, against things measured beside it in
// the same run: capture against a bare `geth import`, applying against a bare
// goleveldb, catching up against executing; and the lag of a replica and the
// memory of both roles. DESIGN.md says how.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/drover-io/drover/e2e/harness"
)

func main() {
	if len(os.Args) == 4 && os.Args[1] == bareCommand {
		if err := applyBare(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// figures are what can be measured, in the order in which it is.
var figures = []struct {
	name    string
	measure func(*bench, context.Context) error
}{
	{"import", (*bench).measureImport},
}

func run(ctx context.Context, args []string) error {
	b := &bench{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&b.geth, "geth", "", "geth binary (default: as the tests find it)")
	flags.StringVar(&b.drover, "drover", "", "drover binary, built without the race detector (default: built now)")
	flags.StringVar(&b.dir, "dir", "", "directory for chains and datadirs; chains are kept there (default: a temporary one)")
	flags.IntVar(&b.runs, "runs", 5, "runs of each measurement")
	flags.IntVar(&b.blocks, "blocks", 1500, "blocks of the chain")
	flags.IntVar(&b.txs, "txs", 200, "transactions in each block")
	flags.DurationVar(&b.lagFor, "lag-for", time.Minute, "time of one run of the lag measurement")
	flags.IntVar(&b.rate, "rate", 200, "transactions a second while lag is measured")
	only := flags.String("only", "", "comma-separated figures to measure: import, lag, memory (default: all)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := b.locate(); err != nil {
		return err
	}
	defer harness.Cleanup()
	if b.dir == "" {
		dir, err := os.MkdirTemp("", "drover-bench-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		b.dir = dir
	}
	if err := b.prepare(); err != nil {
		return err
	}
	var failed []error
	for _, figure := range figures {
		if *only != "" && !strings.Contains(","+*only+",", ","+figure.name+",") {
			continue
		}
		if err := figure.measure(b, ctx); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", figure.name, err))
		}
	}
	b.report()
	return errors.Join(failed...)
}

func (b *bench) locate() (err error) {
	if b.geth == "" {
		if b.geth, err = harness.GethPath(); err != nil {
			return err
		}
	}
	if b.drover == "" {
		b.drover, err = harness.DroverPath()
	}
	return err
}

// result is a line of the report.
type result struct {
	name   string
	value  string
	target string // empty: for information
	met    bool
}

func (b *bench) add(name, value, target string, met bool) {
	b.results = append(b.results, result{name, value, target, met})
	progressf("%s: %s", name, value)
}

func (b *bench) report() {
	fmt.Printf("\n%d blocks with %d transactions each; %d cores, load %s; geth %s; %s\n\n",
		b.blocks, b.txs, runtime.NumCPU(), load(), harness.GethVersion, runtime.Version())
	for _, r := range b.results {
		verdict := ""
		if r.target != "" {
			verdict = "target " + r.target + ": missed"
			if r.met {
				verdict = "target " + r.target + ": met"
			}
		}
		fmt.Printf("%-46s %-58s %s\n", r.name, r.value, verdict)
	}
}

func load() string {
	content, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(content))[:3], " ")
}

func progressf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}
