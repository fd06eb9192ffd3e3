package chaindata

import (
	"bytes"
	"errors"
	"fmt"
	localgeth "github.com/drover-io/drover/tools/geth"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func gethBinary(t *testing.T) string {
	t.Helper()
	path, err := localgeth.Path()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// startGeth runs a dev chain with a block each second and returns its chaindata directory and how to stop it.
func startGeth(t *testing.T, datadir string, args ...string) (stop func(os.Signal)) {
	t.Helper()
	args = append([]string{"--dev", "--dev.period", "1", "--datadir", datadir, "--ipcdisable", "--verbosity", "2"}, args...)
	cmd := exec.Command(gethBinary(t), args...)
	var output bytes.Buffer
	cmd.Stderr = &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		cmd.Wait()
	}()
	stop = func(sig os.Signal) {
		cmd.Process.Signal(sig)
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			cmd.Process.Kill()
			<-ended
		}
	}
	t.Cleanup(func() {
		stop(syscall.SIGKILL)
		if t.Failed() {
			t.Logf("geth said:\n%s", output.String())
		}
	})
	return stop
}

var archiveArgs = []string{"--db.engine", "leveldb", "--state.scheme", "hash", "--gcmode", "archive"}

func gethDir(datadir string) string { return filepath.Join(datadir, "geth", "chaindata") }

// followHeads reads until so many head markers have passed.
func followHeads(t *testing.T, f *Follower, s *stream, heads int, check *ArchiveCheck) error {
	t.Helper()
	ctx := deadline(t, 90*time.Second)
	for heads > 0 {
		b, err := f.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		s.add(b)
		if err := check.Observe(b); err != nil {
			return err
		}
		for op := range b.Ops() {
			if kind, _, _ := Classify(op.Key); kind == HeadBlock {
				heads--
			} else if kind == Other {
				t.Errorf("key %q of geth's is not in the schema", op.Key)
			}
		}
	}
	return nil
}

func TestFollowingGethThroughKillsAndRestarts(t *testing.T) {
	datadir := t.TempDir()
	dir := gethDir(datadir)
	f := newFollower(t, FollowOptions{Dir: dir, From: 1})
	s := newStream(t, 1)
	check := new(ArchiveCheck)
	for round, sig := range []os.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGKILL} {
		stop := startGeth(t, datadir, archiveArgs...)
		if err := followHeads(t, f, s, 3, check); err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			if _, err := Lock(dir); !errors.Is(err, ErrLocked) {
				t.Fatalf("lock of a live database: %v", err)
			}
			if err := CheckSource(dir); err != nil {
				t.Fatalf("live: %v", err)
			}
		}
		stop(sig)
		if round == 1 {
			if err := CheckSource(dir); err != nil {
				t.Fatalf("at rest: %v", err)
			}
			release, err := Lock(dir)
			if err != nil {
				t.Fatal(err)
			}
			release()
		}
	}
	f.SourceStopped()
	s.mustDrain(f)
	if s.voids == 0 {
		t.Fatal("no void sequence in two restarts")
	}
	s.equals(dir)
	t.Logf("%d batches, %d sequences, %d keys", s.batches, s.next-1, len(s.content))
}

func TestSourcesThatDroverCannotUseAreNamed(t *testing.T) {
	for name, c := range map[string]struct {
		args   []string
		stream bool // the stream shows it
		rest   bool // the directory at rest shows it
	}{
		"not an archive": {[]string{"--db.engine", "leveldb", "--state.scheme", "hash", "--gcmode", "full"}, true, false},
		"path scheme":    {[]string{"--db.engine", "leveldb", "--state.scheme", "path"}, true, true},
		"pebble":         {[]string{"--db.engine", "pebble"}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			datadir := t.TempDir()
			dir := gethDir(datadir)
			stop := startGeth(t, datadir, c.args...)
			if c.stream {
				f := newFollower(t, FollowOptions{Dir: dir, From: 1})
				err := followHeads(t, f, newStream(t, 1), 12, new(ArchiveCheck))
				if !errors.Is(err, ErrUnsupportedSource) {
					t.Errorf("stream: %v", err)
				}
				t.Log(err)
			}
			if c.rest {
				ctx := deadline(t, 30*time.Second)
				for ctx.Err() == nil && CheckSource(dir) == nil {
					time.Sleep(20 * time.Millisecond)
				}
				stop(syscall.SIGKILL)
				err := CheckSource(dir)
				if !errors.Is(err, ErrUnsupportedSource) {
					t.Errorf("at rest: %v", err)
				}
				t.Log(err)
			}
		})
	}
}

func TestHeadWithoutItsStateIsNotAnArchiveAtRest(t *testing.T) {
	datadir := t.TempDir()
	dir := gethDir(datadir)
	stop := startGeth(t, datadir, "--db.engine", "leveldb", "--state.scheme", "hash", "--gcmode", "full")
	f := newFollower(t, FollowOptions{Dir: dir, From: 1})
	ctx := deadline(t, 60*time.Second)
	for heads := 0; heads < 6; {
		b, err := f.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for op := range b.Ops() {
			if kind, _, _ := Classify(op.Key); kind == HeadBlock {
				heads++
			}
		}
	}
	stop(syscall.SIGKILL) // a clean stop would write the head's state
	err := CheckSource(dir)
	if !errors.Is(err, ErrUnsupportedSource) {
		t.Fatalf("got %v", err)
	}
	t.Log(err)
}

func TestCopyOfALiveGethIsItsDatabaseAtOneSequence(t *testing.T) {
	datadir, copies := t.TempDir(), t.TempDir()
	dir := gethDir(datadir)
	f := newFollower(t, FollowOptions{Dir: dir, From: 1})
	startGeth(t, datadir, archiveArgs...)
	s := newStream(t, 1)
	ctx := deadline(t, 2*time.Minute)
	marked := false
	for i := range 20 {
		// Copies at odd moments: right behind a batch of the stream, which is in the middle of a block.
		b, err := f.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		s.add(b)
		if !marked {
			if err := WriteMarker(dir, Marker{Cluster: "test", Timeline: 3, Role: RoleSource}); err != nil {
				t.Fatal(err)
			}
			marked = true
		}
		dst := filepath.Join(copies, fmt.Sprint(i), "geth", "chaindata")
		res, err := Copy(ctx, dir, dst, CopyOptions{})
		if errors.Is(err, ErrNoDatabase) {
			continue // geth has not got that far
		}
		if err != nil {
			t.Fatal(err)
		}
		m, err := ReadMarker(dst)
		if err != nil || m != (Marker{Format: 1, Cluster: "test", Timeline: 3, Role: RoleCopy, Sequence: res.Sequence, Inode: m.Inode}) {
			t.Fatalf("%+v, %v", m, err)
		}
		for s.next <= res.Sequence {
			b, err := f.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			s.add(b)
		}
		if s.next != res.Sequence+1 {
			t.Fatalf("the copy ends at %d, in the middle of a batch that ends at %d", res.Sequence, s.next-1)
		}
		s.equals(dst)
		if i == 19 {
			t.Logf("%+v", res)
			openWithGeth(t, filepath.Join(copies, fmt.Sprint(i)))
		}
	}
}

// openWithGeth lets geth itself, with its freezer's repair, go on from a copy.
func openWithGeth(t *testing.T, datadir string) {
	t.Helper()
	dir := gethDir(datadir)
	state, err := Inspect(dir)
	if err != nil {
		t.Fatal(err)
	}
	f := newFollower(t, FollowOptions{Dir: dir, From: state.Sequence + 1})
	stop := startGeth(t, datadir, archiveArgs...)
	s := newStream(t, state.Sequence+1)
	if err := followHeads(t, f, s, 2, new(ArchiveCheck)); err != nil {
		t.Fatal(err)
	}
	stop(syscall.SIGTERM)
}
