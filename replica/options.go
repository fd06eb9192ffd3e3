package replica

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/drover-io/drover/changelog"
	"github.com/prometheus/client_golang/prometheus"
)

// ChangeLog is what a replica needs of a change log. FromLog makes one of a *changelog.Log.
type ChangeLog interface {
	// Join returns the offset from which a database at the position has to read on. Errors: see changelog.Log.Join.
	Join(ctx context.Context, at changelog.Position) (int64, error)
	// Bounds returns the first offset retained and the next one to be written.
	Bounds(ctx context.Context) (first, next int64, err error)
	// Tail returns how far the topic has got.
	Tail(ctx context.Context) (changelog.Tail, error)
	// Read returns a reader that starts at the offset.
	Read(offset int64) EntryReader
}

// EntryReader yields the entries of a change log in order, as *changelog.Reader does.
type EntryReader interface {
	Next(ctx context.Context) (changelog.Entry, error)
	Close() error
}

type fromLog struct{ *changelog.Log }

func (l fromLog) Read(offset int64) EntryReader { return l.NewReader(offset) }

// FromLog adapts an open change log. The replica does not close it.
func FromLog(l *changelog.Log) ChangeLog { return fromLog{l} }

// Options is what New needs. Zero values take the defaults named; names and meanings of the RPC fields are those of
// geth's flags.
type Options struct {
	// Cluster is the cluster's name.
	Cluster string
	// Log is the cluster's change log.
	Log ChangeLog
	// Datadir is a geth datadir that holds a copied database in geth/chaindata.
	Datadir string

	// HTTP serves JSON-RPC on HTTPAddr:HTTPPort (127.0.0.1:8545; port 0 takes a free one, -1 means 8545).
	HTTP       bool
	HTTPAddr   string
	HTTPPort   int
	HTTPAPI    []string // default eth, net, web3
	HTTPVhosts []string // default localhost
	HTTPCors   []string
	// WS serves WebSockets on WSAddr:WSPort (127.0.0.1:8546); the address and port of HTTP share its listener.
	WS        bool
	WSAddr    string
	WSPort    int
	WSAPI     []string // default eth, net, web3
	WSOrigins []string

	RPCGasCap            uint64        // default 50,000,000; 0 takes the default, NoGasCap means none
	RPCEVMTimeout        time.Duration // default 5 s
	BatchRequestLimit    int           // requests in a batch, default 1000
	BatchResponseMaxSize int           // bytes, default 25,000,000
	Cache                int           // MB for geth's caches, default 1024
	Handles              int           // open files for the database, default 1024
	TransactionHistory   uint64        // blocks whose transactions are indexed; 0, as geth in archive mode does: all
	LogHistory           uint64        // blocks in the log index, default 2,350,000

	// Prepare fills an empty datadir, by restoring a snapshot, before anything opens it; nil: the database is there. It
	// tells in a few words how far it has come. Its error ends Run.
	Prepare func(ctx context.Context, tell func(string)) error
	// UntilSynced makes Run return nil once everything that the topic held when Run started is applied.
	UntilSynced bool
	// MaxHeadAge is how old the head's timestamp may be for the replica to be ready; 0 sets no limit.
	MaxHeadAge time.Duration
	// MaxHeartbeatAge is how long the master may be silent for the replica to be ready; default 15 s.
	MaxHeartbeatAge time.Duration
	// Stale says what a replica with stale data does; default StaleDrain.
	Stale StalePolicy
	// LiveFrames is how near to the topic's end, in frames, the database is handed to geth; default 256.
	LiveFrames int64

	// BeforeWrite, when set, is called before each write of stream data; its error counts as the database's. It is
	// the seam for fault tests.
	BeforeWrite func(changelog.Position) error

	Logger     *slog.Logger          // default: discard
	Registerer prometheus.Registerer // default: none
}

// NoGasCap as RPCGasCap sets no limit, as geth's --rpc.gascap 0 does.
const NoGasCap = ^uint64(0)

// StalePolicy says what becomes of a replica that has applied the whole change log while its data grows old: the master
// is silent, or its chain stands still.
type StalePolicy string

const (
	// StaleDrain makes it not ready, so that balancers turn to another.
	StaleDrain StalePolicy = "drain"
	// StaleServe keeps it ready and adds the header StaleHeader to each answer over HTTP.
	StaleServe StalePolicy = "serve"
)

// StaleHeader is the HTTP header that says why an answer may be stale.
const StaleHeader = "X-Drover-Stale"

func (o *Options) setDefaults() {
	def(&o.Stale, StaleDrain)
	def(&o.HTTPAddr, "127.0.0.1")
	def(&o.WSAddr, "127.0.0.1")
	def(&o.RPCGasCap, 50_000_000)
	def(&o.RPCEVMTimeout, 5*time.Second)
	def(&o.BatchRequestLimit, 1000)
	def(&o.BatchResponseMaxSize, 25_000_000)
	def(&o.Cache, 1024)
	def(&o.Handles, 1024)
	def(&o.LogHistory, 2_350_000)
	def(&o.MaxHeartbeatAge, 15*time.Second)
	def(&o.LiveFrames, 256)
	if o.HTTPPort < 0 {
		o.HTTPPort = 8545
	}
	if o.WSPort < 0 {
		o.WSPort = 8546
	}
	if len(o.HTTPAPI) == 0 {
		o.HTTPAPI = []string{"eth", "net", "web3"}
	}
	if len(o.WSAPI) == 0 {
		o.WSAPI = []string{"eth", "net", "web3"}
	}
	if o.HTTPVhosts == nil {
		o.HTTPVhosts = []string{"localhost"}
	}
	if o.RPCGasCap == NoGasCap {
		o.RPCGasCap = 0
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

func def[T comparable](v *T, d T) {
	if *v == *new(T) {
		*v = d
	}
}

func (o *Options) check() error {
	if err := changelog.CheckCluster(o.Cluster); err != nil {
		return fmt.Errorf("%w: --cluster: %w", ErrUsage, err)
	}
	if o.Log == nil {
		return fmt.Errorf("%w: no change log given", ErrUsage)
	}
	if o.Datadir == "" {
		return fmt.Errorf("%w: --datadir is needed: a geth datadir with a copied database", ErrUsage)
	}
	if o.Stale != StaleDrain && o.Stale != StaleServe {
		return fmt.Errorf("%w: --stale %q: use drain or serve", ErrUsage, string(o.Stale))
	}
	for flag, list := range map[string][]string{"--http.api": o.HTTPAPI, "--ws.api": o.WSAPI} {
		for _, namespace := range list {
			if !servedNamespaces[namespace] {
				return fmt.Errorf("%w: %s: %s: %w (it serves eth, net, web3, debug and txpool)",
					ErrUsage, flag, strings.TrimSpace(namespace), errNamespace)
			}
		}
	}
	return nil
}

func (o *Options) chaindata() string { return filepath.Join(o.Datadir, "geth", "chaindata") }
