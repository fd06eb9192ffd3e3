// Command alertmanager runs a Prometheus Alertmanager for a person, on 127.0.0.1, until Ctrl-C.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	localalertmanager "github.com/drover-io/drover/tools/alertmanager"
	localserver "github.com/drover-io/drover/tools/server"
)

func main() { os.Exit(localserver.Main("alertmanager", run)) }

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
	fmt.Printf("Alertmanager serves at %s (pid %d); its receiver is nobody\n", a.URL(), a.PID())
	return a.Serve(ctx)
}
