package changelog

import (
	"math/rand/v2"
	"testing"
	"time"
)

// A trie node is written again whenever something below it changes: under backlog its earlier version is in the same
// request, megabytes before.
func TestLargeRequestsFindWhatWasWrittenLongBefore(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	half := make([]byte, largeRequest)
	for i := range half {
		half[i] = byte(r.Uint32())
	}
	e, err := newEncoder(CompressionZstd)
	if err != nil {
		t.Fatal(err)
	}
	encoded := func(record []byte) int {
		frames := SplitBatch(1, 1, 1, record, 0, time.UnixMilli(1))
		set, err := e.encode(frames, len(record))
		if err != nil {
			t.Fatal(err)
		}
		return len(set)
	}
	if once, twice := encoded(half), encoded(append(half, half...)); twice > once*11/10 {
		t.Errorf("%d bytes once, %d bytes twice", once, twice)
	}
}
