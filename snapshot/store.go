package snapshot

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// Store is a flat space of objects under keys with "/" in them, as S3 is. All methods may be called side by side, from
// several processes and hosts. storetest.Run is what each store must pass.
//
// A key is made of segments of letters, digits, '.', '_', '-', '=' and '+', joined by "/"; no segment starts with a dot.
type Store interface {
	// String names the store as --store does.
	String() string
	// Put stores size bytes of body under key, whole and durable, or not at all; it replaces what was there. A body that
	// ends early or fails is an error, and leaves what was there before. Uploads of one key side by side: the last wins.
	// When body is an io.ReaderAt too, a store may read it in parallel and again after a failure; such a reader starts at
	// offset 0.
	Put(ctx context.Context, key string, body io.Reader, size int64) error
	// Create stores a new object; ErrExists when the key has one. Of several callers on several hosts exactly one succeeds.
	Create(ctx context.Context, key string, body []byte) (version string, err error)
	// Replace exchanges an object's content if its version is still the given one: ErrConflict when it is another's by
	// now or is gone.
	Replace(ctx context.Context, key string, body []byte, version string) (newVersion string, err error)
	// Get reads length bytes from offset on, -1 for all to the end. A range that reaches beyond the end gives what there
	// is. ErrNotFound when there is no object. The caller closes the reader.
	Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	// List yields the objects whose key starts with prefix, in the order of their bytes. After an error it yields no more.
	List(ctx context.Context, prefix string) iter.Seq2[Object, error]
	// Delete removes objects. An absent one is no error.
	Delete(ctx context.Context, keys ...string) error
}

// Object is what List knows about an object. Version is what Replace compares; it changes with each Create, Replace and
// Put, and is empty where a store cannot tell without reading (Put objects only).
type Object struct {
	Key      string
	Size     int64
	Modified time.Time
	Version  string
}

// Errors of a Store. Each is wrapped with one line that says which store and key, and what to do.
var (
	ErrNotFound    = errors.New("no such object")
	ErrExists      = errors.New("the object exists")
	ErrConflict    = errors.New("the object was changed by another")
	ErrUnreachable = errors.New("the store cannot be reached") // also: credential expired, refused
	ErrFull        = errors.New("no space left in the store")
)
