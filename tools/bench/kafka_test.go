package main

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/drover-io/drover/changelog"
)

func TestKafkaHasFiguresOfItsOwn(t *testing.T) {
	s, err := parse([]string{"--kafka"}, io.Discard)
	if err != nil || s.blocks != 500 || s.heads != 60 || s.promotions != 10 || !slices.Equal(s.only, kafkaNames) {
		t.Errorf("%+v, %v", s, err)
	}
	s, err = parse([]string{"--kafka", "--quick", "--blocks", "77"}, io.Discard)
	if err != nil || s.blocks != 77 || s.heads != 30 || s.runs != 2 || s.promotions != 2 {
		t.Errorf("%+v, %v", s, err)
	}
	for _, wrong := range [][]string{{"--kafka", "--only=lag"}, {"--only=stages"}, {"--kafka", "--promotions=0"}} {
		if _, err := parse(wrong, io.Discard); !errors.Is(err, errUsage) {
			t.Errorf("%v: %v", wrong, err)
		}
	}
}

func TestPartsOfATakeoverAreFoundInTheLog(t *testing.T) {
	output := "time=x level=INFO msg=\"timeline opened\" total=9s\n" +
		`time=x level=INFO msg="took over" timeline=2 detect=6.001s drain=130ms open=90ms prepare=22ms geth=1m0.559s firstBlock=600ms total=6.844s` + "\nmore total=3s\n"
	parts, err := tookOver(output)
	if err != nil || parts["detect"] != 6001*time.Millisecond || parts["geth"] != time.Minute+559*time.Millisecond || parts["total"] != 6844*time.Millisecond {
		t.Errorf("%v, %v", parts, err)
	}
	for _, incomplete := range []string{"", `msg="took over" timeline=2 detect=6s drain=1s open=1s prepare=1s geth="not yet" firstBlock="not yet" total="not yet"`} {
		if parts, err := tookOver(incomplete); err == nil {
			t.Errorf("%q: %v", incomplete, parts)
		}
	}
}

// testTape has three blocks of a large batch and a small one that sets the head.
func testTape(t *testing.T) *tape {
	t.Helper()
	w, err := newTapeWriter(filepath.Join(t.TempDir(), "tape"))
	if err != nil {
		t.Fatal(err)
	}
	next := uint64(1)
	for range 3 {
		for _, put := range [][2]string{{"key", string(make([]byte, 1000))}, {"LastBlock", string(make([]byte, 32))}} {
			var b leveldb.Batch
			b.Put([]byte(put[0]), []byte(put[1]))
			record := append([]byte{byte(next), 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}, b.Dump()...)
			frames := changelog.SplitBatch(1, next, 1, record, 0, time.Now())
			if err := w.add(changelog.Entry{Offset: int64(next - 1), Frame: frames[0]}); err != nil {
				t.Fatal(err)
			}
			next++
		}
	}
	made, err := w.finish(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := made.close(); err != nil {
			t.Error(err)
		}
	})
	return made
}

func TestTapeIsCutIntoRequests(t *testing.T) {
	made := testTape(t)
	if len(made.records) != 6 || made.last != 6 {
		t.Fatalf("%d records up to sequence %d", len(made.records), made.last)
	}
	for size, want := range map[int]int{everything: 1, oneBlock: 3, 1: 6, 3000: 2, 1 << 20: 1} {
		requests := made.requests(size)
		if len(requests) != want {
			t.Errorf("size %d: %d requests, want %d", size, len(requests), want)
		}
		if !bytes.Equal(bytes.Join(requests, nil), made.mapped) {
			t.Errorf("size %d: the requests are not the whole tape", size)
		}
	}
}

func TestAnEmptyTapeIsAnError(t *testing.T) {
	w, err := newTapeWriter(filepath.Join(t.TempDir(), "tape"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.finish(nil); err == nil {
		t.Error("no error")
	}
}
