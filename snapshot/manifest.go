package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/drover-io/drover/changelog"
)

// manifestFormat is the version of manifest.json and of what hangs on it (the file list, verified.json).
//
//	1: the fields of Manifest; the file list as JSON lines, compressed by zstd
const manifestFormat = 1

// Manifest describes a snapshot. It is written last: a snapshot without one does not exist.
type Manifest struct {
	Format  int    `json:"format"`
	ID      string `json:"id"` // 20261121T130500Z-<block>, UTC: in the order of time
	Cluster string `json:"cluster"`
	// Timeline and Sequence are the database's position in the change log: it holds all up to Sequence.
	Timeline uint64 `json:"timeline"`
	Sequence uint64 `json:"sequence"`
	// Offset is that of the last frame in it, -1 where that is not known: the sequence decides, the offset tells when
	// Kafka drops what comes next.
	Offset          int64     `json:"offset"`
	Head            Head      `json:"head"`
	Genesis         string    `json:"genesis"` // hash of block 0: which chain it is
	DatabaseVersion uint64    `json:"databaseVersion"`
	GethVersion     string    `json:"gethVersion,omitempty"`
	DroverVersion   string    `json:"droverVersion,omitempty"`
	Created         time.Time `json:"created"` // when the position was taken
	Node            string    `json:"node"`
	Role            string    `json:"role"` // of the source: master, replica, copy
	Files           FileList  `json:"files"`
}

// Head is the block at which the database stands. Hashes are 0x and 64 hex digits.
type Head struct {
	Number uint64 `json:"number"`
	Hash   string `json:"hash"`
	Root   string `json:"root"` // of its state
	Time   uint64 `json:"time"` // seconds since 1970
}

// FileList says what files.zst, beside the manifest, has to be: it is as long as an archive has tables, and a listing of
// snapshots does not need it.
type FileList struct {
	Count  int    `json:"count"`
	Bytes  int64  `json:"bytes"`  // of the files
	Size   int64  `json:"size"`   // of files.zst
	SHA256 string `json:"sha256"` // of files.zst
}

// File is a file of the chaindata directory.
type File struct {
	Path   string  `json:"path"` // below chaindata, with "/"
	Size   int64   `json:"size"`
	Pieces []Piece `json:"pieces,omitempty"` // in order; none for an empty file
}

// Piece is a part of a file, kept as an object of its own below CLUSTER/objects/.
type Piece struct {
	Object string `json:"object"`
	Size   int64  `json:"size"`             // of the content, not of what the object takes up
	SHA256 string `json:"sha256,omitempty"` // of the content; unknown for a hard link until it was verified
}

// Roles of a snapshot's source.
const (
	RoleMaster  = "master"
	RoleReplica = "replica"
	RoleCopy    = "copy" // a directory copied from a master, on which no replica ran yet
)

// Position is where a replica goes on from the snapshot.
func (m *Manifest) Position() changelog.Position {
	return changelog.Position{Cluster: m.Cluster, Timeline: m.Timeline, Sequence: m.Sequence, Offset: m.Offset}
}

func (m *Manifest) encode() ([]byte, error) {
	m.Format = manifestFormat
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("a bug of Drover's: the manifest would be refused: %w", err)
	}
	b, err := json.MarshalIndent(m, "", "  ")
	return append(b, '\n'), err
}

// decodeManifest reads manifest.json strictly: a field that is unknown, missing or out of its range is an error.
// ErrFutureFormat, ErrForeign.
func decodeManifest(b []byte) (*Manifest, error) {
	var m Manifest
	if err := decodeStrict(b, &m); err != nil {
		return nil, err
	}
	return &m, m.check()
}

// decodeStrict reads one JSON document of this release's format into v.
func decodeStrict(b []byte, v any) error {
	var probe struct {
		Format *int `json:"format"`
	}
	if err := json.Unmarshal(b, &probe); err != nil || probe.Format == nil {
		return fmt.Errorf("%w: it has no format number", ErrForeign)
	}
	if *probe.Format > manifestFormat {
		return fmt.Errorf("%w: format %d, this release reads up to %d: upgrade Drover here", ErrFutureFormat, *probe.Format, manifestFormat)
	}
	if *probe.Format < 1 {
		return fmt.Errorf("%w: format %d", ErrForeign, *probe.Format)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", ErrForeign, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return fmt.Errorf("%w: something follows the JSON document", ErrForeign)
	}
	return nil
}

var (
	idForm  = regexp.MustCompile(`^\d{8}T\d{6}Z-\d{1,20}$`)
	hash32  = regexp.MustCompile(`^0x[0-9a-f]{64}$`)
	sumForm = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

const idLayout = "20060102T150405Z"

func newID(at time.Time, block uint64) string {
	return fmt.Sprintf("%s-%d", at.UTC().Format(idLayout), block)
}

// idTime is the time in an ID, to the second.
func idTime(id string) time.Time {
	digits, _, _ := strings.Cut(id, "-")
	at, _ := time.Parse(idLayout, digits)
	return at
}

func (m *Manifest) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrForeign, fmt.Sprintf(format, args...))
	}
	switch {
	case m.Format != manifestFormat:
		return bad("format %d", m.Format)
	case !idForm.MatchString(m.ID):
		return bad("id %.40q", m.ID)
	case changelog.CheckCluster(m.Cluster) != nil:
		return bad("cluster %.40q", m.Cluster)
	case m.Timeline == 0:
		return bad("timeline 0")
	case m.Offset < -1:
		return bad("offset %d", m.Offset)
	case !hash32.MatchString(m.Head.Hash) || !hash32.MatchString(m.Head.Root) || !hash32.MatchString(m.Genesis):
		return bad("a hash of the head or the genesis is not one")
	case m.Created.IsZero() || m.Node == "":
		return bad("created or node is missing")
	case m.Role != RoleMaster && m.Role != RoleReplica && m.Role != RoleCopy:
		return bad("role %.40q", m.Role)
	case m.Files.Count < 1 || m.Files.Bytes < 0 || m.Files.Size < 1 || !sumForm.MatchString(m.Files.SHA256):
		return bad("the file list's description")
	}
	return nil
}

// check tells whether a file of the list is one that may be written below a chaindata directory, and whether its pieces make it up.
func (f *File) check() error {
	bad := func(what string) error { return fmt.Errorf("%w: file %.100q: %s", ErrForeign, f.Path, what) }
	if f.Path == "" || path.Clean(f.Path) != f.Path || path.IsAbs(f.Path) || f.Path == ".." || strings.HasPrefix(f.Path, "../") ||
		strings.ContainsAny(f.Path, "\x00\\") || f.Path == "." {
		return bad("not a path below chaindata")
	}
	var sum int64
	for _, p := range f.Pieces {
		if checkKey(p.Object) != nil || p.Size < 1 || p.SHA256 != "" && !sumForm.MatchString(p.SHA256) {
			return bad("a piece is not one")
		}
		if p.SHA256 == "" && !p.linked() {
			return bad("a piece has no checksum")
		}
		if sum += p.Size; sum < 0 {
			return bad("its pieces overflow")
		}
	}
	if sum != f.Size {
		return bad("its pieces do not add up to its size")
	}
	return nil
}

// Objects, by their keys' endings: content under its SHA-256, plain or compressed, or a hard link of a table.
const (
	plainEnding = ".raw"
	zstdEnding  = ".zst"
	linkEnding  = ".ldb"
)

func (p Piece) linked() bool { return strings.HasSuffix(p.Object, linkEnding) }
func (p Piece) zstd() bool   { return strings.HasSuffix(p.Object, zstdEnding) }

func contentKey(sum, ending string) string { return sum[:2] + "/" + sum + ending }

// contentSum returns the SHA-256 that an object's key promises, "" for a hard link or a foreign object.
func contentSum(object string) string {
	name := path.Base(object)
	for _, ending := range []string{plainEnding, zstdEnding} {
		if sum, ok := strings.CutSuffix(name, ending); ok && sumForm.MatchString(sum) {
			return sum
		}
	}
	return ""
}

func sumOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Keys of a cluster's objects.
type keys string

func (k keys) snapshots() string         { return string(k) + "/snapshots/" }
func (k keys) manifest(id string) string { return string(k) + "/snapshots/" + id + "/manifest.json" }
func (k keys) files(id string) string    { return string(k) + "/snapshots/" + id + "/files.zst" }
func (k keys) verified(id string) string { return string(k) + "/snapshots/" + id + "/verified.json" }
func (k keys) sums(id string) string     { return string(k) + "/snapshots/" + id + "/sums.zst" }
func (k keys) objects() string           { return string(k) + "/objects/" }
func (k keys) object(name string) string { return string(k) + "/objects/" + name }
func (k keys) lease(name string) string  { return string(k) + "/leases/" + name + ".json" }
