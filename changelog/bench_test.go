package changelog_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/changelog/broker"
	localkafka "github.com/drover-io/drover/tools/kafka"
)

// chainLike makes n journal records of about size bytes that look like geth's:
// trie nodes (hash keys, RLP of mostly hashes), receipts and headers (addresses
// and blooms that repeat, long runs of zeros), tx lookups.
func chainLike(n, size int) [][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	random := func(k int) []byte {
		b := make([]byte, k)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	addresses := make([][]byte, 64)
	for i := range addresses {
		addresses[i] = random(20)
	}
	records := make([][]byte, n)
	next := uint64(1)
	for i := range records {
		rec := make([]byte, 12, size+1024)
		count := uint32(0)
		put := func(key, value []byte) {
			rec = append(rec, 1)
			rec = binary.AppendUvarint(rec, uint64(len(key)))
			rec = append(rec, key...)
			rec = binary.AppendUvarint(rec, uint64(len(value)))
			rec = append(rec, value...)
			count++
		}
		for len(rec) < size {
			switch r.IntN(10) {
			case 0, 1, 2, 3: // branch node: up to 16 children hashes, many empty
				var v []byte
				for range 17 {
					if r.IntN(3) == 0 {
						v = append(v, 0x80)
					} else {
						v = append(append(v, 0xa0), random(32)...)
					}
				}
				put(random(32), v)
			case 4, 5, 6: // leaf: compact path, account with two known hashes
				put(random(32), append(append(append([]byte{0xf8, 0x6a, 0xa0}, random(30)...), 0xb8, 0x44, 0xf8, 0x42, 1, 0x80), random(64)...))
			case 7, 8: // receipt with one log
				v := append([]byte{2, 0xf9, 1, 0x50, 1, 0x83, 0x52, 0x08, 0}, addresses[r.IntN(64)]...)
				v = append(v, random(8)...)
				v = append(v, make([]byte, 12)...)
				v = append(v, addresses[r.IntN(64)]...)
				put(append([]byte("r"), random(8)...), append(v, make([]byte, 64)...))
			default: // tx lookup
				put(append([]byte("l"), random(32)...), []byte{0x0f, 0x42, 0x40})
			}
		}
		binary.LittleEndian.PutUint64(rec, next)
		binary.LittleEndian.PutUint32(rec[8:], count)
		next += uint64(count)
		records[i] = rec
	}
	return records
}

func chainFrames(records [][]byte) (frames []changelog.Frame, last uint64, bytes int64) {
	for _, rec := range records {
		first, count := binary.LittleEndian.Uint64(rec), binary.LittleEndian.Uint32(rec[8:])
		frames = append(frames, changelog.SplitBatch(1, first, count, rec, 0, time.Now())...)
		last = first + uint64(count) - 1
		bytes += int64(len(rec))
	}
	return frames, last, bytes
}

var compressions = []changelog.Compression{changelog.CompressionNone, changelog.CompressionSnappy, changelog.CompressionLZ4, changelog.CompressionZstd}

// benchRecords are chainLike's, or pieces of the file that DROVER_BENCH_JOURNAL
// names: a journal of a real geth gives the figures of DESIGN.md.
func benchRecords(b *testing.B, n, size int) [][]byte {
	path := os.Getenv("DROVER_BENCH_JOURNAL")
	if path == "" {
		return chainLike(n, size)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	var records [][]byte
	for i := 0; len(records) < n; i = (i + 1) % (len(raw)/size + 1) {
		rec := slices.Clone(raw[i*size : min(len(raw), (i+1)*size)])
		if len(rec) < 12 {
			continue
		}
		binary.LittleEndian.PutUint64(rec, uint64(len(records)+1))
		binary.LittleEndian.PutUint32(rec[8:], 1)
		records = append(records, rec)
	}
	return records
}

// BenchmarkPublish: 100 KB batches, several a request, to a broker with its data
// on disk in this process. wire/raw is the size on the broker's disk.
func BenchmarkPublish(b *testing.B) {
	frames, _, bytes := chainFrames(benchRecords(b, 640, 100_000))
	for _, c := range compressions {
		b.Run(string(c), func(b *testing.B) {
			l, used := benchLog(b)
			p := l.NewPublisher(changelog.PublisherOptions{Compression: c})
			ctx := context.Background()
			b.SetBytes(bytes)
			cpu := cpuTime()
			b.ResetTimer()
			for b.Loop() {
				if _, err := p.Publish(ctx, frames); err != nil {
					b.Fatal(err)
				}
			}
			total := float64(bytes) * float64(b.N)
			b.ReportMetric((cpuTime()-cpu).Seconds()/(total/1e9), "cpu-s/GB")
			b.ReportMetric(float64(used())/total, "disk/raw")
		})
	}
}

// BenchmarkFetch: reading those back, decoded, checked and sequenced.
func BenchmarkFetch(b *testing.B) {
	frames, last, bytes := chainFrames(benchRecords(b, 5120, 100_000))
	for _, c := range compressions {
		b.Run(string(c), func(b *testing.B) {
			l, _ := benchLog(b)
			if _, err := l.NewPublisher(changelog.PublisherOptions{Compression: c}).Publish(context.Background(), frames); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(bytes)
			cpu := cpuTime()
			b.ResetTimer()
			for b.Loop() {
				follow(b, l, changelog.Position{Cluster: testCluster, Timeline: 1}, 0, last)
			}
			b.ReportMetric((cpuTime()-cpu).Seconds()/(float64(bytes)*float64(b.N)/1e9), "cpu-s/GB")
		})
	}
}

// BenchmarkLatency: from Publish of one frame of 20 KB to the reader's Next.
func BenchmarkLatency(b *testing.B) {
	for _, gap := range []time.Duration{0, 20 * time.Millisecond} {
		b.Run(fmt.Sprintf("every=%s", gap), func(b *testing.B) {
			l, _ := benchLog(b)
			p := l.NewPublisher(changelog.PublisherOptions{})
			r := l.NewReader(0)
			defer r.Close()
			ctx := context.Background()
			var took []time.Duration
			seq := uint64(0)
			for b.Loop() {
				seq++
				frames := changelog.SplitBatch(1, seq, 1, record(seq, 1, 20_000), 0, time.Now())
				started := time.Now()
				done := make(chan error, 1)
				go func() {
					_, err := p.Publish(ctx, frames)
					done <- err
				}()
				if _, err := r.Next(ctx); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(started))
				if err := <-done; err != nil {
					b.Fatal(err)
				}
				time.Sleep(gap)
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
		})
	}
}

// benchLog opens a change log on a broker in this process, with its data in dir,
// or, with DROVER_BENCH_KAFKA set to 1 or 3, on as many Apache Kafka brokers: then
// cpu-s/GB is the client's alone. used tells what is on the (first) broker's disk.
func benchLog(b *testing.B) (l *changelog.Log, used func() int64) {
	dir := b.TempDir()
	var brokers []string
	if n, _ := strconv.Atoi(os.Getenv("DROVER_BENCH_KAFKA")); n > 0 {
		k := localkafka.ForTest(b, localkafka.Options{Brokers: n, HeapMB: 1024, JVMFlags: []string{"-XX:TieredStopAtLevel=4"}})
		brokers, dir = k.Bootstrap(localkafka.Plaintext), filepath.Join(k.DataDir(1), changelog.TopicName(testCluster)+"-0")
	} else {
		brokers = []string{startBroker(b, broker.Options{DataDir: dir}).Addr()}
	}
	l, err := changelog.Open(context.Background(), changelog.Options{Brokers: brokers, Cluster: testCluster})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	if _, _, err := l.Ensure(context.Background(), changelog.TopicSpec{}); err != nil {
		b.Fatal(err)
	}
	return l, func() int64 { return dirSize(b, dir) }
}
