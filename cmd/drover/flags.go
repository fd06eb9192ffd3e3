package main

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/drover-io/drover/changelog"
)

// envName is the environment variable of a flag: --kafka.brokers is DROVER_KAFKA_BROKERS.
func envName(flag string) string {
	return "DROVER_" + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(flag))
}

func stringFlag(name, value, usage string) *cli.StringFlag {
	return &cli.StringFlag{Name: name, Value: value, Usage: usage, EnvVars: []string{envName(name)}}
}

func listFlag(name, value, usage string) *cli.StringFlag {
	return stringFlag(name, value, usage+" (comma separated)")
}

func boolFlag(name, usage string) *cli.BoolFlag {
	return &cli.BoolFlag{Name: name, Usage: usage, EnvVars: []string{envName(name)}}
}

func intFlag(name string, value int, usage string) *cli.IntFlag {
	return &cli.IntFlag{Name: name, Value: value, Usage: usage, EnvVars: []string{envName(name)}}
}

func int64Flag(name string, value int64, usage string) *cli.Int64Flag {
	return &cli.Int64Flag{Name: name, Value: value, Usage: usage, EnvVars: []string{envName(name)}}
}

func uint64Flag(name string, value uint64, usage string) *cli.Uint64Flag {
	return &cli.Uint64Flag{Name: name, Value: value, Usage: usage, EnvVars: []string{envName(name)}}
}

func durationFlag(name string, value time.Duration, usage string) *cli.DurationFlag {
	return &cli.DurationFlag{Name: name, Value: value, Usage: usage, EnvVars: []string{envName(name)}}
}

func float64Flag(name string, value float64, usage string) *cli.Float64Flag {
	return &cli.Float64Flag{Name: name, Value: value, Usage: usage, EnvVars: []string{envName(name)}}
}

// split reads the value of a listFlag.
func split(value string) []string {
	var list []string
	for _, item := range strings.Split(value, ",") {
		if item = strings.TrimSpace(item); item != "" {
			list = append(list, item)
		}
	}
	return list
}

// commonFlags are those of every command.
func commonFlags() []cli.Flag {
	return []cli.Flag{
		stringFlag("config", "", "YAML file with the values of flags, by flag name; flags and environment win over it"),
		stringFlag("log.level", "info", "debug, info, warn or error"),
		stringFlag("log.format", "text", "text or json"),
	}
}

// clusterFlags name a cluster and the Kafka that carries its change log.
func clusterFlags() []cli.Flag {
	return []cli.Flag{
		stringFlag("cluster", "", "name of the cluster: lower-case letters, digits and hyphens"),
		listFlag("kafka.brokers", "", "addresses of Kafka brokers, host:port"),
	}
}

// required fails with one line when one of the named flags has no value.
func required(c *cli.Context, names ...string) error {
	for _, name := range names {
		if c.String(name) == "" {
			return usageError(fmt.Errorf("--%s is missing (flag, environment variable %s, or key in the file named by --config)", name, envName(name)))
		}
		if name == "cluster" {
			if err := changelog.CheckCluster(c.String(name)); err != nil {
				return usageError(fmt.Errorf("--cluster: %w", err))
			}
		}
	}
	return nil
}

// newLogger writes to standard error, since standard output carries results.
func newLogger(c *cli.Context) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.String("log.level"))); err != nil {
		return nil, usageError(fmt.Errorf("--log.level %q: use debug, info, warn or error", c.String("log.level")))
	}
	options := &slog.HandlerOptions{Level: level}
	switch format := c.String("log.format"); format {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, options)), nil
	default:
		return nil, usageError(fmt.Errorf("--log.format %q: use text or json", format))
	}
}
