package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

var update = flag.Bool("update", false, "write docs/commands.md anew")

const commandsDoc = "../../docs/commands.md"

// TestCommandsDocMatchesTheBinary keeps docs/commands.md in step with the flags: `go test ./cmd/drover -run Doc -update` writes it.
func TestCommandsDocMatchesTheBinary(t *testing.T) {
	want := renderCommands(newApp())
	if *update {
		if err := os.WriteFile(commandsDoc, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(commandsDoc)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/commands.md is not what the binary has: run `go test ./cmd/drover -run Doc -update`")
	}
}

func renderCommands(app *cli.App) []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "# Commands\n\nGenerated from the binary. Each flag has an environment variable and a key of its own name in the YAML file named by\n"+
		"`--config`; the command line wins over the environment, and that over the file. An unknown key is an error.\n")
	for _, command := range app.Commands {
		renderCommand(&out, "drover", command)
	}
	return out.Bytes()
}

func renderCommand(out *bytes.Buffer, prefix string, command *cli.Command) {
	name := prefix + " " + command.Name
	if len(command.Subcommands) > 0 {
		for _, sub := range command.Subcommands {
			renderCommand(out, name, sub)
		}
		return
	}
	fmt.Fprintf(out, "\n## %s\n\n%s.\n", strings.TrimSpace(name+" "+command.ArgsUsage), strings.ToUpper(command.Usage[:1])+command.Usage[1:])
	if command.Description != "" {
		fmt.Fprintf(out, "\n%s\n", command.Description)
	}
	fmt.Fprintf(out, "\n| flag | default | what | environment |\n|---|---|---|---|\n")
	for _, f := range command.Flags {
		doc := f.(cli.DocGenerationFlag)
		value := doc.GetDefaultText()
		if !doc.TakesValue() {
			value = ""
		}
		value = strings.Trim(value, `"`)
		if value != "" {
			value = "`" + value + "`"
		}
		fmt.Fprintf(out, "| `--%s` | %s | %s | `%s` |\n", f.Names()[0], value, doc.GetUsage(), strings.Join(doc.GetEnvVars(), " "))
	}
}

func TestEveryFlagHasAnEnvironmentVariable(t *testing.T) {
	var visit func(commands []*cli.Command)
	visit = func(commands []*cli.Command) {
		for _, command := range commands {
			visit(command.Subcommands)
			for _, f := range command.Flags {
				doc := f.(cli.DocGenerationFlag)
				if env := doc.GetEnvVars(); len(env) != 1 || env[0] != envName(f.Names()[0]) {
					t.Errorf("drover %s --%s: environment %v", command.Name, f.Names()[0], env)
				}
				if doc.GetUsage() == "" {
					t.Errorf("drover %s --%s has no usage text", command.Name, f.Names()[0])
				}
			}
		}
	}
	visit(newApp().Commands)
}

// TestFaultsDocNamesTestsThatExist keeps docs/faults.md honest: every `package.TestName` in it is a test of that package.
func TestFaultsDocNamesTestsThatExist(t *testing.T) {
	text, err := os.ReadFile("../../docs/faults.md")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("`([a-z0-9/]+)\\.(Test[A-Za-z0-9]+)`").FindAllStringSubmatch(string(text), -1)
	if len(names) < 20 {
		t.Fatalf("only %d tests are named", len(names))
	}
	for _, name := range names {
		files, err := filepath.Glob(filepath.Join("../..", name[1], "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			found = found || bytes.Contains(source, []byte("func "+name[2]+"("))
		}
		if !found {
			t.Errorf("docs/faults.md names %s in %s, which is no test there", name[2], name[1])
		}
	}
}
