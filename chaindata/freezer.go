package chaindata

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// freezerCopier copies a live freezer (ancient/ and what is below it) so that geth's own repair at open accepts it.
//
// Of each table the .meta goes first, the index second, the data last. geth's repair (core/rawdb/freezer_table.go) cuts
// the index at the flush offset of the .meta, the data at the index, and all tables at the shortest; each step cuts back
// to a moment no earlier than the start of this copy, because each file was copied later than the one it is cut by. What
// the database's copy, taken before, relies on was flushed before, so it is never cut.
// A table whose start or copied end changed meanwhile (the tail was pruned, or debug_setHead cut the head) is copied again.
type freezerCopier struct {
	src, dst string
	data     func(ctx context.Context, path string, f *os.File, size int64) error // see CopyOptions.FreezerData; may be nil
	bytes    int64
	handed   map[string][]string // table to the data files that data took
}

func (c *freezerCopier) copy(ctx context.Context) error {
	var tables []string
	err := filepath.WalkDir(c.src, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); !d.IsDir() && (strings.HasSuffix(name, ".cidx") || strings.HasSuffix(name, ".ridx")) {
			rel, err := filepath.Rel(c.src, path)
			if err != nil {
				return err
			}
			tables = append(tables, rel)
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	c.handed = make(map[string][]string)
	for _, index := range tables {
		if err := c.standing(ctx, index); err != nil {
			return err
		}
	}
	return c.fillEmptyTables(ctx, tables)
}

// taken lists the data files that were handed out, in the order of their names.
func (c *freezerCopier) taken() []string {
	var all []string
	for _, files := range c.handed {
		all = append(all, files...)
	}
	slices.Sort(all)
	return all
}

// fillEmptyTables copies again what was copied empty while its neighbours were not. That is the one case in which geth
// does not cut all tables to the shortest: it takes an empty table for a newly added one, moves its start to where the
// others end, and panics if that is a table that cannot be pruned. It comes about when the very first blocks are frozen
// during the copy. A table that stays empty is empty in the source, too.
func (c *freezerCopier) fillEmptyTables(ctx context.Context, tables []string) error {
	const attempts, pause = 40, 25 * time.Millisecond // geth flushes the tables one after the other
	for range attempts {
		var empty []string
		filled := make(map[string]bool) // directories
		for _, index := range tables {
			if isEmpty, err := emptyTable(c.dst, index); err != nil {
				return err
			} else if isEmpty {
				empty = append(empty, index)
			} else {
				filled[filepath.Dir(index)] = true
			}
		}
		again := false
		for _, index := range empty {
			if !filled[filepath.Dir(index)] {
				continue
			}
			again = true
			if err := c.standing(ctx, index); err != nil {
				return err
			}
		}
		if !again {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
	return nil
}

// emptyTable tells whether geth will find no item in a table: its index, cut at the flush offset, has but the first entry.
func emptyTable(root, index string) (bool, error) {
	const indexEntry = 6
	fi, err := os.Stat(filepath.Join(root, index))
	if err != nil {
		return false, err
	}
	if fi.Size() <= indexEntry {
		return true, nil
	}
	meta, err := os.ReadFile(filepath.Join(root, strings.TrimSuffix(index, filepath.Ext(index))+".meta"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	return flushOffset(meta) <= indexEntry, nil
}

// flushOffset reads a freezer's .meta: RLP of version, tail, and since version 2 the flush offset, in bytes of the index.
// Version 1 has none and is not cut.
func flushOffset(meta []byte) uint64 {
	body, ok := rlpList(meta)
	if !ok {
		return 0
	}
	var fields [3]uint64
	for i := range fields {
		item, rest, ok := rlpString(body)
		if !ok || len(item) > 8 {
			return 0
		}
		for _, c := range item {
			fields[i] = fields[i]<<8 | uint64(c)
		}
		if body = rest; i == 1 && fields[0] == 1 {
			return math.MaxUint64
		}
	}
	return fields[2]
}

// standing copies one table until it stood still meanwhile.
func (c *freezerCopier) standing(ctx context.Context, index string) error {
	const attempts = 10
	for range attempts {
		if err := ctx.Err(); err != nil {
			return err
		}
		before := c.bytes
		err := c.table(ctx, index)
		if err == nil {
			return nil
		}
		cut := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) // the file became shorter while it was read
		if !cut && !errors.Is(err, errMoved) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		c.bytes = before
	}
	return fmt.Errorf("%s does not stand still", filepath.Join(c.src, index))
}

// table copies one table: headers.cidx stands for headers.meta, headers.cidx and headers.0000.cdat and so on.
func (c *freezerCopier) table(ctx context.Context, index string) error {
	table := strings.TrimSuffix(strings.TrimSuffix(index, ".cidx"), ".ridx")
	if err := os.MkdirAll(filepath.Join(c.dst, filepath.Dir(index)), 0o755); err != nil {
		return err
	}
	keep := func(_ context.Context, rel string, f *os.File, size int64) error {
		return copyPrefix(f, filepath.Join(c.dst, rel), size)
	}
	if err := c.file(ctx, table+".meta", keep); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := c.file(ctx, index, keep); err != nil {
		return err
	}
	data, err := dataFiles(c.src, table)
	if err != nil {
		return err
	}
	if err := removeStale(c.dst, table, data); err != nil {
		return err
	}
	if c.data != nil {
		keep, c.handed[table] = c.data, data
	}
	for _, rel := range data {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.file(ctx, rel, keep); err != nil {
			return err
		}
	}
	if err := syncDir(filepath.Join(c.dst, filepath.Dir(index))); err != nil {
		return err
	}
	return samePrefix(filepath.Join(c.src, index), filepath.Join(c.dst, index))
}

// file hands one file of the source to take, as long as it is now.
func (c *freezerCopier) file(ctx context.Context, rel string, take func(context.Context, string, *os.File, int64) error) error {
	f, err := os.Open(filepath.Join(c.src, rel))
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	c.bytes += fi.Size()
	return take(ctx, rel, f, fi.Size())
}

// dataFiles lists a table's data files, oldest first, relative to the freezer's root.
func dataFiles(root, table string) ([]string, error) {
	dir, base := filepath.Dir(table), filepath.Base(table)
	entries, err := os.ReadDir(filepath.Join(root, dir))
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), base+".")
		digits, kind, _ := strings.Cut(rest, ".")
		if _, number := parseNumber(digits); ok && number && (kind == "cdat" || kind == "rdat") {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	return files, nil
}

// removeStale removes data files that an earlier attempt copied and that the source has no more.
func removeStale(dst, table string, keep []string) error {
	have, err := dataFiles(dst, table)
	if err != nil {
		return err
	}
	for _, rel := range have {
		if !slices.Contains(keep, rel) {
			if err := os.Remove(filepath.Join(dst, rel)); err != nil {
				return err
			}
		}
	}
	return nil
}

// samePrefix tells whether the source's index still starts with the copied one: by its first entries, which a pruned tail
// rewrites, and its last ones, which a cut head does.
func samePrefix(src, dst string) error {
	const window = 1 << 20
	a, err := os.Open(src)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := os.Open(dst)
	if err != nil {
		return err
	}
	defer b.Close()
	fi, err := b.Stat()
	if err != nil {
		return err
	}
	size := fi.Size()
	for _, at := range []int64{0, max(0, size-window)} {
		n := min(window, size-at)
		x, y := make([]byte, n), make([]byte, n)
		_, errA := a.ReadAt(x, at)
		_, errB := b.ReadAt(y, at)
		if errB != nil && !errors.Is(errB, io.EOF) {
			return errB
		}
		if errA != nil && !errors.Is(errA, io.EOF) {
			return errA
		}
		if !bytes.Equal(x, y) {
			return fmt.Errorf("%w: %s was cut", errMoved, src)
		}
	}
	return nil
}
