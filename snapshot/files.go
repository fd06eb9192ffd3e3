package snapshot

import (
	"bytes"
	"context"
	"io"
	"os"
)

// syncDir makes renames, links and new files of a directory survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// contextReader ends with the context, between two reads.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// newBody is a reader of b that a store may read in parts and again.
func newBody(b []byte) io.Reader { return bytes.NewReader(b) }
