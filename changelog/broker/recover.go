package broker

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// After a clean stop kfake starts from a snapshot.json beside each partition's
// segments. After kill -9 that file does not fit any more, and kfake then holds
// every record of the partition in memory at once while it starts: 2 GB of data,
// 2 GB of memory. So the file is written anew here, from the segments, with the
// torn end of the last one cut off as kfake would.
//
// This knows kfake's files (persist.go, version 1): a segment is record batches
// in Kafka's own format, named by its first offset. A version or a name that is
// not known is left to kfake.

// snapshotVersion is the version of kfake's files that is known here.
const snapshotVersion = 1

type partSnapshot struct {
	Version          int           `json:"version"`
	HighWatermark    int64         `json:"high_watermark"`
	LastStableOffset int64         `json:"last_stable_offset"`
	LogStartOffset   int64         `json:"log_start_offset"`
	Epoch            int32         `json:"epoch"`
	LeaderNode       int32         `json:"leader_node,omitempty"`
	MaxTimestamp     int64         `json:"max_timestamp"`
	CreatedAt        time.Time     `json:"created_at"`
	Segments         []segmentSize `json:"segments"`
}

type segmentSize struct {
	Base     int64 `json:"base_offset"`
	Size     int64 `json:"size"`
	MinEpoch int32 `json:"min_epoch,omitempty"`
	MaxEpoch int32 `json:"max_epoch,omitempty"`
}

// recoverPartitions writes the snapshots that do not fit their segments. Only
// Drover's own topics: they have no transactions, whose state kfake finds by
// reading everything.
func recoverPartitions(dir string) error {
	dirs, err := filepath.Glob(filepath.Join(dir, "partitions", "drover.*"))
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if err := recoverPartition(d); err != nil {
			return fmt.Errorf("recover %s: %w", d, err)
		}
	}
	return nil
}

func recoverPartition(dir string) error {
	segments, err := listSegments(dir)
	if err != nil || len(segments) == 0 {
		return err
	}
	path := filepath.Join(dir, "snapshot.json")
	var old partSnapshot
	switch raw, err := os.ReadFile(path); {
	case err == nil:
		if json.Unmarshal(raw, &old) != nil {
			old = partSnapshot{}
		} else if old.Version > snapshotVersion || fits(old.Segments, segments) {
			return nil
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	last := &segments[len(segments)-1]
	end, epoch, err := cutTornTail(filepath.Join(dir, strconv.FormatInt(last.Base, 10)+".dat"), last)
	if err != nil {
		return err
	}
	created := old.CreatedAt
	if created.IsZero() {
		created = time.Now()
	}
	raw, err := json.Marshal(partSnapshot{
		Version: snapshotVersion, HighWatermark: end, LastStableOffset: end,
		LogStartOffset: max(old.LogStartOffset, segments[0].Base),
		Epoch:          max(old.Epoch, epoch), LeaderNode: old.LeaderNode, CreatedAt: created, Segments: segments,
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".tmp", raw, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

func listSegments(dir string) ([]segmentSize, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var segments []segmentSize
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".dat")
		if !ok {
			continue
		}
		base, err := strconv.ParseInt(name, 10, 64)
		if err != nil {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		segments = append(segments, segmentSize{Base: base, Size: info.Size()})
	}
	slices.SortFunc(segments, func(a, b segmentSize) int { return int(min(1, max(-1, a.Base-b.Base))) })
	return segments, nil
}

func fits(snapshot, segments []segmentSize) bool {
	return slices.EqualFunc(snapshot, segments, func(a, b segmentSize) bool { return a.Base == b.Base && a.Size == b.Size })
}

const (
	batchPrefix = 12 // base offset (8), length of the rest (4)
	batchHeader = 61
	batchMax    = 1 << 30
)

// cutTornTail walks the segment's record batches, cuts the file behind the last
// whole one, and returns the offset behind it and its leader epoch.
func cutTornTail(path string, seg *segmentSize) (end int64, epoch int32, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	end = seg.Base
	at := int64(0)
	var batch []byte
	for {
		var head [batchPrefix]byte
		if _, err := f.ReadAt(head[:], at); err != nil {
			if errors.Is(err, io.EOF) {
				break
			}
			return 0, 0, err
		}
		length := int64(binary.BigEndian.Uint32(head[8:]))
		if length < batchHeader-batchPrefix || length > batchMax || at+batchPrefix+length > seg.Size {
			break
		}
		batch = slices.Grow(batch[:0], int(length))[:length]
		if _, err := f.ReadAt(batch, at+batchPrefix); err != nil {
			return 0, 0, err
		}
		// Behind the prefix: epoch (4), magic (1), CRC-32C of all that follows (4),
		// attributes (2), last offset delta (4).
		if crc32.Checksum(batch[9:], crc32.MakeTable(crc32.Castagnoli)) != binary.BigEndian.Uint32(batch[5:]) {
			break
		}
		epoch = int32(binary.BigEndian.Uint32(batch))
		end = int64(binary.BigEndian.Uint64(head[:])) + int64(binary.BigEndian.Uint32(batch[11:])) + 1
		at += batchPrefix + length
	}
	if at < seg.Size {
		if err := f.Truncate(at); err != nil {
			return 0, 0, err
		}
		seg.Size = at
	}
	return end, epoch, nil
}
