package main

import (
	"log/slog"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/urfave/cli/v2"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/ops/logcheck"
	"github.com/drover-io/drover/ops/loginspect"
)

func logCommand() *cli.Command {
	return &cli.Command{
		Name:        "log",
		Usage:       "look into a change log",
		Subcommands: []*cli.Command{logInspectCommand(), logCheckCommand()},
	}
}

func logInspectCommand() *cli.Command {
	flags := append(commonFlags(), kafkaFlags()...)
	return &cli.Command{
		Name:  "inspect",
		Usage: "frames of a change log, as a person can read them",
		Description: "Shows the last frames, or those from an offset, a sequence or a block number on. CONTENT counts the keys of a\n" +
			"batch by geth's schema; the keys of a batch that was cut in parts stand beside its last part.",
		Flags: append(flags,
			int64Flag("offset", 0, "start at this Kafka offset"),
			uint64Flag("sequence", 0, "start at the frame that carries this sequence"),
			uint64Flag("timeline", 0, "timeline of --sequence (default: the newest)"),
			uint64Flag("block", 0, "start where this block became canonical"),
			int64Flag("limit", 20, "show at most this many frames; 0 shows all"),
			boolFlag("json", "an object for each frame, one on a line"),
		),
		Action: func(c *cli.Context) error {
			if err := required(c, "cluster", "kafka.brokers"); err != nil {
				return err
			}
			log, err := openLog(c, "drover-log-inspect")
			if err != nil {
				return err
			}
			defer log.Close()
			inspector, err := loginspect.New(loginspect.Options{
				Log: log, Offset: given[int64](c, "offset"), Sequence: given[uint64](c, "sequence"), Block: given[uint64](c, "block"),
				Timeline: c.Uint64("timeline"), Limit: c.Int64("limit"), JSON: c.Bool("json"), Out: os.Stdout,
			})
			if err != nil {
				return usageError(err)
			}
			return inspector.Run(c.Context)
		},
	}
}

func logCheckCommand() *cli.Command {
	flags := append(commonFlags(), kafkaFlags()...)
	return &cli.Command{
		Name:  "check",
		Usage: "whether brokers, topic and rights fit a change log",
		Description: "A row for each thing that matters: what it is, what it should be, and below the table the command that changes it.\n" +
			"Writes nothing. Ends with 0 when nothing fails (warnings may stand), 1 when something does, 2 on wrong use.",
		Flags: append(flags,
			durationFlag("kafka.retention", changelog.DefaultRetention, "retention that the topic should have at least"),
			boolFlag("json", "an array of rows instead of the table"),
		),
		Action: func(c *cli.Context) error {
			if err := required(c, "cluster", "kafka.brokers"); err != nil {
				return err
			}
			log, err := openLog(c, "drover-log-check")
			if err != nil {
				return err
			}
			defer log.Close()
			return logcheck.New(logcheck.Options{
				Log: log, Retention: c.Duration("kafka.retention"), JSON: c.Bool("json"), Out: os.Stdout,
			}).Run(c.Context)
		},
	}
}

// openLog opens the change log that kafkaFlags name.
func openLog(c *cli.Context, clientID string) (*changelog.Log, error) {
	logger, err := newLogger(c)
	if err != nil {
		return nil, err
	}
	return openRoleLog(c, clientID, nil, logger)
}

// openRoleLog opens the change log for a long-running role, whose registry gets its metrics.
func openRoleLog(c *cli.Context, clientID string, registry prometheus.Registerer, logger *slog.Logger) (*changelog.Log, error) {
	kafka, err := kafkaOptions(c)
	if err != nil {
		return nil, err
	}
	kafka.ClientID, kafka.Logger, kafka.Registerer = clientID, logger, registry
	return changelog.Open(c.Context, kafka)
}

// given returns the value of a flag that was set, nil otherwise, where zero is a value too.
func given[T any](c *cli.Context, name string) *T {
	if !c.IsSet(name) {
		return nil
	}
	value := c.Value(name).(T)
	return &value
}
