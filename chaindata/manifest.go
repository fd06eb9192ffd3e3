package chaindata

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Tags of a manifest's session records (goleveldb session_record.go).
const (
	tagComparer    = 1
	tagJournalNum  = 2
	tagNextFile    = 3
	tagSequence    = 4
	tagCompactPtr  = 5
	tagDelTable    = 6
	tagAddTable    = 7
	tagPrevJournal = 9

	comparerName = "leveldb.BytewiseComparator"
)

// session is the state after the records of a manifest, or what a single record says.
type session struct {
	comparer    string
	journal     uint64
	prevJournal uint64
	nextFile    uint64
	sequence    uint64
	tables      map[uint64]int64 // number to size in bytes

	hasJournal, hasSequence, hasNextFile bool
}

// apply decodes one session record onto s.
func (s *session) apply(record []byte) error {
	d := fieldDecoder{data: record}
	for len(d.data) > 0 && d.err == nil {
		switch tag := d.uvarint("tag"); tag {
		case tagComparer:
			s.comparer = string(d.bytes("comparer"))
		case tagJournalNum:
			s.journal, s.hasJournal = d.uvarint("journal-num"), true
		case tagPrevJournal:
			s.prevJournal = d.uvarint("prev-journal-num")
		case tagNextFile:
			s.nextFile, s.hasNextFile = d.uvarint("next-file-num"), true
		case tagSequence:
			s.sequence, s.hasSequence = d.uvarint("seq-num"), true
		case tagCompactPtr:
			d.uvarint("comp-ptr.level")
			d.bytes("comp-ptr.ikey")
		case tagDelTable:
			d.uvarint("del-table.level")
			if num := d.uvarint("del-table.num"); d.err == nil {
				delete(s.tables, num)
			}
		case tagAddTable:
			d.uvarint("add-table.level")
			num, size := d.uvarint("add-table.num"), d.uvarint("add-table.size")
			d.bytes("add-table.imin")
			d.bytes("add-table.imax")
			if d.err == nil {
				if s.tables == nil {
					s.tables = make(map[uint64]int64)
				}
				s.tables[num] = int64(size)
			}
		default:
			// goleveldb takes a tag it does not know for one without a value.
		}
	}
	return d.err
}

type fieldDecoder struct {
	data []byte
	err  error
}

func (d *fieldDecoder) uvarint(name string) uint64 {
	if d.err != nil {
		return 0
	}
	v, n := binary.Uvarint(d.data)
	if n <= 0 {
		d.err = fmt.Errorf("%w: %s is cut short", ErrCorruptManifest, name)
		return 0
	}
	d.data = d.data[n:]
	return v
}

func (d *fieldDecoder) bytes(name string) []byte {
	length := d.uvarint(name)
	if d.err != nil {
		return nil
	}
	if length > uint64(len(d.data)) {
		d.err = fmt.Errorf("%w: %s is cut short", ErrCorruptManifest, name)
		return nil
	}
	v := d.data[:length]
	d.data = d.data[length:]
	return v
}

// readManifest applies the file's records in order and returns the state and the offset behind the last whole record.
// each, when given, is called with what each record says by itself. A torn last record is dropped, as goleveldb does.
func readManifest(path string, each func(session)) (session, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return session{}, 0, err
	}
	defer f.Close()
	r := newChunkReader(f)
	var all session
	for {
		record, err := r.next()
		var bad *chunkError
		switch {
		case errors.Is(err, errMore):
			return all, r.offset(), nil
		case errors.As(err, &bad):
			if torn, terr := tornTail(f, bad.offset); terr != nil || torn {
				return all, r.offset(), terr
			}
			return all, r.offset(), fmt.Errorf("%w: %s: %w", ErrCorruptManifest, path, err)
		case err != nil:
			return all, r.offset(), err
		}
		if err := all.apply(record); err != nil {
			return all, r.offset(), fmt.Errorf("%s: %w", path, err)
		}
		if each != nil {
			var one session
			if err := one.apply(record); err == nil {
				each(one)
			}
		}
	}
}

// currentManifest returns the number of the manifest that goleveldb would open: the newest of a pending CURRENT.<n>
// (a crash between writing and renaming it), CURRENT, and, where those are unusable, CURRENT.bak.
func currentManifest(dir string) (uint64, error) {
	try := func(name string) (uint64, error) {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return 0, err
		}
		line, whole := strings.CutSuffix(string(content), "\n")
		num, ok := parseManifestName(line)
		if !whole || !ok {
			return 0, fmt.Errorf("%w: %s holds %.60q", ErrCorruptManifest, filepath.Join(dir, name), content)
		}
		if _, err := os.Stat(filepath.Join(dir, manifestName(num))); err != nil {
			return 0, err
		}
		return num, nil
	}
	best, err := try("CURRENT")
	if err != nil {
		bak, bakErr := try("CURRENT.bak")
		if bakErr == nil {
			best, err = bak, nil
		}
	}
	// The pending file is written before the rename, so its presence is rare; a glob would read the whole directory.
	for _, num := range pendingManifests(dir, best) {
		if n, perr := try(fmt.Sprintf("CURRENT.%d", num)); perr == nil && (err != nil || n > best) {
			best, err = n, nil
		}
	}
	if errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("%w: %s", ErrNoDatabase, dir)
	}
	return best, err
}

// pendingManifests lists manifests newer than the current one, each of which may have a CURRENT.<n> beside it.
func pendingManifests(dir string, after uint64) []uint64 {
	l, err := list(dir)
	if err != nil {
		return nil
	}
	var nums []uint64
	for _, n := range l.manifests {
		if n > after {
			nums = append(nums, n)
		}
	}
	return nums
}
