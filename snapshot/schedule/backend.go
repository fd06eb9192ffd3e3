package schedule

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/snapshot"
)

// Point is a snapshot as far as a Scheduler needs to know it.
type Point struct {
	ID       string
	Position changelog.Position // Offset is -1 where it is not known
	Head     snapshot.Head
	Taken    time.Time // when the position was read
	Usable   bool      // verified, and complete
	Bytes    int64     // of the database; 0: unknown
	// Broken says why it cannot be used nor verified, or is nil.
	Broken error
}

// MarshalJSON has the position's parts beside the others.
func (p Point) MarshalJSON() ([]byte, error) {
	out := struct {
		ID       string        `json:"id"`
		Timeline uint64        `json:"timeline"`
		Sequence uint64        `json:"sequence"`
		Offset   int64         `json:"offset"`
		Head     snapshot.Head `json:"head"`
		Taken    time.Time     `json:"taken"`
		Usable   bool          `json:"usable"`
		Bytes    int64         `json:"bytes,omitempty"`
		Broken   string        `json:"broken,omitempty"`
	}{p.ID, p.Position.Timeline, p.Position.Sequence, p.Position.Offset, p.Head, p.Taken, p.Usable, p.Bytes, ""}
	if p.Broken != nil {
		out.Broken = p.Broken.Error()
	}
	return json.Marshal(out)
}

// Made is what Create made.
type Made struct {
	Point
	Moved int64 // bytes that went to the store; 0: unknown
}

// Backend is where snapshots go. Create, Verify and Prune are called one at a time, by the one scheduler that holds the
// lease; List at any time beside them. Each returns soon after ctx has ended, and cleans up, at its next call at the latest,
// what a killed process left of it.
type Backend interface {
	// String names the place, as --store does.
	String() string
	// List returns the cluster's snapshots, the oldest first.
	List(ctx context.Context) ([]Point, error)
	// Create takes a snapshot of the database in a geth datadir, which may be in use. It is not usable yet. Errors:
	// snapshot.ErrBusy when somebody else is taking one (which counts as no failure), snapshot.ErrFull (then Prune is called).
	Create(ctx context.Context, datadir string) (Made, error)
	// Verify proves a snapshot and makes it usable. One found damaged (snapshot.ErrCorrupt) is not usable from then on.
	Verify(ctx context.Context, id string) error
	// Prune removes snapshots that nobody needs, never the last usable one nor the newest that the change log continues. first
	// is the first offset that the topic retains.
	Prune(ctx context.Context, first int64) (Pruned, error)
}

// Pruned is what Prune removed.
type Pruned struct {
	Snapshots int
	Bytes     int64 // 0: unknown
}

// StoreOptions are those of NewStore. Cluster and Store are needed; the rest is what snapshot's options of the same name are.
type StoreOptions struct {
	Cluster string
	Store   snapshot.Store

	// Of Create.
	Topic         snapshot.Topic // finds the Kafka offset of a master's position
	Ancient       string         // the freezer of the source, where geth's --datadir.ancient moved it
	Compression   snapshot.Compression
	NoHardLinks   bool
	Node          string
	GethVersion   string
	DroverVersion string
	Parallel      int // of Verify, too

	// Of Verify.
	WorkDir        string // needed unless Store is a directory
	SampleFraction float64
	Replay         func(ctx context.Context, datadir string) error

	// Of Prune.
	Keep, Daily, Weekly, Monthly int // Keep: default 3
	Margin                       int64
	DropBroken                   bool
	OrphanAge                    time.Duration

	Scheduler *Progress // is told how far Create and Verify have come; the same one goes into Options
	Logger    *slog.Logger
}
