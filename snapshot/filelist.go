package snapshot

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Lists that are as long as an archive has tables are JSON lines compressed by zstd, and checked as a whole by their SHA-256
// before anything in them is believed.

func encodeLines[T any](items []T) ([]byte, error) {
	var out bytes.Buffer
	z, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	w := bufio.NewWriterSize(z, 1<<16)
	enc := json.NewEncoder(w)
	for i := range items {
		if err := enc.Encode(&items[i]); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(w.Flush(), z.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// decodeLines is strict. limit bounds the number of lines: a damaged manifest must not fill the memory.
func decodeLines[T any](b []byte, limit int) ([]T, error) {
	z, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(64<<20))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	dec := json.NewDecoder(z)
	dec.DisallowUnknownFields()
	var items []T
	for {
		var item T
		switch err := dec.Decode(&item); {
		case err == io.EOF:
			return items, nil
		case err != nil:
			return nil, fmt.Errorf("%w: line %d: %w", ErrForeign, len(items)+1, err)
		case len(items) == limit:
			return nil, fmt.Errorf("%w: more than %d lines", ErrForeign, limit)
		}
		items = append(items, item)
	}
}

func decodeFiles(b []byte, want FileList) ([]File, error) {
	if int64(len(b)) != want.Size || sumOf(b) != want.SHA256 {
		return nil, errors.New("it is not the one that the manifest names")
	}
	files, err := decodeLines[File](b, want.Count)
	if err != nil {
		return nil, err
	}
	var total int64
	seen := make(map[string]bool, len(files))
	for i := range files {
		if err := files[i].check(); err != nil {
			return nil, err
		}
		if seen[files[i].Path] {
			return nil, fmt.Errorf("%w: file %q is named twice", ErrForeign, files[i].Path)
		}
		seen[files[i].Path] = true
		total += files[i].Size
	}
	if len(files) != want.Count || total != want.Bytes {
		return nil, fmt.Errorf("%w: %d files of %d bytes, the manifest says %d of %d", ErrForeign, len(files), total, want.Count, want.Bytes)
	}
	return files, nil
}

// readObject reads a small object, up to limit bytes.
func readObject(ctx context.Context, store Store, key string, limit int64) ([]byte, error) {
	r, err := store.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("store %s: read %s: %w", store, key, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%w: store %s: %s is larger than %d bytes", ErrForeign, store, key, limit)
	}
	return b, nil
}
