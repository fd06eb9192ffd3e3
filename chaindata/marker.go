package chaindata

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// MarkerName is the file in a chaindata directory that says what the directory is. LevelDB leaves unknown names alone.
const MarkerName = "drover.json"

// Roles of a marked directory.
const (
	RoleSource = "source" // a master captures it
	RoleCopy   = "copy"   // made by Copy
	// RoleRecovering is a source that lost writes which are on the topic already, while its master brings it to the
	// topic's end to open a new timeline on it. For everybody else it is a copy.
	RoleRecovering = "recovering"
)

// markerFormat 1: the fields of Marker.
const markerFormat = 1

// ErrNoMarker means: the directory was never a source nor a copy.
var ErrNoMarker = errors.New("no " + MarkerName + " in the directory")

// Marker ties a directory to a cluster's timeline, so that a copy of it is never taken for something else. A copied
// directory whose database holds no position stands at Sequence on Timeline.
type Marker struct {
	Format   int    `json:"format"`
	Cluster  string `json:"cluster"`
	Timeline uint64 `json:"timeline"`
	Role     string `json:"role"`
	// Sequence is set for RoleCopy and RoleRecovering: the last sequence that is of the timeline. It is worth more than Inspect of the directory, which moves
	// on by one as soon as somebody opens the database (State.Reopened).
	Sequence uint64 `json:"sequence,omitempty"`
	// Inode is the directory's inode number at the time of marking; WriteMarker fills it in. A directory that was copied
	// with its marker (cp -a, rsync) has another one: that is how a copy is told from the source itself.
	Inode uint64 `json:"inode,omitempty"`
}

// IsSource tells whether the directory is the one that a master marked as its source, and not a copy made together with
// the marker. A volume restored from a block-level snapshot keeps its inode numbers and still counts as the source.
func (m Marker) IsSource(dir string) bool { return m.Role == RoleSource && m.MadeIn(dir) }

// MadeIn tells whether the marker was written in this very directory, as IsSource does for any role.
func (m Marker) MadeIn(dir string) bool {
	inode, err := inodeOf(dir)
	return err != nil || m.Inode == 0 || m.Inode == inode
}

func inodeOf(dir string) (uint64, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return 0, err
	}
	return info.Sys().(*syscall.Stat_t).Ino, nil
}

// ReadMarker reads the directory's marker. ErrNoMarker when there is none.
func ReadMarker(dir string) (Marker, error) {
	path := filepath.Join(dir, MarkerName)
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Marker{}, fmt.Errorf("%w: %s", ErrNoMarker, dir)
	}
	if err != nil {
		return Marker{}, err
	}
	var m Marker
	if err := json.Unmarshal(content, &m); err != nil {
		return Marker{}, fmt.Errorf("%s: %w", path, err)
	}
	if m.Format != markerFormat {
		return Marker{}, fmt.Errorf("%s: format %d is unknown to this release (it knows %d)", path, m.Format, markerFormat)
	}
	dec := json.NewDecoder(bytes.NewReader(content))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return Marker{}, fmt.Errorf("%s: %w", path, err)
	}
	if m.Cluster == "" || m.Timeline == 0 || m.Role != RoleSource && m.Role != RoleCopy && m.Role != RoleRecovering {
		return Marker{}, fmt.Errorf("%s: cluster, timeline or role is missing or wrong", path)
	}
	return m, nil
}

// WriteMarker writes the marker whole or not at all and makes it durable. Format and Inode are filled in.
func WriteMarker(dir string, m Marker) error {
	inode, err := inodeOf(dir)
	if err != nil {
		return err
	}
	m.Format, m.Inode = markerFormat, inode
	content, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return writeFileSynced(filepath.Join(dir, MarkerName), append(content, '\n'))
}
