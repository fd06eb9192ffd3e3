package chaindata

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
)

// FollowOptions say which database to follow, and from where.
type FollowOptions struct {
	Dir        string        // the chaindata directory; made when absent, so that no journal of a new database is missed
	From       uint64        // the first sequence wanted
	SpoolDir   string        // where journals are hard-linked as they appear, on Dir's file system; default Dir/../drover-journals
	SpoolLimit int64         // bytes of linked, unpublished journals before ErrSpoolFull; 0 is no limit
	Poll       time.Duration // how often to look without being notified; default 1 s
	Logger     *slog.Logger  // default: none

	noNotify bool // for tests: polling only
}

// Follower delivers the batches of a live database in sequence order, each exactly once, from journals that LevelDB is
// writing, has left behind, or has deleted meanwhile. Next and TryNext may be called by one goroutine at a time (others
// wait); all other methods at any time.
type Follower struct {
	opts  FollowOptions
	log   *slog.Logger
	spool *spool

	notify     *fsnotify.Watcher // nil: polling only
	dirInfo    os.FileInfo
	dirTime    time.Time    // of the last listing; only watch uses it
	nextScan   atomic.Int64 // Unix time in ns before which the tick does not list the directory
	scanning   atomic.Bool
	scans      sync.WaitGroup
	wake       chan struct{}
	full       atomic.Bool
	fullSignal chan struct{}
	stopped    atomic.Bool
	closeOnce  sync.Once
	closed     chan struct{}
	watchDone  chan struct{}

	failMu sync.Mutex
	failed error // from watch; final

	mu sync.Mutex // the reader's state, below
	reader
}

// NewFollower starts to link journals at once; reading starts with the first Next. It reads the union of the spool, in
// which an earlier run may have kept journals, and the directory, in number order.
func NewFollower(opts FollowOptions) (*Follower, error) {
	if opts.Dir == "" {
		return nil, errors.New("chaindata: FollowOptions.Dir is empty")
	}
	if opts.SpoolDir == "" {
		opts.SpoolDir = filepath.Join(opts.Dir, "..", "drover-journals")
	}
	if opts.Poll <= 0 {
		opts.Poll = time.Second
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
		return nil, err
	}
	info, err := os.Stat(opts.Dir)
	if err != nil {
		return nil, err
	}
	sp, err := openSpool(opts.Dir, opts.SpoolDir, opts.Logger)
	if err != nil {
		return nil, err
	}
	f := &Follower{
		opts: opts, log: opts.Logger, spool: sp, dirInfo: info,
		wake: make(chan struct{}, 1), fullSignal: make(chan struct{}, 1),
		closed: make(chan struct{}), watchDone: make(chan struct{}),
	}
	f.reader.next = max(opts.From, 1) // LevelDB's first sequence is 1
	// Watched first and listed then: what appears in between is seen twice, which does no harm.
	if err := f.startNotify(); err != nil {
		opts.Logger.Warn("no file notification, polling", "dir", opts.Dir, "every", opts.Poll, "err", err)
	}
	if _, err := sp.scan(); err != nil {
		if f.notify != nil {
			_ = f.notify.Close()
		}
		return nil, err
	}
	go f.watch()
	return f, nil
}

func (f *Follower) startNotify() error {
	if f.opts.noNotify {
		return nil
	}
	w, err := fsnotify.NewBufferedWatcher(256)
	if err != nil {
		return err
	}
	if err := w.Add(f.opts.Dir); err != nil {
		_ = w.Close()
		return err
	}
	f.notify = w
	return nil
}

// Next returns the next batch and waits for it. Errors: ctx's; io.EOF after SourceStopped when all is read; ErrSpoolFull
// (may be called again); everything else is final: ErrHole, ErrCorruptJournal, ErrBehind, ErrReplaced, ErrClosed.
func (f *Follower) Next(ctx context.Context) (Batch, error) {
	for {
		b, ok, err := f.TryNext()
		if ok || err != nil {
			return b, err
		}
		select {
		case <-ctx.Done():
			return Batch{}, ctx.Err()
		case <-f.closed:
			return Batch{}, ErrClosed
		case <-f.wake:
		}
	}
}

// TryNext returns the next batch if it is there already. Errors as for Next.
func (f *Follower) TryNext() (Batch, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-f.closed:
		return Batch{}, false, ErrClosed
	default:
	}
	if f.reader.err != nil {
		return Batch{}, false, f.reader.err
	}
	if f.full.Load() && !f.stopped.Load() {
		if f.checkLimit(); f.full.Load() {
			return Batch{}, false, fmt.Errorf("%w: more than %d bytes in %s: stop the source until they are published",
				ErrSpoolFull, f.opts.SpoolLimit, f.opts.SpoolDir)
		}
	}
	b, ok, err := f.step()
	if !ok && err == nil {
		f.failMu.Lock()
		err = f.failed // what was linked before the fault is delivered first
		f.failMu.Unlock()
	}
	if err != nil {
		f.reader.err = err
	}
	return b, ok, err
}

// fail makes the reader return err once it has delivered what it has.
func (f *Follower) fail(err error) {
	f.failMu.Lock()
	if f.failed == nil {
		f.failed = err
	}
	f.failMu.Unlock()
	f.signal()
}

// Published says that everything up to seq is on the topic: links of journals that lie wholly below are removed.
func (f *Follower) Published(seq uint64) {
	f.spool.publish(seq)
	if f.full.Load() {
		f.checkLimit()
		f.signal()
	}
}

// SourceStopped says that geth has ended: what is there is all there is, and Next ends with io.EOF.
func (f *Follower) SourceStopped() {
	f.stopped.Store(true)
	f.signal()
}

// SpoolBytes is the size of the linked journals' unpublished part, in bytes.
func (f *Follower) SpoolBytes() int64 { return f.spool.bytes() }

// SpoolFull receives when SpoolLimit is passed: for a receiver that is busy publishing and not calling Next.
func (f *Follower) SpoolFull() <-chan struct{} { return f.fullSignal }

// Close ends watching and wakes a waiting Next. The links stay for the next run. It may be called twice.
func (f *Follower) Close() error {
	var err error
	f.closeOnce.Do(func() {
		close(f.closed)
		if f.notify != nil {
			err = f.notify.Close()
		}
		<-f.watchDone
		f.scans.Wait()
		f.mu.Lock()
		defer f.mu.Unlock()
		f.reader.close()
	})
	return err
}

func replacedDir(dir string) error {
	return fmt.Errorf("%w: %s is another directory now", ErrReplaced, dir)
}
