package chaindata

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
)

// The test binary is also the writer that gets killed: with this variable set it writes to the named directory.
const writerEnv = "DROVER_TEST_WRITER"

const (
	writerBuffer = 256 << 10
	writerBatch  = 150 << 10 // bytes at most: several journal blocks, so that a kill can cut a record in two
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerEnv); dir != "" {
		if err := killedWriter(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// killedWriter writes random batches until it is killed. It reads from its input the bytes of the batches that the
// follower has, and stays less than a write buffer ahead: no journal comes and goes unseen.
func killedWriter(dir string) error {
	db, err := leveldb.OpenFile(dir, nil)
	if err != nil {
		return err
	}
	db.Close() // one more restart, with nothing written
	rng := rand.New(rand.NewSource(int64(os.Getpid())))
	o := openOptions(writerBuffer)
	if db, err = leveldb.OpenFile(dir, o); err != nil {
		return err
	}
	acks := bufio.NewReader(os.Stdin)
	ahead := 0
	for {
		b := new(leveldb.Batch)
		for size, want := 0, rng.Intn(writerBatch); size <= want; size = len(b.Dump()) {
			value := make([]byte, rng.Intn(20_000))
			rng.Read(value)
			b.Put(fmt.Appendf(nil, "key-%03d", rng.Intn(300)), value)
			b.Delete(fmt.Appendf(nil, "key-%03d", rng.Intn(300)))
		}
		for ahead > 0 && ahead+len(b.Dump()) > writerBuffer*3/4 {
			var n uint32
			if err := binary.Read(acks, binary.LittleEndian, &n); err != nil {
				return err
			}
			ahead -= int(n)
		}
		if err := db.Write(b, nil); err != nil {
			return err
		}
		ahead += len(b.Dump())
	}
}

func TestNothingIsLostWhenTheWriterIsKilled(t *testing.T) {
	rounds := 25
	if testing.Short() {
		rounds = 5
	}
	dir := chaindata(t)
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewSource(seed))
	f := newFollower(t, FollowOptions{Dir: dir, From: 1})
	s := newStream(t, 1)
	torn := 0
	for round := range rounds {
		before := s.batches
		killWriterAfter(t, dir, f, s, 3+rng.Intn(20), time.Duration(rng.Intn(3000))*time.Microsecond)
		linkAll(t, f) // the next writer may start before the watcher has run
		if state, err := Inspect(dir); err != nil {
			t.Fatal(err)
		} else if state.TornBytes > 0 {
			torn++
		}
		switch round % 3 {
		case 0: // supervised: all that is there is read before the next start
			f.SourceStopped()
			s.mustDrain(f)
			f.Close()
			f = newFollower(t, FollowOptions{Dir: dir, From: s.next})
		case 1: // the follower dies too, and some of what it had delivered was not published
			f.Close()
			f = newFollower(t, FollowOptions{Dir: dir, From: s.next})
		}
		if s.batches == before {
			t.Fatalf("round %d: nothing was written", round)
		}
	}
	f.SourceStopped()
	s.mustDrain(f)
	t.Logf("%d batches, %d sequences, %d void, %d torn tails in %d kills", s.batches, s.next-1, s.voids, torn, rounds)
	if s.voids < rounds/2 {
		t.Fatalf("%d voids in %d restarts", s.voids, rounds)
	}
	s.equals(dir)
}

// killWriterAfter runs a writer, follows it for some batches, and kills it some time later.
func killWriterAfter(t *testing.T, dir string, f *Follower, s *stream, batches int, later time.Duration) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), writerEnv+"="+dir)
	cmd.Stderr = os.Stderr
	acks, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killed := make(chan struct{})
	kill := func() {
		select {
		case <-killed:
		default:
			close(killed)
			cmd.Process.Kill()
			cmd.Wait()
		}
	}
	defer kill()
	ctx := deadline(t, 30*time.Second)
	var after <-chan time.Time
	for n := 0; ; n++ {
		if n == batches {
			after = time.After(later)
		}
		select {
		case <-after:
			kill()
			return
		default:
		}
		b, ok, err := f.TryNext()
		if err == nil && !ok {
			if after != nil {
				continue
			}
			b, err = f.Next(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		s.add(b)
		if n%3 != 0 {
			f.Published(b.Last())
		}
		if err := binary.Write(acks, binary.LittleEndian, uint32(len(b.Data)-batchHeaderSize)); err != nil && !errors.Is(err, io.ErrClosedPipe) && !errors.Is(err, syscall.EPIPE) {
			t.Fatal(err)
		}
	}
}
