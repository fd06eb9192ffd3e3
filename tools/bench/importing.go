package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/e2e/harness"
	"github.com/drover-io/drover/replica"
)

// importing are the figures that one chain's import yields, run by run.
type importing struct {
	bare, captured       samples // wall seconds of geth import
	bareCPU, capturedCPU samples // CPU seconds of geth import
	captureCPU           samples // CPU seconds of drover master alone
	applied, written     samples // wall seconds of the replica, of the bare LevelDB
	masterPeak           samples // MB
}

// measureImport runs, side by side and in turns: geth import without and with
// capture, a replica that replays the result, and a bare goleveldb that writes
// the same batches with the same options.
func (b *bench) measureImport(ctx context.Context) error {
	var m importing
	for i := range b.runs {
		progressf("import, run %d of %d", i+1, b.runs)
		if err := b.importOnce(ctx, &m); err != nil {
			return err
		}
	}
	overhead, apply, faster := ratios(m.captured, m.bare), ratios(m.applied, m.written), ratios(m.bare, m.applied)
	b.add("geth import, wall seconds", m.bare.String(), "", true)
	b.add("geth import, CPU seconds", m.bareCPU.String(), "", true)
	b.add("geth import under capture, wall seconds", m.captured.String(), "", true)
	b.add("capture, CPU seconds of drover master", m.captureCPU.String(), "", true)
	b.add("capture, peak memory of drover master, MB", m.masterPeak.String(), "", true)
	b.add("capture overhead: with ÷ without", overhead.String(), "≤ 1.03 with a spare core", overhead.median() <= 1.03)
	b.add("replica replaying the chain, wall seconds", m.applied.String(), "", true)
	b.add("bare goleveldb, same batches, wall seconds", m.written.String(), "", true)
	b.add("apply: replica ÷ bare goleveldb", apply.String(), "≤ 1.25", apply.median() <= 1.25)
	b.add("catch-up: geth import ÷ replica", faster.String(), "≥ 4.5", faster.median() >= 4.5)
	return nil
}

func (b *bench) importOnce(ctx context.Context, m *importing) error {
	s, err := b.newStage(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	pristine, err := s.copyAtRest("pristine")
	if err != nil {
		return err
	}
	bare := filepath.Join(s.dir, "bare")
	if err := copyTree(s.master, bare); err != nil {
		return err
	}
	r, err := s.succeed(ctx, "import", b.geth, harness.ImportArgs(bare, b.chainPath())...)
	if err != nil {
		return err
	}
	m.bare, m.bareCPU = append(m.bare, r.wall.Seconds()), append(m.bareCPU, r.total.Seconds())
	if err := os.RemoveAll(bare); err != nil {
		return err
	}
	if r, err = s.succeed(ctx, "captured", b.drover, s.masterArgs(harness.ImportArgs(s.master, b.chainPath()))...); err != nil {
		return err
	}
	m.captured = append(m.captured, r.wall.Seconds())
	m.captureCPU = append(m.captureCPU, r.own.CPU.Seconds())
	m.capturedCPU = append(m.capturedCPU, (r.total - r.own.CPU).Seconds())
	m.masterPeak = append(m.masterPeak, megabytes(r.own.Peak))
	return s.replay(ctx, m, pristine)
}

// replay runs the replica and the bare LevelDB on copies of one database.
func (s *stage) replay(ctx context.Context, m *importing, pristine string) error {
	batches := filepath.Join(s.dir, "batches")
	if err := s.dump(ctx, pristine, batches); err != nil {
		return err
	}
	bare := filepath.Join(s.dir, "written")
	if err := copyTree(harness.Chaindata(pristine), bare); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	w, err := s.succeed(ctx, "bare", self, bareCommand, bare, batches)
	if err != nil {
		return err
	}
	m.written = append(m.written, w.wall.Seconds())
	r, err := s.succeed(ctx, "replica", s.drover, s.replicaArgs(pristine, "--until-synced")...)
	if err != nil {
		return err
	}
	m.applied = append(m.applied, r.wall.Seconds())
	return nil
}

// dump writes the topic's batches to a file, each behind its length.
func (s *stage) dump(ctx context.Context, datadir, path string) error {
	log, err := changelog.Open(ctx, changelog.Options{Brokers: []string{s.kafka()}, Cluster: clusterName})
	if err != nil {
		return err
	}
	defer log.Close()
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	out := bufio.NewWriterSize(file, 1<<20)
	_, next, err := log.Bounds(ctx)
	if err != nil {
		return err
	}
	err = readBatches(ctx, log, next, func(record []byte) error {
		if err := binary.Write(out, binary.LittleEndian, uint32(len(record))); err != nil {
			return err
		}
		_, err := out.Write(record)
		return err
	})
	return errors.Join(err, out.Flush())
}

// readBatches puts parts together as they come: this topic has one writer that
// nobody disturbed.
func readBatches(ctx context.Context, log *changelog.Log, next int64, f func(record []byte) error) error {
	var record []byte
	return log.ReadRange(ctx, 0, next, func(e changelog.Entry) error {
		if e.Err != nil {
			return e.Err
		}
		if e.Frame.Kind != changelog.KindBatch {
			return nil
		}
		record = append(record, e.Frame.Payload...)
		if e.Frame.Part < e.Frame.Parts {
			return nil
		}
		defer func() { record = record[:0] }()
		return f(record)
	})
}

// bareCommand makes this program write a dump's batches to a LevelDB, and
// nothing else.
const bareCommand = "apply-bare"

// applyBare is what replaying is measured against: the same batches, one write
// each, into goleveldb with the options that the replica uses.
func applyBare(dir, path string) error {
	db, err := leveldb.OpenFile(dir, replica.BulkOptions())
	if err != nil {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	in := bufio.NewReaderSize(file, 1<<20)
	var (
		size   uint32
		batch  leveldb.Batch
		record []byte
	)
	for {
		if err := binary.Read(in, binary.LittleEndian, &size); errors.Is(err, io.EOF) {
			return db.Close()
		} else if err != nil {
			return err
		}
		record = append(record[:0], make([]byte, size)...)
		if _, err := io.ReadFull(in, record); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := batch.Load(record); err != nil {
			return err
		}
		if err := db.Write(&batch, nil); err != nil {
			return err
		}
	}
}

func megabytes(bytes int64) float64 { return float64(bytes) / 1e6 }
