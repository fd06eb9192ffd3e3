package localkafka

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeTools makes dir the only place where programs are found, with these scripts in it.
func fakeTools(t *testing.T, scripts map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, body := range scripts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	t.Setenv("JAVA_HOME", "")
}

func TestInstallSaysInOneLineWhatIsMissing(t *testing.T) {
	const java17 = `echo 'openjdk version "17.0.1" 2021-10-19' >&2`
	for name, c := range map[string]struct {
		scripts map[string]string
		want    error
		text    string
	}{
		"no java":     {nil, ErrMissingTool, "Java 17"},
		"old java":    {map[string]string{"java": `echo 'java version "1.8.0_292"' >&2`}, ErrMissingTool, "is Java 8"},
		"broken java": {map[string]string{"java": "exit 1"}, ErrMissingTool, "no version"},
		"no mvn":      {map[string]string{"java": java17}, ErrMissingTool, "Maven"},
		"no network":  {map[string]string{"java": java17, "mvn": "echo '[ERROR] Failed to resolve: no route'; echo '[ERROR] more'; exit 1"}, ErrDownload, "no route"},
		"half of it":  {map[string]string{"java": java17, "mvn": "exit 0"}, ErrDownload, "did not bring"},
	} {
		t.Run(name, func(t *testing.T) {
			fakeTools(t, c.scripts)
			cache := t.TempDir()
			err := Install(t.Context(), cache, slog.New(slog.DiscardHandler))
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("install says %v, want one line of %v with %q", err, c.want, c.text)
			}
			if left, _ := filepath.Glob(filepath.Join(cache, "libs*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestVerifyRefusesOtherBytes(t *testing.T) {
	libs := t.TempDir()
	if err := os.WriteFile(filepath.Join(libs, "kafka_2.13-"+Version+".jar"), []byte("not Kafka"), 0o644); err != nil {
		t.Fatal(err)
	}
	err := verify(libs)
	if !errors.Is(err, ErrDownload) || !strings.Contains(err.Error(), "kafka_2.13-"+Version+".jar has SHA-256") {
		t.Errorf("verify says %v", err)
	}
}

func TestAMissingOrShortJarIsFetchedAgain(t *testing.T) {
	libs := t.TempDir()
	text := fingerprint() + "\n"
	var last string
	for name := range pinned() {
		if err := os.WriteFile(filepath.Join(libs, name), []byte("jar"), 0o644); err != nil {
			t.Fatal(err)
		}
		text += "3 " + name + "\n"
		last = filepath.Join(libs, name)
	}
	if complete(libs) {
		t.Error("complete without a marker")
	}
	mark := func(text string) {
		if err := os.WriteFile(filepath.Join(libs, marker), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	mark(text)
	if !complete(libs) {
		t.Fatal("not complete when all is there")
	}
	mark("another pom" + strings.TrimPrefix(text, fingerprint()))
	if complete(libs) {
		t.Error("complete with the jars of another pom.xml")
	}
	mark(text[:len(text)/2])
	if complete(libs) {
		t.Error("complete with half a marker")
	}
	mark(text)
	if err := os.WriteFile(last, []byte("ja"), 0o644); err != nil {
		t.Fatal(err)
	}
	if complete(libs) {
		t.Error("complete with a short jar")
	}
	if err := os.Remove(last); err != nil {
		t.Fatal(err)
	}
	if complete(libs) {
		t.Error("complete without a jar")
	}
}

func TestThePinnedFilesAgree(t *testing.T) {
	for _, want := range []string{"<version>" + Version + "</version>", "kafka_2.13"} {
		if !strings.Contains(string(pom), want) {
			t.Errorf("pom.xml has no %s", want)
		}
	}
	sums := pinned()
	for _, jar := range []string{"kafka_2.13-" + Version + ".jar", "kafka-clients-" + Version + ".jar"} {
		if len(sums[jar]) != 64 {
			t.Errorf("jars.sha256 has no %s", jar)
		}
	}
}

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	for name, o := range map[string]Options{
		"two brokers":      {Brokers: 2},
		"unknown listener": {Listeners: []Listener{"SMOKE"}},
		"listener twice":   {Listeners: []Listener{TLS, TLS}},
		"quote in a name":  {Users: []User{{`a"b`, "x"}}},
		"empty password":   {Users: []User{{"a", ""}}},
	} {
		if c, err := New(o); err == nil {
			c.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

func TestPortsAreNotGivenTwice(t *testing.T) {
	var one, other ports
	defer one.release()
	port, err := one.take()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.claim(port); err == nil {
		t.Error("the same port was given twice")
	}
	one.release()
	if err := other.claim(port); err != nil {
		t.Errorf("a released port: %v", err)
	}
	other.release()
}
