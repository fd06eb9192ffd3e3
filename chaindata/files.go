package chaindata

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// File names in a LevelDB directory, as goleveldb writes them (storage/file_storage.go).

func journalName(num uint64) string  { return fmt.Sprintf("%06d.log", num) }
func manifestName(num uint64) string { return fmt.Sprintf("MANIFEST-%06d", num) }

func parseJournalName(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, ".log")
	if !ok {
		return 0, false
	}
	return parseNumber(digits)
}

func parseManifestName(name string) (uint64, bool) {
	digits, ok := strings.CutPrefix(name, "MANIFEST-")
	if !ok {
		return 0, false
	}
	return parseNumber(digits)
}

func parseNumber(digits string) (uint64, bool) {
	n, err := strconv.ParseUint(digits, 10, 63) // refuses "", signs and blanks
	return n, err == nil
}

// listing is what a directory held at one look. Tables are left out: an archive has millions of them.
type listing struct {
	journals  []uint64 // ascending
	manifests []uint64 // ascending
	current   bool     // CURRENT is there
	options   bool     // OPTIONS* or marker.manifest.* is there: Pebble
}

// list reads the directory in pieces, so that its size does not matter for memory.
func list(dir string) (listing, error) {
	var l listing
	d, err := os.Open(dir)
	if err != nil {
		return l, err
	}
	defer d.Close()
	for {
		names, err := d.Readdirnames(4096)
		for _, name := range names {
			if n, ok := parseJournalName(name); ok {
				l.journals = append(l.journals, n)
			} else if n, ok := parseManifestName(name); ok {
				l.manifests = append(l.manifests, n)
			} else if name == "CURRENT" {
				l.current = true
			} else if strings.HasPrefix(name, "OPTIONS") || strings.HasPrefix(name, "marker.manifest.") {
				l.options = true
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return l, err
		}
	}
	slices.Sort(l.journals)
	slices.Sort(l.manifests)
	return l, nil
}

func (l listing) pebble() bool { return l.options }

// syncDir makes renames, links and new files of a directory survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// writeFileSynced writes a file whole or not at all: a temporary name beside it, fsync, rename, fsync of the directory.
func writeFileSynced(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return err
	}
	return syncDir(filepath.Dir(path))
}

func tableName(num uint64) string    { return fmt.Sprintf("%06d.ldb", num) }
func oldTableName(num uint64) string { return fmt.Sprintf("%06d.sst", num) }
