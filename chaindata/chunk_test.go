package chaindata

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand"
	"testing"

	"github.com/syndtr/goleveldb/leveldb/journal"
)

// growing is a file of which only the first n bytes are there yet.
type growing struct {
	data []byte
	n    int
}

func (g *growing) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(g.n) {
		return 0, io.EOF
	}
	n := copy(p, g.data[off:g.n])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// writeJournal is goleveldb's own writer; it returns the bytes and each record's end.
func writeJournal(t testing.TB, records [][]byte) (data []byte, ends []int) {
	t.Helper()
	var buf bytes.Buffer
	w := journal.NewWriter(&buf)
	for _, r := range records {
		part, err := w.Next()
		if err == nil {
			_, err = part.Write(r)
		}
		if err == nil {
			err = w.Flush()
		}
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, buf.Len())
	}
	return buf.Bytes(), ends
}

func randomBytes(seed int64, n int) []byte {
	b := make([]byte, n)
	rand.New(rand.NewSource(seed)).Read(b)
	return b
}

func TestChunkReaderReadsAllSizesAroundBlockBoundaries(t *testing.T) {
	var sizes []int
	for _, center := range []int{0, blockSize, 2 * blockSize, readSize, 3*readSize + 11} {
		for d := -3 * chunkHeaderSize; d <= 3*chunkHeaderSize; d++ {
			if center+d >= 0 {
				sizes = append(sizes, center+d)
			}
		}
	}
	// The filler before each record puts it at every place near a block's end.
	for lead := blockSize - 5*chunkHeaderSize; lead <= blockSize+chunkHeaderSize; lead++ {
		size := sizes[lead%len(sizes)]
		records := [][]byte{randomBytes(1, lead), randomBytes(2, size), randomBytes(3, 5)}
		data, _ := writeJournal(t, records)
		checkRecords(t, data, records)
	}
	var all [][]byte
	for i, size := range sizes {
		all = append(all, randomBytes(int64(i), size))
	}
	data, _ := writeJournal(t, all)
	checkRecords(t, data, all)
}

func checkRecords(t *testing.T, data []byte, want [][]byte) {
	t.Helper()
	r := newChunkReader(&growing{data, len(data)})
	for i, w := range want {
		got, err := r.next()
		if err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
		if !bytes.Equal(got, w) {
			t.Fatalf("record %d of %d bytes differs (%d bytes)", i, len(w), len(got))
		}
	}
	if _, err := r.next(); !errors.Is(err, errMore) || r.torn() {
		t.Fatalf("at the end: %v, torn %v", err, r.torn())
	}
}

func TestChunkReaderGoesOnAsTheFileGrows(t *testing.T) {
	records := [][]byte{randomBytes(1, 10), randomBytes(2, 3*blockSize), {}, randomBytes(3, blockSize-50), randomBytes(4, 200), randomBytes(5, 700_000)}
	data, ends := writeJournal(t, records)
	rng := rand.New(rand.NewSource(9))
	for _, step := range []int{1, 13, blockSize - 1, blockSize, 100_000} {
		g := &growing{data: data}
		r := newChunkReader(g)
		got := 0
		for {
			record, err := r.next()
			if err == nil {
				if !bytes.Equal(record, records[got]) {
					t.Fatalf("step %d: record %d differs", step, got)
				}
				if g.n < ends[got] {
					t.Fatalf("step %d: record %d came before it was written", step, got)
				}
				got++
				continue
			}
			if !errors.Is(err, errMore) {
				t.Fatal(err)
			}
			if got < len(ends) && g.n >= ends[got] {
				t.Fatalf("step %d: record %d is there and was not returned", step, got)
			}
			if g.n == len(data) {
				break
			}
			g.n = min(len(data), g.n+1+rng.Intn(step))
		}
		if got != len(records) {
			t.Fatalf("step %d: %d records", step, got)
		}
	}
}

func TestChunkReaderReportsEachFlippedBit(t *testing.T) {
	records := [][]byte{randomBytes(1, 40), randomBytes(2, blockSize+100), randomBytes(3, 60), randomBytes(4, 80)}
	data, ends := writeJournal(t, records)
	for at := ends[0]; at < ends[2]; at += 1 + at%31 {
		damaged := bytes.Clone(data)
		damaged[at] ^= 1 << (at % 8)
		r := newChunkReader(&growing{damaged, len(damaged)})
		var err error
		n := 0
		for err == nil {
			var got []byte
			if got, err = r.next(); err == nil {
				if !bytes.Equal(got, records[n]) {
					t.Fatalf("flip at %d: a damaged record was returned", at)
				}
				n++
			}
		}
		var bad *chunkError
		if !errors.As(err, &bad) {
			if padding(data, at) || errors.Is(err, errMore) && r.torn() {
				continue // padding is not read; a length that now runs past the file looks unfinished
			}
			t.Fatalf("flip at %d: %v after %d records", at, err, n)
		}
		if bad.offset > int64(at) || int64(at)-bad.offset > blockSize {
			t.Fatalf("flip at %d reported at %d", at, bad.offset)
		}
		if torn, _ := tornTail(r.src, bad.offset); torn {
			t.Fatalf("flip at %d was taken for a torn tail", at)
		}
	}
}

// padding tells whether the byte is in the unused end of a block.
func padding(data []byte, at int) bool {
	pos := 0
	for pos <= at {
		left := blockSize - pos%blockSize
		if left < chunkHeaderSize {
			if at < pos+left {
				return true
			}
			pos += left
			continue
		}
		pos += chunkHeaderSize + int(binary.LittleEndian.Uint16(data[pos+4:]))
	}
	return false
}

func TestZerosAtTheEndAreATornTail(t *testing.T) {
	data, ends := writeJournal(t, [][]byte{randomBytes(1, 100), randomBytes(2, 5000)})
	lost := bytes.Clone(data)
	clear(lost[ends[0]+1000:]) // the second record's later pages never reached the disk
	r := newChunkReader(&growing{lost, len(lost)})
	if _, err := r.next(); err != nil {
		t.Fatal(err)
	}
	_, err := r.next()
	var bad *chunkError
	if !errors.As(err, &bad) || bad.offset != int64(ends[0]) {
		t.Fatalf("got %v", err)
	}
	if torn, err := tornTail(r.src, bad.offset); err != nil || !torn {
		t.Fatalf("torn %v, %v", torn, err)
	}
	// The same zeros with a readable block behind them are damage.
	more, _ := writeJournal(t, [][]byte{randomBytes(1, 100), randomBytes(2, 2*blockSize), randomBytes(3, 500)})
	clear(more[1000:blockSize])
	r = newChunkReader(&growing{more, len(more)})
	r.next()
	if _, err = r.next(); !errors.As(err, &bad) {
		t.Fatalf("got %v", err)
	}
	if torn, err := tornTail(r.src, bad.offset); err != nil || torn {
		t.Fatalf("torn %v, %v", torn, err)
	}
}

func FuzzChunkReader(f *testing.F) {
	for _, records := range [][][]byte{{{}}, {randomBytes(1, 30), randomBytes(2, 9)}, {randomBytes(3, blockSize)}} {
		data, _ := writeJournal(f, records)
		f.Add(data, 7)
	}
	f.Add(make([]byte, 600), 100)
	f.Fuzz(func(t *testing.T, data []byte, step int) {
		// All at once, and as it grows, must be the same records and the same end.
		whole := newChunkReader(&growing{data, len(data)})
		g := &growing{data: data}
		grown := newChunkReader(g)
		step = max(step, len(data)/64, 1)
		for {
			want, wantErr := whole.next()
			got, err := grown.next()
			for errors.Is(err, errMore) && g.n < len(data) {
				g.n = min(len(data), g.n+step)
				got, err = grown.next()
			}
			if (err == nil) != (wantErr == nil) || !bytes.Equal(got, want) || grown.offset() != whole.offset() {
				t.Fatalf("grown: %d bytes, %v at %d; whole: %d bytes, %v at %d", len(got), err, grown.offset(), len(want), wantErr, whole.offset())
			}
			if err != nil {
				var bad *chunkError
				if errors.As(err, &bad) {
					if _, err := tornTail(whole.src, bad.offset); err != nil {
						t.Fatal(err)
					}
				} else if !errors.Is(err, errMore) {
					t.Fatal(err)
				}
				return
			}
		}
	})
}
