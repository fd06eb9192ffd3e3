package chaindata

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// watch links new journals and wakes the reader. File notification does the work; the tick finds what it missed, and
// everything where there is none.
func (f *Follower) watch() {
	defer close(f.watchDone)
	tick := time.NewTicker(f.opts.Poll)
	defer tick.Stop()
	var events chan fsnotify.Event
	var faults chan error
	if f.notify != nil {
		events, faults = f.notify.Events, f.notify.Errors
	}
	for {
		select {
		case <-f.closed:
			return
		case ev, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			f.onEvent(ev)
		case err, ok := <-faults:
			if !ok {
				faults = nil
				continue
			}
			f.log.Warn("file notification: reading the directory instead", "dir", f.opts.Dir, "err", err)
			f.dirTime = time.Time{} // the next tick does
		case <-tick.C:
			f.onTick()
		}
	}
}

func (f *Follower) onEvent(ev fsnotify.Event) {
	name := filepath.Base(ev.Name)
	if ev.Op == fsnotify.Write {
		if strings.HasSuffix(name, ".log") {
			f.signal()
		}
		return
	}
	if !ev.Has(fsnotify.Create) {
		return
	}
	added, err := f.spool.add(name, true)
	if err != nil {
		f.fail(err)
	}
	if added {
		f.checkLimit()
		f.signal()
	}
}

// onTick costs one stat and one wake-up of the reader while nothing happens.
func (f *Follower) onTick() {
	fi, err := os.Stat(f.opts.Dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return // geth removedb: if it comes back, it is another one
	case err != nil:
		f.log.Warn("cannot look at the database directory", "dir", f.opts.Dir, "err", err)
		return
	case !os.SameFile(fi, f.dirInfo):
		f.fail(replacedDir(f.opts.Dir))
		return
	}
	f.checkLimit()
	now := time.Now()
	if mod := fi.ModTime(); mod != f.dirTime && now.UnixNano() > f.nextScan.Load() && f.rescan() {
		f.dirTime = mod
		if age := now.Sub(mod); age >= 0 && age < settled {
			f.dirTime = time.Time{}
		}
	}
	f.signal()
}

// settled is the age from which on a directory's time stamp tells its last change: the kernel's clock for time stamps goes
// in steps (4 ms mostly), so that a change right after a listing can leave the stamp as it is.
const settled = 100 * time.Millisecond

// rescan lists the directory on a goroutine of its own: an archive has millions of tables, and new journals must be
// linked meanwhile. It is false when one is at it already, which may have passed what is new.
func (f *Follower) rescan() bool {
	if f.scanning.Swap(true) {
		return false
	}
	f.scans.Add(1)
	go func() {
		defer f.scans.Done()
		start := time.Now()
		added, err := f.spool.scan()
		if err != nil {
			f.fail(err)
		}
		if added {
			f.signal()
		}
		// With notification working, a listing only guards against its faults, so it may take 2 % of the time; without,
		// it is the only way to see a journal before it is deleted, and may take a fifth.
		pause := 50
		if f.notify == nil {
			pause = 4
		}
		now := time.Now()
		f.nextScan.Store(now.Add(time.Duration(pause) * now.Sub(start)).UnixNano())
		f.scanning.Store(false)
	}()
	return true
}

// checkLimit compares the spool with its limit.
func (f *Follower) checkLimit() {
	if f.opts.SpoolLimit <= 0 {
		return
	}
	full := f.spool.bytes() > f.opts.SpoolLimit
	if f.full.Swap(full) != full && full {
		select {
		case f.fullSignal <- struct{}{}:
		default:
		}
		f.signal()
	}
}

// signal wakes the reader if it waits.
func (f *Follower) signal() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}
