package snapshot

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

func goldenManifest() *Manifest {
	return &Manifest{
		ID: "20261121T130500Z-1234", Cluster: "main", Timeline: 3, Sequence: 987654321, Offset: 4242,
		Head: Head{
			Number: 1234, Hash: "0x" + strings.Repeat("1a", 32), Root: "0x" + strings.Repeat("2b", 32), Time: 1_700_000_000,
		},
		Genesis: "0x" + strings.Repeat("3c", 32), DatabaseVersion: 9, GethVersion: "1.17.7", DroverVersion: "0.5.0",
		Created: time.Date(2026, 11, 21, 13, 5, 0, 123e6, time.UTC), Node: "node-1", Role: RoleReplica,
		Files: FileList{Count: 3, Bytes: 100, Size: 50, SHA256: strings.Repeat("4d", 32)},
	}
}

// Snapshots of format 1 have to be readable for as long as Drover is.
func TestManifestOfFormat1(t *testing.T) {
	want := goldenManifest()
	body, err := want.encode()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "manifest-1.json")
	if *update {
		if err := os.WriteFile(path, body, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(golden, body) {
		t.Errorf("encoded:\n%s\ngolden:\n%s", body, golden)
	}
	got, err := decodeManifest(golden)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestManifestsThatAreNotOursAreRefused(t *testing.T) {
	good, err := goldenManifest().encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		from, to string
		want     error
	}{
		"newer format":      {`"format": 1`, `"format": 2`, ErrFutureFormat},
		"newer, new fields": {`"format": 1,`, `"format": 7, "shards": [1],`, ErrFutureFormat},
		"format 0":          {`"format": 1`, `"format": 0`, ErrForeign},
		"no format":         {`"format": 1,`, ``, ErrForeign},
		"unknown field":     {`"format": 1,`, `"format": 1, "shards": 1,`, ErrForeign},
		"not JSON":          {`{`, `<html>`, ErrForeign},
		"two documents":     {"\n}\n", "\n}\n{}", ErrForeign},
		"cluster":           {`"main"`, `"Main Street"`, ErrForeign},
		"id":                {`20261121T130500Z-1234`, `../../etc`, ErrForeign},
		"timeline":          {`"timeline": 3`, `"timeline": 0`, ErrForeign},
		"negative sequence": {`987654321`, `-1`, ErrForeign},
		"offset":            {`4242`, `-2`, ErrForeign},
		"hash":              {`0x1a1a`, `0x1a1`, ErrForeign},
		"role":              {`"replica"`, `"king"`, ErrForeign},
		"checksum of files": {`4d4d`, `4d4`, ErrForeign},
		"no files":          {`"count": 3`, `"count": 0`, ErrForeign},
		"created":           {`2026-11-21T13:05:00.123Z`, `0001-01-01T00:00:00Z`, ErrForeign},
		"node":              {`"node-1"`, `""`, ErrForeign},
	} {
		bad := bytes.Replace(good, []byte(c.from), []byte(c.to), 1)
		if bytes.Equal(bad, good) {
			t.Errorf("%s: nothing was changed", name)
		}
		if _, err := decodeManifest(bad); !errors.Is(err, c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFilesThatWouldLeaveTheDatadirAreRefused(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	good := File{Path: "ancient/chain/headers.cidx", Size: 3, Pieces: []Piece{{Object: contentKey(sum, plainEnding), Size: 3, SHA256: sum}}}
	if err := good.check(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", ".", "..", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a/", "a\x00", `a\b`} {
		bad := good
		bad.Path = path
		if err := bad.check(); !errors.Is(err, ErrForeign) {
			t.Errorf("path %q: %v", path, err)
		}
	}
	for name, piece := range map[string]Piece{
		"object":      {Object: "../x.raw", Size: 3, SHA256: sum},
		"size":        {Object: good.Pieces[0].Object, Size: 4, SHA256: sum},
		"no bytes":    {Object: good.Pieces[0].Object, Size: 0, SHA256: sum},
		"checksum":    {Object: good.Pieces[0].Object, Size: 3, SHA256: "ab"},
		"no checksum": {Object: good.Pieces[0].Object, Size: 3},
	} {
		bad := good
		bad.Pieces = []Piece{piece}
		if err := bad.check(); !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFileListsAreCheckedAsAWhole(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	var files []File
	for i := range 50 {
		files = append(files, File{Path: fmt.Sprintf("%06d.ldb", i), Size: 3, Pieces: []Piece{{Object: contentKey(sum, zstdEnding), Size: 3, SHA256: sum}}})
	}
	body, err := encodeLines(files)
	if err != nil {
		t.Fatal(err)
	}
	list := FileList{Count: 50, Bytes: 150, Size: int64(len(body)), SHA256: sumOf(body)}
	if got, err := decodeFiles(body, list); err != nil || !reflect.DeepEqual(got, files) {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*FileList){
		"count": func(l *FileList) { l.Count = 49 }, "more": func(l *FileList) { l.Count = 51 }, "bytes": func(l *FileList) { l.Bytes++ },
		"size": func(l *FileList) { l.Size++ }, "sum": func(l *FileList) { l.SHA256 = sum },
	} {
		bad := list
		change(&bad)
		if _, err := decodeFiles(body, bad); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	twice, err := encodeLines(append(files, files[0]))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeFiles(twice, FileList{Count: 51, Bytes: 153, Size: int64(len(twice)), SHA256: sumOf(twice)}); !errors.Is(err, ErrForeign) {
		t.Errorf("a file named twice: %v", err)
	}
}

func FuzzDecodeManifest(f *testing.F) {
	body, err := goldenManifest().encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add([]byte(`{"format":1}`))
	f.Add([]byte(`{"format":2,"id":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeManifest(b)
		if err != nil {
			if !errors.Is(err, ErrForeign) && !errors.Is(err, ErrFutureFormat) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		again, err := m.encode()
		if err != nil {
			t.Fatalf("accepted, but cannot be written: %v", err)
		}
		if n, err := decodeManifest(again); err != nil || n.ID != m.ID || n.Position() != m.Position() {
			t.Fatalf("%+v became %+v, %v", m, n, err)
		}
	})
}

func FuzzDecodeFiles(f *testing.F) {
	body, err := encodeLines([]File{{Path: "CURRENT", Size: 0}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body, 1)
	f.Fuzz(func(t *testing.T, b []byte, count int) {
		files, err := decodeFiles(b, FileList{Count: count % 1000, Size: int64(len(b)), SHA256: sumOf(b)})
		for i := range files {
			if err == nil && files[i].check() != nil {
				t.Fatalf("accepted: %+v", files[i])
			}
		}
	})
}
