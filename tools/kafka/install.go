package localkafka

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed" // pom.xml, jars.sha256, log4j2.properties
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Version is the Apache Kafka that pom.xml pins.
const Version = "4.3.1"

// CacheEnv names the environment variable that overrides where the jars are kept (default: .cache/kafka-VERSION in
// the module that the working directory belongs to).
const CacheEnv = "DROVER_KAFKA_CACHE"

// ErrMissingTool says that java (17 or newer) or mvn is not installed. The text says what to install.
var ErrMissingTool = errors.New("a program that Apache Kafka needs is missing")

// ErrDownload says that Maven could not bring Apache Kafka's jars, or brought other bytes than jars.sha256 pins.
var ErrDownload = errors.New("cannot get Apache Kafka")

//go:embed pom.xml
var pom []byte

//go:embed jars.sha256
var jarSums []byte

//go:embed log4j2.properties
var log4jProperties []byte

// installation is Apache Kafka on this disk, ready to run.
type installation struct {
	java    string // path of the java command
	libs    string // directory of the jars
	archive string // class data archive made for this java and these jars; "" when there is none
}

// DefaultCache is where Install keeps Apache Kafka when nothing else is said: $DROVER_KAFKA_CACHE, or .cache/kafka-VERSION
// beside the go.mod above the working directory, or the user's cache directory outside a module.
func DefaultCache() (string, error) {
	if dir := os.Getenv(CacheEnv); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; filepath.Dir(dir) != dir; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, ".cache", "kafka-"+Version), nil
		}
	}
	dir, err = os.UserCacheDir()
	return filepath.Join(dir, "drover", "kafka-"+Version), err
}

// Install makes sure that Apache Kafka is in cache ("" = DefaultCache): when a jar is missing or was cut short, Maven
// copies them all, and each must have the SHA-256 that jars.sha256 pins. A class data archive, which halves the
// brokers' start, is made once for each Java. Several programs may call Install at once; one does the work.
func Install(ctx context.Context, cache string, logger *slog.Logger) error {
	_, err := install(ctx, cache, logger)
	return err
}

func install(ctx context.Context, cache string, logger *slog.Logger) (installation, error) {
	if cache == "" {
		var err error
		if cache, err = DefaultCache(); err != nil {
			return installation{}, err
		}
	}
	java, javaVersion, err := findJava(ctx)
	if err != nil {
		return installation{}, err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return installation{}, err
	}
	unlock, err := lockFile(filepath.Join(cache, "lock"), true)
	if err != nil {
		return installation{}, err
	}
	defer unlock()

	in := installation{java: java, libs: filepath.Join(cache, "libs")}
	if !complete(in.libs) {
		if err := download(ctx, cache, logger); err != nil {
			return installation{}, err
		}
	}
	archive := filepath.Join(cache, "classes-"+javaVersion+".jsa")
	if _, err := os.Stat(archive); err != nil {
		if err := makeArchive(ctx, in, archive, logger); err != nil {
			// Only the start is slower without it, so it is no reason to fail.
			logger.Warn("no class data archive for Apache Kafka: brokers start slower", "error", err)
			return in, nil
		}
	}
	in.archive = archive
	return in, nil
}

var javaVersionLine = regexp.MustCompile(`version "(?:1\.)?(\d+)([^"]*)"`)

// findJava returns the java command and its full version, as fit for a file name.
func findJava(ctx context.Context) (path, version string, err error) {
	path = "java"
	if home := os.Getenv("JAVA_HOME"); home != "" {
		path = filepath.Join(home, "bin", "java")
	}
	path, err = exec.LookPath(path)
	if err != nil {
		return "", "", fmt.Errorf("%w: java: install Java 17 or newer (Debian: apt-get install default-jre-headless)", ErrMissingTool)
	}
	out, err := exec.CommandContext(ctx, path, "-version").CombinedOutput()
	m := javaVersionLine.FindSubmatch(out)
	if err != nil || m == nil {
		return "", "", fmt.Errorf("%w: %s -version gives no version: install Java 17 or newer", ErrMissingTool, path)
	}
	if major, _ := strconv.Atoi(string(m[1])); major < 17 {
		return "", "", fmt.Errorf("%w: %s is Java %d: install Java 17 or newer", ErrMissingTool, path, major)
	}
	sum := sha256.Sum256(out)
	return path, string(m[1]) + "-" + hex.EncodeToString(sum[:4]), nil
}

// pinned returns the jars by name with their SHA-256, from jars.sha256.
func pinned() map[string]string {
	sums := make(map[string]string)
	for line := range strings.Lines(string(jarSums)) {
		if sum, name, ok := strings.Cut(strings.TrimSpace(line), "  "); ok {
			sums[name] = sum
		}
	}
	return sums
}

// fingerprint changes when another set of jars is pinned.
func fingerprint() string {
	sum := sha256.Sum256(append(append([]byte(nil), pom...), jarSums...))
	return hex.EncodeToString(sum[:])
}

// The marker is written when every jar's sum was found right: the fingerprint, then "size name" for each jar. Later
// calls compare sizes only, because hashing 44 MB at each start of a test would cost more than it finds.
const marker = "complete"

func complete(libs string) bool {
	text, err := os.ReadFile(filepath.Join(libs, marker))
	if err != nil {
		return false
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	if !lines.Scan() || lines.Text() != fingerprint() {
		return false
	}
	jars := 0
	for ; lines.Scan(); jars++ {
		size, name, _ := strings.Cut(lines.Text(), " ")
		info, err := os.Stat(filepath.Join(libs, name))
		if err != nil || strconv.FormatInt(info.Size(), 10) != size {
			return false
		}
	}
	return jars == len(pinned())
}

func download(ctx context.Context, cache string, logger *slog.Logger) error {
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return fmt.Errorf("%w: mvn: install Maven (Debian: apt-get install maven)", ErrMissingTool)
	}
	logger.Info("getting Apache Kafka with Maven (44 MB, once)", "version", Version, "to", cache)
	work, err := os.MkdirTemp(cache, "libs-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	project := filepath.Join(work, "pom.xml")
	if err := os.WriteFile(project, pom, 0o644); err != nil {
		return err
	}
	fresh := filepath.Join(work, "libs")
	// -C: Maven itself refuses a jar whose checksum is not the repository's.
	cmd := exec.CommandContext(ctx, mvn, "-q", "-B", "-C", "-f", project, "dependency:copy-dependencies",
		"-DincludeScope=runtime", "-DoutputDirectory="+fresh)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w %s with mvn: %s", ErrDownload, Version, firstError(out, err))
	}
	if err := verify(fresh); err != nil {
		return err
	}
	libs := filepath.Join(cache, "libs")
	if err := os.RemoveAll(libs); err != nil {
		return err
	}
	// Archives belong to the jars' times and sizes.
	old, _ := filepath.Glob(filepath.Join(cache, "*.jsa"))
	for _, f := range old {
		os.Remove(f) // a stale archive is ignored by the JVM
	}
	return os.Rename(fresh, libs)
}

// firstError is the first thing that Maven complained about, on one line.
func firstError(out []byte, err error) string {
	for line := range strings.Lines(string(out)) {
		if _, text, ok := strings.Cut(line, "[ERROR]"); ok && strings.TrimSpace(text) != "" {
			return strings.TrimSpace(text)
		}
	}
	return err.Error()
}

// verify compares every jar with its pinned sum and writes the marker.
func verify(libs string) error {
	sums := pinned()
	text := fingerprint() + "\n"
	found, err := filepath.Glob(filepath.Join(libs, "*.jar"))
	if err != nil {
		return err
	}
	for _, path := range found {
		name := filepath.Base(path)
		sum, size, err := hashFile(path)
		if err != nil {
			return err
		}
		if sums[name] != sum {
			return fmt.Errorf("%w: %s has SHA-256 %s, and jars.sha256 says %q: remove it from ~/.m2 and try again", ErrDownload, name, sum, sums[name])
		}
		delete(sums, name)
		text += strconv.FormatInt(size, 10) + " " + name + "\n"
	}
	for name := range sums {
		return fmt.Errorf("%w: Maven did not bring %s", ErrDownload, name)
	}
	return os.WriteFile(filepath.Join(libs, marker), []byte(text), 0o644)
}

func hashFile(path string) (sum string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	size, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), size, err
}

// classpath lists the jars in one fixed order, which the class data archive depends on.
func (in installation) classpath() string {
	names := make([]string, 0, 64)
	for name := range pinned() {
		names = append(names, filepath.Join(in.libs, name))
	}
	sort.Strings(names)
	return strings.Join(names, string(os.PathListSeparator))
}

// makeArchive runs one broker with every listener once and keeps the classes that it loaded (JEP 350).
func makeArchive(ctx context.Context, in installation, archive string, logger *slog.Logger) error {
	logger.Info("making a class data archive, so that brokers start faster (once)", "file", archive)
	partial := archive + ".partial"
	c, err := newCluster(Options{
		Listeners: []Listener{Plaintext, SASLTLS},
		JVMFlags:  []string{"-XX:ArchiveClassesAtExit=" + partial},
		Logger:    slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	defer c.Close()
	c.in = in
	if err := c.Start(ctx); err != nil {
		return err
	}
	if err := c.Stop(ctx, 1); err != nil {
		return err
	}
	return os.Rename(partial, archive)
}

// lockFile takes an advisory lock, which ends with the process at the latest.
func lockFile(path string, wait bool) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	how := syscall.LOCK_EX
	if !wait {
		how |= syscall.LOCK_NB
	}
	for {
		if err = syscall.Flock(int(f.Fd()), how); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
