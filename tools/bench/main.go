// Command bench measures Drover's figures, each side by side with what it is compared to, in one run. It starts geth,
// drover and brokers of its own as processes, and ends them: the embedded broker, or with --kafka three brokers of Apache
// Kafka, which have figures of their own. docs/benchmarks.md says what is inside each figure and holds measured ones.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp), errors.Is(err, errUsage):
		if errors.Is(err, errUsage) {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("wrong use")

// names are the figures in the order in which they are measured; kafkaNames those of --kafka.
var (
	names      = []string{"capture", "spare", "catchup", "apply", "lag", "memory", "snapshot", "growth", "boot"}
	kafkaNames = []string{"stages", "wire", "latency", "promotion"}
)

type settings struct {
	geth, drover string
	chain        string // directory of genesis.json and chain.rlp; empty: generated
	blocks, txs  int
	runs         int
	heads        int // of the lag figure, in each run
	only         []string
	json, quick  bool
	keep         bool
	scratch      string
	pause        time.Duration // of the broker, in the memory figure
	kafka        bool          // three brokers of Apache Kafka, and its figures
	promotions   int
	gigabytes    float64 // of the snapshot figure's database
}

func parse(args []string, log io.Writer) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(log)
	flags.StringVar(&s.geth, "geth", "", "geth binary (default: DROVER_TEST_GETH, or what `make geth` built)")
	flags.StringVar(&s.drover, "drover", "", "drover binary (default: DROVER_TEST_BIN, or built now)")
	flags.StringVar(&s.chain, "chain", "", "directory made by tools/chaingen (default: generated with seed 1)")
	flags.IntVar(&s.blocks, "blocks", 1500, "blocks of the generated chain")
	flags.IntVar(&s.txs, "txs", 200, "transactions in each block of the generated chain")
	flags.IntVar(&s.runs, "runs", 5, "runs of each figure")
	flags.IntVar(&s.heads, "heads", 120, "heads in each run of the lag figure, one a second")
	only := flags.String("only", "", "figures to measure, comma separated: "+strings.Join(names, ", ")+"; with --kafka: "+strings.Join(kafkaNames, ", "))
	flags.BoolVar(&s.kafka, "kafka", false, "the figures of the change log on three brokers of Apache Kafka, with 500 blocks and 60 heads in a run unless told otherwise")
	flags.IntVar(&s.promotions, "promotions", 10, "promotions of the promotion figure")
	flags.Float64Var(&s.gigabytes, "gb", 10, "size of the snapshot figure's database; three times as much more is needed below --scratch")
	flags.BoolVar(&s.json, "json", false, "results as JSON on standard output, tables on standard error")
	flags.BoolVar(&s.quick, "quick", false, "a small chain and few runs, to see that everything works; the figures mean little")
	flags.StringVar(&s.scratch, "scratch", "", "directory for databases (default: the system's temporary directory)")
	flags.DurationVar(&s.pause, "pause", 20*time.Second, "how long the broker does not answer in the memory figure")
	flags.BoolVar(&s.keep, "keep", false, "leave databases and logs where they are")
	if err := flags.Parse(args); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			err = fmt.Errorf("%w: %w", errUsage, err)
		}
		return s, err
	}
	smaller := make(map[string]func())
	if s.kafka {
		smaller["blocks"], smaller["heads"] = func() { s.blocks = 500 }, func() { s.heads = 60 }
	}
	if s.quick {
		smaller["blocks"], smaller["runs"] = func() { s.blocks = 150 }, func() { s.runs = 2 }
		smaller["gb"] = func() { s.gigabytes = 0.5 }
		smaller["heads"], smaller["promotions"] = func() { s.heads = 30 }, func() { s.promotions = 2 }
	}
	flags.Visit(func(f *flag.Flag) { delete(smaller, f.Name) })
	for _, set := range smaller {
		set()
	}
	known := names
	if s.kafka {
		known = kafkaNames
	}
	s.only = known
	if *only != "" {
		s.only = strings.Split(*only, ",")
	}
	for _, name := range s.only {
		if !slices.Contains(known, name) {
			return s, fmt.Errorf("%w: --only %s: there are %s (with --kafka: %s)", errUsage, name, strings.Join(names, ", "), strings.Join(kafkaNames, ", "))
		}
	}
	if flags.NArg() > 0 || s.runs < 1 || s.heads < 1 || s.blocks < 1 || s.promotions < 1 || s.gigabytes <= 0 {
		return s, fmt.Errorf("%w: --runs, --heads, --blocks and --promotions are at least 1, --gb more than 0, and there are no arguments", errUsage)
	}
	return s, nil
}

func (s settings) wants(name string) bool { return slices.Contains(s.only, name) }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	s, err := parse(args, stderr)
	if err != nil {
		return err
	}
	b, err := newBench(ctx, s, stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	tables := stdout
	if s.json {
		tables = stderr
	}
	r := report{Machine: machine(), Settings: b.describe()}
	fmt.Fprintf(tables, "%s\n%s\n", r.Machine, r.Settings)
	failed := r.measure(ctx, b, tables)
	if s.json {
		failed = errors.Join(failed, r.writeJSON(stdout))
	}
	return failed
}

func (b *bench) measures() []func(context.Context) ([]*figure, error) {
	if b.kafka {
		return []func(context.Context) ([]*figure, error){b.onTape, b.latency, b.promotion}
	}
	return []func(context.Context) ([]*figure, error){b.rounds, b.spare, b.lag, b.memory, b.snapshots, b.boots}
}

// measure goes on with the next figures when one fails.
func (r *report) measure(ctx context.Context, b *bench, tables io.Writer) error {
	var failed []error
	var machine others
	for _, measure := range b.measures() {
		machine.share() // from here on
		figures, err := measure(ctx)
		if ctx.Err() != nil {
			return errors.Join(append(failed, errors.New("interrupted"))...)
		}
		if err != nil {
			failed = append(failed, err)
			r.Failures = append(r.Failures, err.Error())
			b.say("failed: %v", err)
		}
		figures = slices.DeleteFunc(figures, func(f *figure) bool { return len(f.Series) == 0 })
		share := machine.share()
		for _, f := range figures { // with an error: the runs before it
			f.Others = share
			f.finish()
			f.print(tables)
		}
		r.Figures = append(r.Figures, figures...)
	}
	return errors.Join(failed...)
}
