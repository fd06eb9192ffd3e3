package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"strings"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"
)

// loadConfigFile gives each flag that neither the command line nor the environment set its value from the file named
// by --config. A key is a flag's name, written whole (`kafka.brokers: …`) or nested (`kafka: {brokers: …}`); a key that the
// command has no flag for is an error, since a misspelt setting that is silently ignored is found at three in the morning.
func loadConfigFile(c *cli.Context) error {
	path := c.String("config")
	if path == "" {
		return nil
	}
	values, err := readConfig(path)
	if err != nil {
		return usageError(err)
	}
	known := flagNames(c.Command)
	for _, key := range sortedKeys(values) {
		if !slices.Contains(known, key) || key == "config" {
			return usageError(fmt.Errorf("%s: unknown key %q for `%s`; its keys are the names of its flags", path, key, c.Command.HelpName))
		}
		if c.IsSet(key) {
			continue
		}
		if err := c.Set(key, values[key]); err != nil {
			return usageError(fmt.Errorf("%s: key %q: %w", path, key, err))
		}
	}
	return nil
}

// readConfig reads a YAML file into flag names and values.
func readConfig(path string) (map[string]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("--config: %w", err)
	}
	defer file.Close()
	var tree map[string]any
	if err := yaml.NewDecoder(file).Decode(&tree); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	values := make(map[string]string)
	if err := flatten("", tree, values); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return values, nil
}

func flatten(prefix string, tree map[string]any, into map[string]string) error {
	for key, value := range tree {
		name := prefix + key
		var text string
		switch value := value.(type) {
		case map[string]any:
			if err := flatten(name+".", value, into); err != nil {
				return err
			}
			continue
		case []any:
			items := make([]string, len(value))
			for i, item := range value {
				items[i] = fmt.Sprint(item)
			}
			text = strings.Join(items, ",")
		case nil:
			return fmt.Errorf("key %q has no value", name)
		default:
			text = fmt.Sprint(value)
		}
		if _, twice := into[name]; twice {
			return fmt.Errorf("key %q is given twice", name)
		}
		into[name] = text
	}
	return nil
}

func flagNames(command *cli.Command) []string {
	var names []string
	for _, flag := range command.Flags {
		names = append(names, flag.Names()...)
	}
	return names
}

func sortedKeys(values map[string]string) []string {
	keys := make([]string, 0, len(values))
	for key := range values {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}
