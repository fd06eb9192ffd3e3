// Command versitygw runs an S3 server over a directory for a person, on 127.0.0.1, until Ctrl-C.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	localserver "github.com/drover-io/drover/tools/server"
	localversitygw "github.com/drover-io/drover/tools/versitygw"
)

func main() { os.Exit(localserver.Main("versitygw", run)) }

func run(ctx context.Context) error {
	install := flag.Bool("install", false, "only build it, then end")
	dir := flag.String("dir", "", "keep the buckets here (default: a temporary directory, removed at the end)")
	port := flag.Int("port", 7070, "port (0: a free one)")
	bucket := flag.String("bucket", "drover", "bucket to make if it is not there")
	flag.Parse()
	if *install {
		_, err := localversitygw.Install(ctx)
		return err
	}
	g, err := localversitygw.Start(ctx, localversitygw.Options{Dir: *dir, Port: *port})
	if err != nil {
		return err
	}
	defer g.Close()
	if err := g.MakeBucket(*bucket); err != nil && !os.IsExist(err) {
		return err
	}
	fmt.Printf("versitygw %s serves %s at %s (pid %d)\n\n  export AWS_ACCESS_KEY_ID=%s AWS_SECRET_ACCESS_KEY=%s AWS_REGION=%s\n  store s3://%s, endpoint %s, path style\n",
		localversitygw.Version, g.BucketDir(""), g.URL(), g.PID(), localversitygw.AccessKey, localversitygw.SecretKey, localversitygw.Region, *bucket, g.URL())
	return g.Serve(ctx)
}
