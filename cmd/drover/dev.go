package main

import (
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/drover-io/drover/ops/devcluster"
)

func devCommand() *cli.Command {
	return &cli.Command{
		Name:  "dev",
		Usage: "a whole cluster on this machine: embedded broker, dev-chain geth as master, two replicas",
		Description: "Starts everything from one directory, prints a line each second, and ends all of it on Ctrl-C.\n" +
			"Started again it goes on from its data.",
		Flags: append(commonFlags(),
			stringFlag("datadir", "drover-dev", "directory for all data and logs"),
			boolFlag("fresh", "remove the data of an earlier run first"),
			stringFlag("geth", "geth", "geth binary to run"),
			intFlag("replicas", 2, "number of replicas"),
			durationFlag("period", time.Second, "time between blocks, whole seconds"),
			intFlag("http.port", 8545, "RPC port of the first replica; the next ones take the ports above"),
			boolFlag("quiet", "send no example transactions"),
		),
		Action: func(c *cli.Context) error {
			logger, err := newLogger(c)
			if err != nil {
				return err
			}
			self, err := os.Executable()
			if err != nil {
				return err
			}
			geth, err := exec.LookPath(c.String("geth"))
			if err != nil {
				return usageError(fmt.Errorf("--geth: %w (in a checkout `make geth` builds one)", err))
			}
			cluster, err := devcluster.New(devcluster.Options{
				Drover: self, Geth: geth, DataDir: c.String("datadir"), Fresh: c.Bool("fresh"), Replicas: c.Int("replicas"),
				Period: c.Duration("period"), Port: c.Int("http.port"), Quiet: c.Bool("quiet"), Out: os.Stdout, Logger: logger,
			})
			if err != nil {
				return err
			}
			return cluster.Run(c.Context)
		},
	}
}
