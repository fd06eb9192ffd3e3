package chaindata

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/storage"
)

// emptyRoot is the root of an empty trie (keccak256 of RLP's empty string); it has no node.
var emptyRoot = [32]byte{
	0x56, 0xe8, 0x1f, 0x17, 0x1b, 0xcc, 0x55, 0xa6, 0xff, 0x83, 0x45, 0xe6, 0x92, 0xc0, 0xf8, 0x6e,
	0x5b, 0x48, 0xe0, 0x1b, 0x99, 0x6c, 0xad, 0xc0, 0x01, 0x62, 0x2f, 0xb5, 0xe3, 0x63, 0xb4, 0x21,
}

// CheckSource tells whether a chaindata directory can be a source: LevelDB, of the hash scheme, with the state of its
// head. ErrUnsupportedSource, with what to do, when not. nil when there is no database yet.
//
// It takes no lock, so that the directory may be live; a database that will not stand still for it passes, and
// ArchiveCheck has the last word. It holds no journal in memory, however large.
func CheckSource(dir string) error {
	const attempts = 20
	for range attempts {
		err := checkSource(dir)
		if errors.Is(err, ErrNoDatabase) {
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Genesis returns the hash of the chain's block 0, 0x and 64 hex digits; empty when the directory holds no chain yet. It
// takes no lock and changes nothing.
func Genesis(dir string) (string, error) {
	state, err := Inspect(dir)
	if errors.Is(err, ErrNoDatabase) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	v := &view{dir: dir, journals: state.Journals}
	defer v.close()
	hash, err := v.get(append(append([]byte("h"), make([]byte, 8)...), 'n'))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil // a live database moved on; geth tells its genesis later
	case err != nil || len(hash) != 32:
		return "", err
	}
	return fmt.Sprintf("0x%x", hash), nil
}

func checkSource(dir string) error {
	state, err := Inspect(dir)
	if err != nil {
		return err
	}
	v := &view{dir: dir, journals: state.Journals}
	defer v.close()
	path, err := v.has([]byte("A"), stateIDKey)
	if err != nil {
		return err
	}
	if path {
		return fmt.Errorf("%s: %w", dir, errPathScheme())
	}
	head, err := v.get(headBlockKey)
	if err != nil || len(head) != 32 {
		return err
	}
	number, err := v.get(append([]byte("H"), head...))
	if err != nil || len(number) != 8 {
		return err
	}
	header, err := v.get(bytes.Join([][]byte{[]byte("h"), number, head}, nil))
	if err != nil || header == nil {
		return err // in the freezer
	}
	_, root, err := headerRefs(header)
	if err != nil {
		return fmt.Errorf("%s: head block %x: %w", dir, head, err)
	}
	if found, err := v.has(root[:]); err != nil || found || root == emptyRoot {
		return err
	}
	if path, err := v.has(append([]byte("L"), root[:]...)); err != nil {
		return err
	} else if path {
		return fmt.Errorf("%s: %w", dir, errPathScheme())
	}
	return fmt.Errorf("%w: %s lacks the state of its head, block %d: it is not an archive; sync a new datadir with "+
		"--db.engine leveldb --state.scheme hash --gcmode archive", ErrUnsupportedSource, dir, binary.BigEndian.Uint64(number))
}

// view reads single keys of a database without opening it for writing: tables through goleveldb, journals by scanning.
type view struct {
	dir      string
	journals []uint64
	db       *leveldb.DB
}

func (v *view) close() {
	if v.db != nil {
		_ = v.db.Close()
	}
}

func (v *view) has(keys ...[]byte) (bool, error) {
	for _, key := range keys {
		if value, err := v.get(key); err != nil || value != nil {
			return value != nil, err
		}
	}
	return false, nil
}

// get returns the key's value, nil when there is none.
func (v *view) get(key []byte) ([]byte, error) {
	values, err := v.getAll(key)
	if err != nil {
		return nil, err
	}
	return values[0], nil
}

// getAll is get for several keys with one pass over the journals, which may be gigabytes.
func (v *view) getAll(keys ...[]byte) ([][]byte, error) {
	values, found := make([][]byte, len(keys)), make([]bool, len(keys))
	for _, num := range v.journals {
		if _, err := scanJournal(filepath.Join(v.dir, journalName(num)), func(b Batch) error {
			for op := range b.Ops() {
				for i, key := range keys {
					if bytes.Equal(op.Key, key) {
						if found[i], values[i] = true, nil; !op.Delete {
							values[i] = append([]byte{}, op.Value...)
						}
					}
				}
			}
			return nil
		}); err != nil {
			return nil, err
		}
	}
	for i, key := range keys {
		if found[i] {
			continue
		}
		if v.db == nil {
			db, err := leveldb.Open(tableStorage{v.dir}, &opt.Options{
				ReadOnly: true, ErrorIfMissing: true, OpenFilesCacheCapacity: 16, DisableBlockCache: true,
			})
			if err != nil {
				return nil, err
			}
			v.db = db
		}
		value, err := v.db.Get(key, nil)
		if err != nil && !errors.Is(err, leveldb.ErrNotFound) {
			return nil, err
		}
		if err == nil {
			values[i] = value
		}
	}
	return values, nil
}

// tableStorage shows goleveldb a directory's manifest and tables, to read. It has no journals and takes no lock.
type tableStorage struct{ dir string }

var errReadOnly = errors.New("chaindata: read-only storage")

func (tableStorage) Lock() (storage.Locker, error)                   { return noLock{}, nil }
func (tableStorage) Log(string)                                      {}
func (tableStorage) SetMeta(storage.FileDesc) error                  { return errReadOnly }
func (tableStorage) Create(storage.FileDesc) (storage.Writer, error) { return nil, errReadOnly }
func (tableStorage) Remove(storage.FileDesc) error                   { return errReadOnly }
func (tableStorage) Rename(_, _ storage.FileDesc) error              { return errReadOnly }
func (tableStorage) Close() error                                    { return nil }
func (tableStorage) List(storage.FileType) ([]storage.FileDesc, error) {
	return nil, nil
}

func (s tableStorage) GetMeta() (storage.FileDesc, error) {
	num, err := currentManifest(s.dir)
	return storage.FileDesc{Type: storage.TypeManifest, Num: int64(num)}, err
}

func (s tableStorage) Open(fd storage.FileDesc) (storage.Reader, error) {
	name := manifestName(uint64(fd.Num))
	if fd.Type == storage.TypeTable {
		name = tableName(uint64(fd.Num))
	}
	f, err := os.Open(filepath.Join(s.dir, name))
	if errors.Is(err, fs.ErrNotExist) && fd.Type == storage.TypeTable {
		f, err = os.Open(filepath.Join(s.dir, oldTableName(uint64(fd.Num))))
	}
	return f, err
}

type noLock struct{}

func (noLock) Unlock() {}
