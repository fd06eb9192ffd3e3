package changelog_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"hash/crc32"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/drover-io/drover/changelog"
)

var update = flag.Bool("update", false, "write testdata's golden files anew: only for a new format version")

var goldenTime = time.Unix(1_795_255_200, 123_456_789)

func goldenFrames() map[string]changelog.Frame {
	parts := changelog.SplitBatch(2, 77, 3, record(77, 3, 100), 64, goldenTime)
	return map[string]changelog.Frame{
		"frame-v1-batch.bin": changelog.SplitBatch(1, 42, 2, record(42, 2, 40), 0, goldenTime)[0],
		"frame-v1-part.bin":  parts[1],
		"frame-v1-heartbeat.bin": changelog.HeartbeatFrame(1, 43, changelog.Heartbeat{
			Cluster: "blue", Genesis: "0x01", Head: &changelog.BlockRef{Number: 9, Hash: "0x02", Time: 1_795_255_199},
			Peers: 3, GethVersion: "1.17.7", SourceAlive: true, Interval: 2 * time.Second,
		}, goldenTime),
		"frame-v1-start.bin": changelog.StartFrame(2, changelog.TimelineStart{
			Cluster: "blue", Genesis: "0x01", Reason: changelog.ReasonTakeover, PreviousTimeline: 1, PreviousSequence: 43, Base: 43,
		}, goldenTime),
	}
}

func golden(t *testing.T, name string, have []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, have, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return want
}

func TestFrameBytesAreThoseOfTheGoldenFiles(t *testing.T) {
	for name, f := range goldenFrames() {
		have := f.AppendTo(nil)
		want := golden(t, name, have)
		if !bytes.Equal(have, want) {
			t.Errorf("%s: the format changed:\nhave %x\nwant %x", name, have, want)
		}
		back, err := changelog.Decode(want)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !back.Time.Equal(f.Time) {
			t.Errorf("%s: time %v, want %v", name, back.Time, f.Time)
		}
		back.Time = f.Time
		if !reflect.DeepEqual(back, f) {
			t.Errorf("%s: decoded %+v, want %+v", name, back, f)
		}
	}
}

func TestPositionBytesAreThoseOfTheGoldenFile(t *testing.T) {
	p := changelog.Position{Cluster: "blue", Timeline: 3, Sequence: 1 << 40, Offset: 12345}
	want := golden(t, "position-v1.bin", p.Marshal())
	if !bytes.Equal(p.Marshal(), want) {
		t.Errorf("the format changed: have %x, want %x", p.Marshal(), want)
	}
	back, err := changelog.UnmarshalPosition(want)
	if err != nil || back != p {
		t.Errorf("decoded %+v, %v; want %+v", back, err, p)
	}
	for i := range want {
		damaged := bytes.Clone(want)
		damaged[i] ^= 0x10
		if _, err := changelog.UnmarshalPosition(damaged); err == nil {
			t.Errorf("byte %d flipped: no error", i)
		}
	}
}

// damaged returns a frame's bytes with every fault of row 7 of faults.md.
func damaged(t testing.TB, good []byte) map[string][]byte {
	t.Helper()
	flip := func(at int) []byte {
		b := bytes.Clone(good)
		b[at] ^= 0x20
		return b
	}
	future := bytes.Clone(good)
	future[4] = 2
	return map[string][]byte{
		"empty":            {},
		"truncated header": good[:changelog.FrameOverhead-1],
		"truncated magic":  good[:3],
		"truncated":        good[:len(good)-1],
		"oversized":        append(bytes.Clone(good), 0),
		"flipped magic":    flip(0),
		"flipped sequence": flip(16),
		"flipped length":   flip(48),
		"flipped payload":  flip(len(good) - 1),
		"future version":   future,
	}
}

func TestDamagedFramesAreRefusedWithTheReason(t *testing.T) {
	f := changelog.SplitBatch(1, 42, 2, record(42, 2, 40), 0, goldenTime)[0]
	for name, b := range damaged(t, f.AppendTo(nil)) {
		_, err := changelog.Decode(b)
		want := changelog.ErrBadFrame
		if name == "future version" {
			want = changelog.ErrFutureVersion
			if err != nil && (!strings.Contains(err.Error(), "version 2") || !strings.Contains(err.Error(), "up to 1")) {
				t.Errorf("%s: %q does not name both versions", name, err)
			}
		}
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

func TestEveryFlippedBitIsNoticed(t *testing.T) {
	f := changelog.SplitBatch(1, 42, 2, record(42, 2, 40), 0, goldenTime)[0]
	good := f.AppendTo(nil)
	for i := range len(good) * 8 {
		b := bytes.Clone(good)
		b[i/8] ^= 1 << (i % 8)
		if _, err := changelog.Decode(b); err == nil {
			t.Errorf("bit %d of byte %d flipped: no error", i%8, i/8)
		}
	}
}

func TestFramesWithImpossibleFieldsAreRefused(t *testing.T) {
	for name, change := range map[string]func([]byte){
		"timeline 0":     func(b []byte) { binary.LittleEndian.PutUint64(b[8:], 0) },
		"part 0":         func(b []byte) { binary.LittleEndian.PutUint32(b[28:], 0) },
		"part 2 of 1":    func(b []byte) { binary.LittleEndian.PutUint32(b[28:], 2) },
		"count 0":        func(b []byte) { binary.LittleEndian.PutUint32(b[24:], 0) },
		"sequence 0":     func(b []byte) { binary.LittleEndian.PutUint64(b[16:], 0) },
		"overflow":       func(b []byte) { binary.LittleEndian.PutUint64(b[16:], 1<<64-1) },
		"unknown kind":   func(b []byte) { b[5] = 9 },
		"reserved bytes": func(b []byte) { b[6] = 1 },
		"version 0":      func(b []byte) { b[4] = 0 },
	} {
		f := changelog.SplitBatch(1, 42, 2, record(42, 2, 40), 0, goldenTime)[0]
		b := f.AppendTo(nil)
		change(b)
		sum := crc32.Checksum(b[:52], crc32.MakeTable(crc32.Castagnoli))
		binary.LittleEndian.PutUint32(b[52:], crc32.Update(sum, crc32.MakeTable(crc32.Castagnoli), b[56:]))
		if _, err := changelog.Decode(b); !errors.Is(err, changelog.ErrBadFrame) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSplitCutsEvenlyAndLosesNothing(t *testing.T) {
	for size := 12; size < 400; size++ {
		for _, limit := range []int{1, 7, 64, 1000} {
			rec := record(5, 1, size)
			frames := changelog.SplitBatch(1, 5, 1, rec, limit, goldenTime)
			var joined []byte
			for i, f := range frames {
				if len(f.Payload) == 0 || len(f.Payload) > limit || int(f.Part) != i+1 || int(f.Parts) != len(frames) {
					t.Fatalf("size %d limit %d: part %d of %d with %d bytes at place %d", size, limit, f.Part, f.Parts, len(f.Payload), i)
				}
				joined = append(joined, f.Payload...)
			}
			if !bytes.Equal(joined, rec) {
				t.Fatalf("size %d limit %d: bytes differ", size, limit)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, fr := range goldenFrames() {
		f.Add(fr.AppendTo(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		// The checksum would keep the fuzzer out of everything behind it.
		if len(b) >= changelog.FrameOverhead {
			b = bytes.Clone(b)
			table := crc32.MakeTable(crc32.Castagnoli)
			binary.LittleEndian.PutUint32(b[52:], crc32.Update(crc32.Checksum(b[:52], table), table, b[56:]))
		}
		fr, err := changelog.Decode(b)
		if err != nil {
			if !errors.Is(err, changelog.ErrBadFrame) && !errors.Is(err, changelog.ErrFutureVersion) {
				t.Fatalf("unexpected error %v", err)
			}
			return
		}
		if again := fr.AppendTo(nil); !bytes.Equal(again, b) {
			t.Fatalf("encodes to %x, was %x", again, b)
		}
		fr.Heartbeat()
		fr.Start()
		s := changelog.NewSequencer(changelog.Position{Timeline: fr.Timeline, Sequence: fr.First - 1})
		s.Next(changelog.Entry{Frame: fr})
	})
}

func FuzzUnmarshalPosition(f *testing.F) {
	f.Add(changelog.Position{Cluster: "blue", Timeline: 3, Sequence: 9, Offset: -1}.Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := changelog.UnmarshalPosition(b)
		if err == nil && !bytes.Equal(p.Marshal(), b) {
			t.Fatalf("%+v encodes to %x, was %x", p, p.Marshal(), b)
		}
	})
}
