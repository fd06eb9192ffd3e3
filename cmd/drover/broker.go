package main

import (
	"github.com/urfave/cli/v2"

	"github.com/drover-io/drover/changelog/broker"
)

func brokerCommand() *cli.Command {
	return &cli.Command{
		Name:  "broker",
		Usage: "the embedded broker alone: speaks Kafka's protocol, keeps its data on disk, for development",
		Flags: append(commonFlags(),
			stringFlag("listen", "127.0.0.1:9092", "address to listen on"),
			stringFlag("data-dir", "drover-broker", "directory for topics and their data"),
		),
		Action: func(c *cli.Context) error {
			logger, err := newLogger(c)
			if err != nil {
				return err
			}
			b, err := broker.New(broker.Options{Listen: c.String("listen"), DataDir: c.String("data-dir"), Logger: logger})
			if err != nil {
				return err
			}
			logger.Info("broker is up", "addr", b.Addr(), "data", c.String("data-dir"))
			return b.Run(c.Context)
		},
	}
}
