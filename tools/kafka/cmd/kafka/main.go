// Command kafka runs a real Apache Kafka for a person: one broker or three on 127.0.0.1, until Ctrl-C.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	localkafka "github.com/drover-io/drover/tools/kafka"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, stop, os.Args[1:], os.Stdout)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "kafka:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("wrong use")

// run ends in order when ctx does; it calls stop then, so that a second Ctrl-C ends the program at once.
func run(ctx context.Context, stop func(), args []string, out io.Writer) error {
	flags := flag.NewFlagSet("kafka", flag.ContinueOnError)
	three := flags.Bool("three", false, "three brokers instead of one")
	dir := flags.String("dir", "", "keep data and logs here, for the next run too (default: a temporary directory, removed at the end)")
	port := flags.Int("port", 9092, "port of the first broker; the others follow (0: free ports)")
	secure := flags.Bool("secure", false, "TLS, mutual TLS and SASL (PLAIN, SCRAM) listeners as well")
	install := flags.Bool("install", false, "only get Apache Kafka, then end")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "kafka: unknown argument %q\n", flags.Arg(0))
		return errUsage
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if *install {
		return localkafka.Install(ctx, "", logger)
	}
	opts := localkafka.Options{Brokers: 1, Dir: *dir, FirstPort: *port, Logger: logger, HeapMB: 512}
	if *three {
		opts.Brokers = 3
	}
	if *secure {
		opts.Listeners = []localkafka.Listener{localkafka.Plaintext, localkafka.TLS, localkafka.MutualTLS, localkafka.SASLTLS}
	}
	cluster, err := localkafka.New(opts)
	if err != nil {
		return err
	}
	defer cluster.Close()
	begin := time.Now()
	if err := cluster.Start(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	show(out, cluster, opts, time.Since(begin))
	err = wait(ctx, cluster, out)
	stop()
	fmt.Fprintln(out, "stopping")
	return errors.Join(err, cluster.StopAll(context.Background()))
}

func show(out io.Writer, cluster *localkafka.Cluster, opts localkafka.Options, took time.Duration) {
	fmt.Fprintf(out, "Apache Kafka %s is up after %.1f s.\n\n", localkafka.Version, took.Seconds())
	fmt.Fprintf(out, "  brokers   %s\n", strings.Join(cluster.Bootstrap(localkafka.Plaintext), ","))
	if len(opts.Listeners) > 1 {
		files, user := cluster.Files(), cluster.Users()[0]
		fmt.Fprintf(out, "  TLS       %s\n", strings.Join(cluster.Bootstrap(localkafka.TLS), ","))
		fmt.Fprintf(out, "  mutual    %s\n            with %s and %s\n", strings.Join(cluster.Bootstrap(localkafka.MutualTLS), ","), files.ClientCert, files.ClientKey)
		fmt.Fprintf(out, "  SASL      %s\n            as user %s with password %s (PLAIN, SCRAM-SHA-256, SCRAM-SHA-512)\n", strings.Join(cluster.Bootstrap(localkafka.SASLTLS), ","), user.Name, user.Password)
		fmt.Fprintf(out, "  CA        %s\n", files.CA)
	}
	for _, id := range cluster.IDs() {
		fmt.Fprintf(out, "  broker %d  pid %d, data %s, log %s\n", id, cluster.PID(id), cluster.DataDir(id), cluster.LogFile(id))
	}
	kept := "removed at the end"
	if opts.Dir != "" {
		kept = "kept for the next run"
	}
	fmt.Fprintf(out, "\nCtrl-C ends it; the data is %s.\n", kept)
}

// wait ends with ctx, and says when a broker ends by itself (which a person may have wanted: kill is part of the game).
func wait(ctx context.Context, cluster *localkafka.Cluster, out io.Writer) error {
	up := make(map[int]bool)
	for _, id := range cluster.IDs() {
		up[id] = true
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		running := 0
		for _, id := range cluster.IDs() {
			if now := cluster.Running(id); now {
				running++
			} else if up[id] {
				up[id] = false
				fmt.Fprintf(out, "broker %d has ended; its log is %s\n", id, cluster.LogFile(id))
			}
		}
		if running == 0 {
			return errors.New("no broker is left")
		}
	}
}
