package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/e2e/harness"
	"github.com/drover-io/drover/replica"
)

// requestBytes is what the master puts into one produce request when more is waiting (master/queue.go).
const requestBytes = 3 << 20

var compressions = []changelog.Compression{
	changelog.CompressionZstd, changelog.CompressionLZ4, changelog.CompressionSnappy, changelog.CompressionNone,
}

func newStagesFigure(compression changelog.Compression) *figure {
	f := newFigure("stages, "+string(compression), "journal bytes a second through each stage, alone and all at once, three brokers with acks=all")
	if compression != changelog.DefaultCompression {
		return f
	}
	f.Targets = []*target{
		{Series: "publish ÷ apply", Limit: 2, AtLeast: true},
		{Series: "fetch ÷ apply", Limit: 2, AtLeast: true},
		{Series: "wire ÷ journal", Limit: 0.6, size: true},
	}
	f.note("MB are 10^6 bytes of journal records, whatever they are compressed to; ratios are of the same run")
	f.note("capture: a chaindata.Follower over the journals that a `geth import` wrote, from the page cache")
	f.note("publish: changelog.Publisher, batches from memory cut into frames, %d MiB a request as the master sends them, one request in flight and the next one compressed meanwhile, until the last answer", requestBytes>>20)
	f.note("fetch: changelog.Reader and Sequencer: what was just published, decoded, checked, batches joined")
	f.note("apply: replica.Run with UntilSynced on those frames in memory: open the database, check, sort, write, close")
	f.note("fetch and apply: the same replica on the topic")
	f.note("together: all four at once, capture into the topic and the topic into a replica")
	f.note("CPU: seconds for each GB of journal; drover's is the bench process, Kafka's the three brokers, which share %d cores with it", runtime.NumCPU())
	f.note("per CPU second of drover: what the ratio would be if the brokers had machines of their own and answered at once")
	f.note("wire: record batches on a broker's disk, which are those of the produce requests")
	return f
}

// onTape measures what needs the journals of an import.
func (b *bench) onTape(ctx context.Context) (figures []*figure, err error) {
	if !b.wants("stages") && !b.wants("wire") {
		return nil, nil
	}
	j, err := b.importJournals(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, j.tape.close()) }()
	b.say("%.1f MB of journal in %d frames", float64(j.bytes)/1e6, len(j.tape.entries))
	if b.wants("stages") {
		if figures, err = b.stages(ctx, j); err != nil {
			return figures, fmt.Errorf("stages: %w", err)
		}
	}
	if b.wants("wire") {
		f, err := b.wire(ctx, j)
		return append(figures, f), err
	}
	return figures, nil
}

func (b *bench) stages(ctx context.Context, j *journals) (figures []*figure, err error) {
	s := &stages{bench: b, journals: j}
	for _, c := range compressions {
		figures = append(figures, newStagesFigure(c))
	}
	if s.cluster, err = b.newCluster(ctx); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.end(s.cluster)) }()
	// The brokers' code is compiled while it runs: the first requests are slow.
	s.measured = newFigure("warm-up", "")
	if err := s.measure(ctx, changelog.CompressionZstd); err != nil {
		return nil, err
	}
	for s.run = range b.runs {
		for i, c := range compressions {
			s.measured = figures[i]
			s.measured.Load = append(s.measured.Load, load())
			b.say("run %d of %d: stages, %s (load %.2f)", s.run+1, b.runs, c, load())
			if err := s.measure(ctx, c); err != nil {
				return figures, fmt.Errorf("run %d, %s: %w", s.run+1, c, err)
			}
		}
	}
	return figures, nil
}

// stages is the state of the figure of that name.
type stages struct {
	*bench
	*journals
	cluster  *cluster
	measured *figure
	run      int
	topics   int
}

func (s *stages) measure(ctx context.Context, c changelog.Compression) (err error) {
	capture, err := s.time("capture", func() error {
		return s.read(ctx, func(chaindata.Batch) error { return nil })
	})
	if err != nil {
		return err
	}
	apply, err := s.apply(ctx, "apply", clusterName, s.tape)
	if err != nil {
		return err
	}
	t, err := s.topic(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.remove(ctx)) }()
	publish, err := s.time("publish", func() error { return publish(ctx, t.Log, c, s.fromTape) })
	if err != nil {
		return err
	}
	stored, err := t.stored()
	if err != nil {
		return err
	}
	fetch, err := s.time("fetch", func() error { return fetch(ctx, t.Log, s.from-1, s.tape.last) })
	if err != nil {
		return err
	}
	if _, err := s.apply(ctx, "fetch and apply", t.Cluster(), replica.FromLog(t.Log)); err != nil {
		return err
	}
	together, err := s.together(ctx, c)
	if err != nil {
		return err
	}
	f := s.measured
	f.add("publish ÷ apply", "", publish.rate/apply.rate)
	f.add("fetch ÷ apply", "", fetch.rate/apply.rate)
	f.add("publish ÷ apply, per CPU second of drover", "", apply.cpu/publish.cpu)
	f.add("fetch ÷ apply, per CPU second of drover", "", apply.cpu/fetch.cpu)
	f.add("slowest alone ÷ together", "", min(capture.rate, publish.rate, fetch.rate, apply.rate)/together.rate)
	f.add("wire ÷ journal", "", float64(stored)/float64(s.bytes))
	return nil
}

func (s *stages) topic(ctx context.Context) (*topic, error) {
	s.topics++
	return s.newTopic(ctx, s.cluster, fmt.Sprintf("%s-%d", clusterName, s.topics))
}

// speed of a stage.
type speed struct {
	rate float64 // MB of journal a second
	cpu  float64 // seconds of this process for each GB of journal
}

// time measures one stage.
func (s *stages) time(name string, stage func() error) (speed, error) {
	debug.FreeOSMemory() // also collects
	quiet()
	own, kafka, began := selfCPU(), s.cluster.cpu(), time.Now()
	if err := stage(); err != nil {
		return speed{}, fmt.Errorf("%s: %w", name, err)
	}
	seconds := time.Since(began).Seconds()
	own, kafka = selfCPU()-own, s.cluster.cpu()-kafka
	gigabytes := float64(s.bytes) / 1e9
	v := speed{rate: float64(s.bytes) / 1e6 / seconds, cpu: own.Seconds() / gigabytes}
	f := s.measured
	f.add(name, "MB/s", v.rate)
	f.add(name+", frames", "1/s", float64(len(s.tape.entries))/seconds)
	f.add(name+", CPU of drover", "s/GB", v.cpu)
	if name != "capture" && name != "apply" {
		f.add(name+", CPU of Kafka", "s/GB", kafka.Seconds()/gigabytes)
	}
	return v, nil
}

// apply runs a replica on a copy of the seed until it has applied everything.
func (s *stages) apply(ctx context.Context, name, cluster string, log replica.ChangeLog, beside ...func(context.Context) error) (speed, error) {
	datadir, err := s.fresh("stage")
	if err != nil {
		return speed{}, err
	}
	err = chaindata.WriteMarker(harness.Chaindata(datadir), chaindata.Marker{
		Cluster: cluster, Timeline: 1, Role: chaindata.RoleCopy, Sequence: s.from - 1,
	})
	if err != nil {
		return speed{}, err
	}
	v, err := s.time(name, func() error {
		work := append(slices.Clone(beside), func(ctx context.Context) error {
			r, err := replica.New(replica.Options{Cluster: cluster, Log: log, Datadir: datadir, UntilSynced: true})
			if err != nil {
				return err
			}
			return r.Run(ctx)
		})
		return all(ctx, work...)
	})
	if err == nil {
		err = ctx.Err() // a replica that is told to end does so without an error
	}
	return v, errors.Join(err, s.drop(datadir))
}

// all runs the functions at once; the first error ends the others.
func all(ctx context.Context, work ...func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan error, len(work))
	for _, do := range work {
		go func() { done <- do(ctx) }()
	}
	var errs []error
	for range work {
		if err := <-done; err != nil {
			errs = append(errs, err)
			cancel(err)
		}
	}
	return errors.Join(errs...)
}

// together is capture, publish, fetch and apply at once.
func (s *stages) together(ctx context.Context, c changelog.Compression) (_ speed, err error) {
	t, err := s.topic(ctx)
	if err != nil {
		return speed{}, err
	}
	defer func() { err = errors.Join(err, t.remove(ctx)) }()
	log := inFull{ChangeLog: replica.FromLog(t.Log), tape: s.tape}
	return s.apply(ctx, "together", t.Cluster(), log, func(ctx context.Context) error {
		return publish(ctx, t.Log, c, s.read)
	})
}

// inFull shows a topic as it will be when everything is published, so that the replica waits for all of it.
type inFull struct {
	replica.ChangeLog
	tape *tape
}

func (l inFull) Join(ctx context.Context, at changelog.Position) (int64, error) {
	return l.tape.Join(ctx, at)
}

func (l inFull) Bounds(ctx context.Context) (first, next int64, err error) { return l.tape.Bounds(ctx) }

func (l inFull) Tail(ctx context.Context) (changelog.Tail, error) { return l.tape.Tail(ctx) }

// fromTape gives the batches that lie in memory.
func (s *stages) fromTape(_ context.Context, do func(chaindata.Batch) error) error {
	for _, record := range s.tape.records {
		batch, err := chaindata.ParseBatch(record)
		if err != nil {
			return err
		}
		if err := do(batch); err != nil {
			return err
		}
	}
	return nil
}

// publish sends all batches of the source as the master does: one goroutine reads and cuts them, one compresses, ahead of
// the one that sends.
func publish(ctx context.Context, log *changelog.Log, c changelog.Compression, source func(context.Context, func(chaindata.Batch) error) error) error {
	p := log.NewPublisher(changelog.PublisherOptions{Compression: c})
	full, requests := make(chan []changelog.Frame), make(chan *changelog.Request)
	read := func(ctx context.Context) error {
		defer close(full)
		return fill(ctx, source, func(frames []changelog.Frame) error { return hand(ctx, full, frames) })
	}
	encode := func(ctx context.Context) error {
		defer close(requests)
		for frames := range full {
			for len(frames) > 0 {
				var request *changelog.Request
				var err error
				if request, frames, err = p.Encode(ctx, frames); err != nil {
					return err
				}
				if err := hand(ctx, requests, request); err != nil {
					return err
				}
			}
		}
		return nil
	}
	send := func(ctx context.Context) error {
		for request := range requests {
			if _, err := p.Send(ctx, request); err != nil {
				return err
			}
		}
		return nil
	}
	return all(ctx, read, encode, send)
}

// fill cuts the source's batches into frames and gives them away, as many at once as a request takes.
func fill(ctx context.Context, source func(context.Context, func(chaindata.Batch) error) error, give func([]changelog.Frame) error) error {
	var frames []changelog.Frame
	size := 0
	err := source(ctx, func(batch chaindata.Batch) error {
		if size > 0 && size+len(batch.Data) > requestBytes {
			if err := give(frames); err != nil {
				return err
			}
			frames, size = nil, 0
		}
		frames = append(frames, changelog.SplitBatch(1, batch.First, batch.Count, batch.Data, 0, time.Now())...)
		size += len(batch.Data)
		return nil
	})
	if err != nil || size == 0 {
		return err
	}
	return give(frames)
}

// hand passes a value on unless ctx ends first.
func hand[T any](ctx context.Context, to chan<- T, value T) error {
	select {
	case to <- value:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// fetch reads the topic from its beginning up to the sequence last.
func fetch(ctx context.Context, log *changelog.Log, base, last uint64) error {
	reader := log.NewReader(0)
	defer reader.Close()
	sequencer := changelog.NewSequencer(changelog.Position{Cluster: log.Cluster(), Timeline: 1, Sequence: base, Offset: -1})
	for sequencer.Position().Sequence < last {
		entry, err := reader.Next(ctx)
		if err != nil {
			return err
		}
		if _, err := sequencer.Next(entry); err != nil {
			return err
		}
	}
	return nil
}
