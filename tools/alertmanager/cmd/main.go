// Command alertmanager runs a Prometheus Alertmanager for a person, on 127.0.0.1, until Ctrl-C.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	localalertmanager "github.com/drover-io/drover/tools/alertmanager"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "alertmanager:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	install := flag.Bool("install", false, "only get it, then end")
	port := flag.Int("port", 9093, "port (0: a free one)")
	flag.Parse()
	if *install {
		_, err := localalertmanager.Install(ctx)
		return err
	}
	a, err := localalertmanager.Start(ctx, localalertmanager.Options{Port: *port})
	if err != nil {
		return err
	}
	defer a.Close()
	fmt.Printf("Alertmanager serves at %s (pid %d); its receiver is nobody\n\nCtrl-C ends it.\n", a.URL(), a.PID())
	select {
	case <-ctx.Done():
		return nil
	case <-a.Exited():
		return fmt.Errorf("it ended; its log is %s", a.LogFile())
	}
}
