package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

var pidInLine = regexp.MustCompile(`pid (\d+), data (\S+), log`)

func TestAPersonGetsABrokerThatEndsWithTheProgram(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a real Apache Kafka")
	}
	limit, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	ctx, interrupt := context.WithCancel(limit)
	defer interrupt()
	dir := t.TempDir()
	var printed strings.Builder // read when run has returned
	out, in := io.Pipe()
	stopped := false
	done := make(chan error, 1)
	go func() {
		err := run(ctx, func() { stopped = true }, []string{"-port", "0", "-dir", dir}, in)
		in.CloseWithError(io.EOF)
		done <- err
	}()
	seen := make([]byte, 4096)
	for !strings.Contains(printed.String(), "Ctrl-C") {
		n, err := out.Read(seen)
		printed.Write(seen[:n])
		if err != nil {
			t.Fatalf("it ended with %v and said %q", <-done, printed.String())
		}
	}
	m := pidInLine.FindStringSubmatch(printed.String())
	if m == nil || !strings.Contains(printed.String(), "brokers   127.0.0.1:") {
		t.Fatalf("no broker list or process id in %q", printed.String())
	}
	pid, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("process %d: %v", pid, err)
	}
	interrupt()
	go io.Copy(io.Discard, out)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !stopped {
		t.Error("a second Ctrl-C would not have ended it")
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d is still there: %v", pid, err)
	}
	if _, err := os.Stat(filepath.Join(m[2], "meta.properties")); err != nil {
		t.Errorf("the data was not kept: %v", err)
	}
}

func TestUnknownFlagsAndArgumentsAreWrongUse(t *testing.T) {
	for _, args := range [][]string{{"-four"}, {"start"}} {
		if err := run(t.Context(), func() {}, args, io.Discard); !errors.Is(err, errUsage) {
			t.Errorf("%v: %v, want wrong use", args, err)
		}
	}
}
