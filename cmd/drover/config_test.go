package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"
)

// configApp is an app with one command that records what its flags came to.
func configApp(got map[string]any) *cli.App {
	command := &cli.Command{
		Name: "role",
		Flags: append(commonFlags(),
			stringFlag("cluster", "", ""),
			listFlag("kafka.brokers", "", ""),
			boolFlag("http", ""),
			intFlag("http.port", 8545, ""),
			durationFlag("ready.max-age", time.Minute, ""),
		),
		Action: func(c *cli.Context) error {
			for _, name := range []string{"cluster", "kafka.brokers", "http", "http.port", "ready.max-age"} {
				got[name] = c.Value(name)
			}
			return nil
		},
	}
	prepare(command)
	return &cli.App{Name: "drover", Commands: []*cli.Command{command}, ExitErrHandler: func(*cli.Context, error) {}}
}

func runConfig(t *testing.T, args ...string) (map[string]any, error) {
	t.Helper()
	got := map[string]any{}
	err := configApp(got).Run(append([]string{"drover", "role"}, args...))
	return got, err
}

func TestConfigFileGivesFlagsTheirValues(t *testing.T) {
	for _, file := range []string{"good-flat.yaml", "good-nested.yaml"} {
		got, err := runConfig(t, "--config", filepath.Join("testdata", file))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		want := map[string]any{"cluster": "main", "kafka.brokers": "k1:9092,k2:9092", "http": true, "http.port": 9545, "ready.max-age": 90 * time.Second}
		for name, value := range want {
			if got[name] != value {
				t.Errorf("%s: %s is %v, want %v", file, name, got[name], value)
			}
		}
	}
}

func TestFlagsAndEnvironmentWinOverConfigFile(t *testing.T) {
	t.Setenv("DROVER_CLUSTER", "from-environment")
	got, err := runConfig(t, "--config", filepath.Join("testdata", "good-flat.yaml"), "--http.port", "1")
	if err != nil {
		t.Fatal(err)
	}
	if got["cluster"] != "from-environment" || got["http.port"] != 1 {
		t.Errorf("cluster %v, http.port %v", got["cluster"], got["http.port"])
	}
	if got["kafka.brokers"] != "k1:9092,k2:9092" {
		t.Errorf("kafka.brokers %v: the file's value should hold where nobody else gave one", got["kafka.brokers"])
	}
}

func TestBadConfigFilesAreRefusedWithFileAndKey(t *testing.T) {
	files, err := filepath.Glob("testdata/bad-*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("fixtures: %v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		// The first line of a fixture is a comment that says what the message has to contain.
		want := strings.TrimSpace(strings.TrimPrefix(strings.SplitN(string(text), "\n", 2)[0], "#"))
		_, err = runConfig(t, "--config", file)
		if !errors.Is(err, errUsage) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: error %v, want a usage error with the file's name and %q", file, err, want)
		}
	}
}

func TestMissingConfigFileIsAUsageError(t *testing.T) {
	if _, err := runConfig(t, "--config", "testdata/absent.yaml"); !errors.Is(err, errUsage) {
		t.Errorf("error %v", err)
	}
}
