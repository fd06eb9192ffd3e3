package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

// setHelp gives help texts their form. It is said here in full because a package of go-ethereum, linked in with the
// replica, sets urfave/cli's global templates to geth's own.
func setHelp() {
	cli.FlagStringer = flagText
	cli.AppHelpTemplate = `{{.Name}} - {{.Usage}}

Usage:
  {{.Name}} COMMAND [flags]

Commands:{{range .VisibleCommands}}
  {{.Name}}{{"\t"}}{{.Usage}}{{end}}

` + "`{{.Name}} COMMAND --help` lists a command's flags. Version {{.Version}}.\n"
	cli.CommandHelpTemplate = `{{.HelpName}} - {{.Usage}}

Usage:
  {{.HelpName}}{{if .VisibleCommands}} COMMAND{{end}} [flags]{{if .ArgsUsage}} {{.ArgsUsage}}{{end}}
{{if .Description}}
{{.Description}}
{{end}}{{if .VisibleCommands}}
Commands:{{range .VisibleCommands}}
  {{.Name}}{{"\t"}}{{.Usage}}{{end}}
{{else}}
Flags (each is also a key in the file named by --config, and an environment variable: --kafka.brokers is DROVER_KAFKA_BROKERS):{{range .VisibleFlags}}
  {{.}}{{end}}
{{end}}`
	cli.SubcommandHelpTemplate = cli.CommandHelpTemplate
}

// flagText is a flag's line: name, a column, usage and default.
func flagText(f cli.Flag) string {
	doc, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return ""
	}
	name := "--" + f.Names()[0]
	if doc.TakesValue() {
		name += " " + strings.ToUpper(valueName(f))
	}
	text := doc.GetUsage()
	if value := strings.Trim(doc.GetDefaultText(), `"`); doc.TakesValue() && value != "" {
		text += fmt.Sprintf(" (default: %s)", value)
	}
	return name + "\t" + text
}

// valueName says what kind of value a flag takes.
func valueName(f cli.Flag) string {
	switch f.(type) {
	case *cli.IntFlag, *cli.Int64Flag, *cli.Uint64Flag:
		return "n"
	case *cli.DurationFlag:
		return "time"
	default:
		return "text"
	}
}
