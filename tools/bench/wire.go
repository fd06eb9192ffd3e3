package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/drover-io/drover/chaindata"
)

// packing is one way to compress the change log. Nothing here goes to Kafka: sizes follow from the bytes alone.
type packing struct {
	request int // bytes of frames in a request; oneBlock; everything
	level   zstd.EncoderLevel
	window  int
}

const (
	oneBlock   = -1
	everything = 0
)

func (p packing) String() string {
	size := fmt.Sprintf("%d MiB", p.request>>20)
	switch p.request {
	case oneBlock:
		size = "a block"
	case everything:
		size = "all"
	}
	return fmt.Sprintf("%s a request, zstd %s, window %d MiB", size, p.level, p.window>>20)
}

var packings = []packing{
	{oneBlock, zstd.SpeedFastest, 1 << 20},
	{1 << 20, zstd.SpeedFastest, 1 << 20},
	{2 << 20, zstd.SpeedFastest, 2 << 20},
	{4 << 20, zstd.SpeedFastest, 4 << 20},
	{oneBlock, zstd.SpeedDefault, 1 << 20},
	{1 << 20, zstd.SpeedDefault, 1 << 20},
	{2 << 20, zstd.SpeedDefault, 4 << 20},
	{4 << 20, zstd.SpeedDefault, 4 << 20},
	{1 << 20, zstd.SpeedBetterCompression, 1 << 20},
	{4 << 20, zstd.SpeedBetterCompression, 4 << 20},
	{everything, zstd.SpeedBestCompression, 128 << 20},
}

// floorLevel is that of the zstd program for the floor: what lies above it cannot be had by a setting.
const floorLevel = 19

// wire compresses the tape in several ways. Sizes are the same in each run, so there is one run.
func (b *bench) wire(ctx context.Context, j *journals) (*figure, error) {
	f := newFigure("wire", "what zstd makes of the change log, ÷ journal bytes, and the CPU time of it for each GB")
	f.Load = append(f.Load, load())
	f.note("wire ÷ journal as it is sent is in the stages figure; this is what other settings would give, and a floor")
	f.note("floor: the whole change log as one stream, zstd -%d --long=27, if the zstd program is there", floorLevel)
	for _, p := range packings {
		b.say("wire: %s (load %.2f)", p, load())
		before := selfCPU()
		packed, err := packTape(ctx, j.tape, p)
		if err != nil {
			return f, fmt.Errorf("wire: %s: %w", p, err)
		}
		f.add(p.String(), "", float64(packed)/float64(j.bytes))
		f.add("— CPU of "+p.String(), "s/GB", (selfCPU()-before).Seconds()/(float64(j.bytes)/1e9))
	}
	if path, err := exec.LookPath("zstd"); err == nil {
		b.say("wire: the floor (load %.2f)", load())
		packed, err := packedBy(ctx, path, j.tape.mapped)
		if err != nil {
			return f, fmt.Errorf("wire: %w", err)
		}
		f.add("floor", "", float64(packed)/float64(j.bytes))
	}
	return f, wireKinds(f, j)
}

func packTape(ctx context.Context, t *tape, p packing) (packed int64, err error) {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(p.level), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(p.window), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false))
	if err != nil {
		return 0, err
	}
	defer encoder.Close()
	var out []byte
	for _, request := range t.requests(p.request) {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		out = encoder.EncodeAll(request, out[:0])
		packed += int64(len(out))
	}
	return packed, nil
}

// requests cuts the tape where a master's requests would end. What Kafka's record format adds, some 20 bytes for each
// frame, is left out.
func (t *tape) requests(size int) (requests [][]byte) {
	from, end := 0, 0
	for i := range t.entries {
		if size > 0 && end > from && end+t.entries[i].Size-from > size {
			requests, from = append(requests, t.mapped[from:end]), end
		}
		end = t.starts[i] + t.entries[i].Size
		if size == oneBlock && t.entries[i].Frame.Parts == 1 {
			if _, head, err := headOf(t.entries[i].Frame.Payload); head && err == nil {
				requests, from = append(requests, t.mapped[from:end]), end
			}
		}
	}
	if end > from {
		requests = append(requests, t.mapped[from:end])
	}
	return requests
}

// packedBy is what the zstd program makes of the bytes.
func packedBy(ctx context.Context, path string, content []byte) (int64, error) {
	c := exec.CommandContext(ctx, path, "-"+strconv.Itoa(floorLevel), "--long=27", "-T1", "-q", "-c")
	c.Stdin = bytes.NewReader(content)
	var size counter
	var complaint strings.Builder
	c.Stdout, c.Stderr = &size, &complaint
	if err := c.Run(); err != nil {
		return 0, errors.Join(fmt.Errorf("%s: %w: %s", path, err, complaint.String()), ctx.Err())
	}
	return int64(size), nil
}

type counter int64

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

// wireKinds tells what the journal consists of and how well each part compresses alone, since that is what bounds the
// whole. The key of a trie node is the Keccak hash of its value: 32 bytes that no compressor can guess.
func wireKinds(f *figure, j *journals) error {
	var parts [256][]byte
	var keys int
	for _, record := range j.tape.records {
		batch, err := chaindata.ParseBatch(record)
		if err != nil {
			return err
		}
		for op := range batch.Ops() {
			kind, _, _ := chaindata.Classify(op.Key)
			if kind == chaindata.TrieNode {
				keys += len(op.Key)
			}
			parts[kind] = append(append(parts[kind], op.Key...), op.Value...)
		}
	}
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(128<<20))
	if err != nil {
		return err
	}
	defer encoder.Close()
	kinds := make([]int, 0, len(parts))
	for kind := range parts {
		if len(parts[kind])*100 >= int(j.bytes) {
			kinds = append(kinds, kind)
		}
	}
	slices.SortFunc(kinds, func(a, b int) int { return len(parts[b]) - len(parts[a]) })
	for _, kind := range kinds {
		name := chaindata.KeyKind(kind).String()
		f.add("share of the journal: "+name, "%", float64(len(parts[kind]))*100/float64(j.bytes))
		f.add("— "+name+" alone, zstd best", "", float64(len(encoder.EncodeAll(parts[kind], nil)))/float64(len(parts[kind])))
	}
	f.add("share of the journal: keys of trie nodes", "%", float64(keys)*100/float64(j.bytes))
	return nil
}
