package chaindata

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/golang/snappy"
)

// Description is what a chaindata directory at rest says about itself.
type Description struct {
	State           State
	Marker          *Marker // nil: it has none
	Position        []byte  // the value of drover-position, nil: it has none
	Genesis         [32]byte
	DatabaseVersion uint64
	Head            ChainHead // of LastBlock
}

// ChainHead is the block whose state a database serves.
type ChainHead struct {
	Number uint64
	Hash   [32]byte
	Root   [32]byte // its state root
	Time   uint64   // seconds since 1970
}

// Describe reads position, genesis and head of a directory at rest without opening it: that would take a sequence
// (State.Reopened). ancient is its freezer, which may hold the head's header; default dir/ancient. ErrNoDatabase when it holds no
// database or no chain.
func Describe(dir, ancient string) (Description, error) {
	var d Description
	var err error
	if d.State, err = Inspect(dir); err != nil {
		return d, err
	}
	marker, err := ReadMarker(dir)
	if err == nil {
		d.Marker = &marker
	} else if !errors.Is(err, ErrNoMarker) {
		return d, err
	}
	v := &view{dir: dir, journals: d.State.Journals}
	defer v.close()
	genesisKey := append(append([]byte("h"), make([]byte, 8)...), 'n')
	values, err := v.getAll(headBlockKey, genesisKey, []byte("drover-position"), []byte("DatabaseVersion"))
	if err != nil {
		return d, fmt.Errorf("read %s: %w", dir, err)
	}
	head, genesis := values[0], values[1]
	if len(head) != 32 || len(genesis) != 32 {
		return d, fmt.Errorf("%w: %s holds no chain yet", ErrNoDatabase, dir)
	}
	copy(d.Genesis[:], genesis)
	d.Position = values[2]
	if version, _, ok := rlpString(values[3]); ok {
		d.DatabaseVersion = bigEndian(version)
	}
	if ancient == "" {
		ancient = filepath.Join(dir, "ancient")
	}
	if err := d.Head.load(v, head, ancient); err != nil {
		return d, fmt.Errorf("head block %x of %s: %w", head, dir, err)
	}
	return d, nil
}

func (h *ChainHead) load(v *view, hash []byte, ancient string) error {
	copy(h.Hash[:], hash)
	number, err := v.get(append([]byte("H"), hash...))
	if err != nil {
		return err
	}
	if len(number) != 8 {
		return errors.New("its number is missing")
	}
	h.Number = binary.BigEndian.Uint64(number)
	header, err := v.get(bytes.Join([][]byte{[]byte("h"), number, hash}, nil))
	if err != nil {
		return err
	}
	if header == nil { // geth moved it: a chain that finalizes its head freezes it, too
		if header, err = frozenHeader(ancient, h.Number); err != nil {
			return fmt.Errorf("its header is neither in the database nor in the freezer: %w", err)
		}
	}
	if _, h.Root, err = headerRefs(header); err != nil {
		return err
	}
	h.Time, err = headerTime(header)
	return err
}

// headerTime takes the time, item 11, out of a header's RLP.
func headerTime(rlp []byte) (uint64, error) {
	body, ok := rlpList(rlp)
	if !ok {
		return 0, errHeader
	}
	for range 11 {
		if _, body, ok = rlpString(body); !ok {
			return 0, errHeader
		}
	}
	item, _, ok := rlpString(body)
	if !ok || len(item) > 8 {
		return 0, errHeader
	}
	return bigEndian(item), nil
}

// bigEndian is the number in at most 8 bytes, as RLP has it.
func bigEndian(b []byte) uint64 {
	var n uint64
	for _, c := range b {
		n = n<<8 | uint64(c)
	}
	return n
}

// frozenHeader reads a header from a freezer (core/rawdb/freezer_table.go). The index has an entry of 6 bytes, big endian,
// for each item: number of the data file (2), where the item ends in it (4). Before them stands one whose second field is
// the number of items that were cut off at the start. Items are compressed by snappy.
func frozenHeader(ancient string, number uint64) ([]byte, error) {
	const entry = 6
	dir := filepath.Join(ancient, "chain")
	index, err := os.Open(filepath.Join(dir, "headers.cidx"))
	if err != nil {
		return nil, err
	}
	defer index.Close()
	var first, two [2 * entry]byte
	if _, err := index.ReadAt(first[:entry], 0); err != nil {
		return nil, err
	}
	cut := uint64(binary.BigEndian.Uint32(first[2:]))
	if number < cut {
		return nil, fs.ErrNotExist
	}
	at := int64(number-cut) * entry
	if _, err := index.ReadAt(two[:], at); err != nil {
		return nil, fmt.Errorf("%s: %w", index.Name(), err)
	}
	file, start, end := binary.BigEndian.Uint16(two[entry:]), binary.BigEndian.Uint32(two[2:]), binary.BigEndian.Uint32(two[entry+2:])
	if at == 0 || binary.BigEndian.Uint16(two[:]) != file {
		start = 0
	}
	if end < start || end-start > 1<<20 {
		return nil, fmt.Errorf("%s: the entry of block %d is damaged", index.Name(), number)
	}
	data, err := os.Open(filepath.Join(dir, fmt.Sprintf("headers.%04d.cdat", file)))
	if err != nil {
		return nil, err
	}
	defer data.Close()
	item := make([]byte, end-start)
	if _, err := data.ReadAt(item, int64(start)); err != nil {
		return nil, fmt.Errorf("%s: %w", data.Name(), err)
	}
	return snappy.Decode(nil, item)
}
