package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWrongKafkaConfigurationEndsWithTwo: before anything is connected to, for each command that talks to Kafka.
func TestWrongKafkaConfigurationEndsWithTwo(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	common := []string{"--cluster", "a", "--kafka.brokers", "127.0.0.1:1"}
	commands := [][]string{
		{"master", "--datadir", t.TempDir(), "--attach"},
		{"replica", "--datadir", t.TempDir()},
		{"log", "inspect"},
		{"log", "check"},
	}
	for _, wrong := range [][]string{
		{"--kafka.tls", "--kafka.tls.ca", "/nonexistent/ca.pem"},
		{"--kafka.tls.ca", "ca.pem"},
		{"--kafka.tls", "--kafka.tls.cert", "client.pem"},
		{"--kafka.sasl.mechanism", "GSSAPI", "--kafka.sasl.user", "u"},
		{"--kafka.sasl.mechanism", "PLAIN", "--kafka.sasl.user", "u"},
		{"--kafka.sasl.mechanism", "PLAIN", "--kafka.sasl.user", "u", "--kafka.sasl.password-file", empty},
		{"--kafka.sasl.mechanism", "AWS_MSK_IAM"},
		{"--kafka.sasl.password", "secret"}, // there is no such flag
	} {
		for _, command := range commands {
			args := append(append(append([]string{"drover"}, command...), common...), wrong...)
			if got := run(args); got != exitUsage {
				t.Errorf("%s: exit code %d, want %d", strings.Join(args[1:], " "), got, exitUsage)
			}
		}
	}
}

func TestThePasswordComesFromTheEnvironment(t *testing.T) {
	t.Setenv(passwordEnv, "secret")
	// It is taken: what fails now is the connection, not the configuration.
	args := []string{"drover", "log", "check", "--cluster", "a", "--kafka.brokers", "127.0.0.1:1", "--kafka.sasl.mechanism", "PLAIN", "--kafka.sasl.user", "u"}
	if got := run(args); got != exitFailure {
		t.Errorf("exit code %d, want %d", got, exitFailure)
	}
}
