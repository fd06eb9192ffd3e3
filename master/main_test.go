package master

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/changelog/broker"
)

// The test binary is also the programs that the tests start and kill.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "fake-geth":
			os.Exit(fakeGeth(os.Args[1:]))
		case "run-master":
			os.Exit(runMaster(os.Args[2]))
		case "run-broker":
			os.Exit(runBroker(os.Args[2], os.Args[3]))
		}
	}
	os.Exit(m.Run())
}

// masterConfig is the part of Options that a child process is given.
type masterConfig struct {
	Broker, Datadir   string
	Geth              []string
	Attach            bool
	SpoolLimit        int64
	HeartbeatInterval time.Duration
	DrainTimeout      time.Duration
	Takeover, Rebase  bool
	Window            time.Duration
	KillAt            string // step of a takeover at which the process kills itself
}

func (c masterConfig) options() Options {
	at := func(step string) {
		if step == c.KillAt {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	return Options{
		Takeover: c.Takeover, Rebase: c.Rebase, TakeoverWindow: c.Window, at: at,
		Replay:  func(ctx context.Context) (changelog.Position, error) { return replayInto(ctx, c.Broker, c.Datadir) },
		Cluster: testCluster, Kafka: changelog.Options{Brokers: []string{c.Broker}}, Datadir: c.Datadir,
		Geth: c.Geth, Attach: c.Attach, SpoolLimit: c.SpoolLimit,
		HeartbeatInterval: c.HeartbeatInterval, DrainTimeout: c.DrainTimeout,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
}

func runMaster(config string) int {
	var c masterConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		panic(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	m, err := New(c.options())
	if err == nil {
		err = m.Run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "master:", err)
	}
	exit, isExit := errors.AsType[*GethExitError](err)
	switch {
	case err == nil:
		return 0
	case isExit:
		return exit.Code
	case errors.Is(err, ErrNotOurs):
		return 2
	case errors.Is(err, changelog.ErrNotRetained):
		return 3
	case errors.Is(err, changelog.ErrFenced):
		return 4
	case errors.Is(err, chaindata.ErrHole):
		return 6
	case errors.Is(err, chaindata.ErrUnsupportedSource):
		return 7
	}
	return 1
}

func runBroker(listen, dir string) int {
	b, err := broker.New(broker.Options{Listen: listen, DataDir: dir})
	if err != nil {
		fmt.Fprintln(os.Stderr, "broker:", err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := b.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "broker:", err)
		return 1
	}
	return 0
}

// fakeBuffer is the fake geth's write buffer: its journals live for some tenths of a second, geth's for some seconds at
// least. Much less, and on a busy machine one comes and goes before anybody sees it.
const fakeBuffer = 512 << 10

// fakeGeth writes a LevelDB as geth does, faster and with knobs: batches of random puts and deletes until it is told to
// stop, until --batches are written, or until it is killed.
func fakeGeth(argv []string) int {
	args := parseGethArgs(argv, os.Getenv)
	value := func(name string, standard int) int {
		if text, ok := args.flags[name]; ok {
			n, err := strconv.Atoi(text)
			if err != nil {
				panic(err)
			}
			return n
		}
		return standard
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	db, err := leveldb.OpenFile(filepath.Join(args.flags["datadir"], "geth", "chaindata"), &opt.Options{
		WriteBuffer: value("buffer", fakeBuffer), DisableSeeksCompaction: true,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "fake geth:", err)
		return 1
	}
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(os.Getpid())))
	large := value("large-at", -1)
	for i := 0; i != value("batches", -1) && ctx.Err() == nil; i++ {
		ops := 1 + random.IntN(40)
		if i == large {
			// Of 50 bytes and more each, beyond the write buffer: goleveldb writes them into tables, past the journal.
			ops = value("buffer", fakeBuffer) / 20
		}
		if err := db.Write(randomBatch(random, ops), nil); err != nil {
			fmt.Fprintln(os.Stderr, "fake geth:", err)
			return 1
		}
		time.Sleep(time.Duration(value("pause-us", 500)) * time.Microsecond)
	}
	if _, ok := args.flags["idle"]; ok {
		<-ctx.Done()
	}
	if err := db.Close(); err != nil {
		return 1
	}
	return value("exit", 0)
}

func randomBatch(random *rand.Rand, ops int) *leveldb.Batch {
	batch := new(leveldb.Batch)
	for range ops {
		key := fmt.Appendf(nil, "key-%d", random.IntN(3000))
		if random.IntN(5) == 0 {
			batch.Delete(key)
			continue
		}
		content := make([]byte, random.IntN(200))
		for i := range content {
			content[i] = byte(random.Uint32())
		}
		batch.Put(key, content)
	}
	return batch
}
