// Command moto runs an emulator of AWS for a person, on 127.0.0.1, until Ctrl-C.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	localmoto "github.com/drover-io/drover/tools/moto"
	localserver "github.com/drover-io/drover/tools/server"
)

func main() { os.Exit(localserver.Main("moto", run)) }

func run(ctx context.Context) error {
	install := flag.Bool("install", false, "only get it, then end")
	port := flag.Int("port", 5000, "port (0: a free one)")
	flag.Parse()
	if *install {
		_, err := localmoto.Install(ctx)
		return err
	}
	s, err := localmoto.Start(ctx, localmoto.Options{Port: *port})
	if err != nil {
		return err
	}
	defer s.Close()
	fmt.Printf("moto serves AWS at %s (pid %d), in memory\n\n  export AWS_ENDPOINT_URL=%s AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY=any AWS_REGION=us-east-1\n",
		s.URL(), s.PID(), s.URL())
	return s.Serve(ctx)
}
