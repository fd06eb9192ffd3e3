// Command drover makes geth nodes replaceable: it streams what a stock geth writes through Kafka to replicas that serve
// geth's JSON-RPC. This package holds flags and wiring, a file for each subcommand; the work is done by the packages
// that it imports.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"
)

// version is set by the build (-ldflags "-X main.version=…").
var version = "dev"

func main() {
	os.Exit(run(os.Args))
}

// run executes one command line and returns its exit code.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		// The first signal asks for an orderly end. From then on the default action is back, so that a second one forces it.
		<-ctx.Done()
		stop()
	}()

	err := newApp().RunContext(ctx, args)
	if err == nil || errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return exitDone
	}
	code := exitCode(err)
	if !isSilent(err) {
		fmt.Fprintf(os.Stderr, "drover: %s\n", oneLine(err))
	}
	return code
}

func newApp() *cli.App {
	setHelp()
	app := &cli.App{
		Name:                 "drover",
		Usage:                "replaceable geth nodes: stream a stock geth's writes through Kafka to replicas that serve its JSON-RPC",
		Version:              version,
		EnableBashCompletion: true,
		Commands: []*cli.Command{
			devCommand(),
			brokerCommand(),
			masterCommand(),
			replicaCommand(),
			snapshotCommand(),
			logCommand(),
			opsCommand(),
		},
		Action:          unknownCommand,
		OnUsageError:    onUsageError,
		ExitErrHandler:  func(*cli.Context, error) {}, // only main exits
		HideHelpCommand: true,
	}
	for _, command := range app.Commands {
		prepare(command)
	}
	return app
}

// prepare gives a command and its subcommands what all of them share: usage errors as errors, and the configuration file.
func prepare(command *cli.Command) {
	command.OnUsageError = onUsageError
	command.HideHelpCommand = true
	if len(command.Subcommands) > 0 {
		command.Action = unknownCommand
		for _, sub := range command.Subcommands {
			prepare(sub)
		}
		return
	}
	command.Before = loadConfigFile
}

// unknownCommand is the action of a command that only has subcommands.
func unknownCommand(c *cli.Context) error {
	if c.Args().Present() {
		return usageError(fmt.Errorf("unknown command %q; `%s --help` lists the commands", c.Args().First(), c.App.Name))
	}
	return cli.ShowSubcommandHelp(c)
}

func onUsageError(c *cli.Context, err error, _ bool) error {
	name := c.App.Name
	if c.Command != nil && c.Command.Name != "" && c.Command.Name != name {
		name += " " + c.Command.Name
	}
	return usageError(fmt.Errorf("%w; `%s --help` lists the flags", err, name))
}
