package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/drover-io/drover/chaindata"
	"github.com/drover-io/drover/changelog"
)

// replicaAt turns the source into a replica's database at a position.
func (s *source) replicaAt(at changelog.Position, marker *chaindata.Marker) {
	s.t.Helper()
	if err := s.db.Put(changelog.PositionKey, at.Marshal(), nil); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(s.dir(), chaindata.MarkerName)); err != nil {
		s.t.Fatal(err)
	}
	if marker != nil {
		if err := chaindata.WriteMarker(s.dir(), *marker); err != nil {
			s.t.Fatal(err)
		}
	}
}

func TestTheManifestSaysWhereAReplicaGoesOn(t *testing.T) {
	at := changelog.Position{Cluster: testCluster, Timeline: 7, Sequence: 42, Offset: 1234}
	for name, c := range map[string]struct {
		marker   *chaindata.Marker
		role     string
		sequence uint64 // 0: the database's own
		timeline uint64
		offset   int64
	}{
		"replica":             {nil, RoleReplica, 42, 7, 1234},
		"replica, old marker": {&chaindata.Marker{Cluster: testCluster, Timeline: 6, Role: chaindata.RoleCopy, Sequence: 9}, RoleReplica, 42, 7, 1234},
		"promoted replica":    {&chaindata.Marker{Cluster: testCluster, Timeline: 8, Role: chaindata.RoleSource}, RoleMaster, 0, 8, -1},
		"copy of a master":    {&chaindata.Marker{Cluster: testCluster, Timeline: 8, Role: chaindata.RoleCopy, Sequence: 11}, RoleCopy, 11, 8, -1},
	} {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			src := newSource(t, filepath.Join(base, "datadir"))
			src.write(20)
			src.replicaAt(at, c.marker)
			own := src.ends[19] + 1
			store := openDir(t, filepath.Join(base, "store"))
			m := src.create(store, nil).Manifest
			if c.sequence == 0 {
				c.sequence = own
			}
			if m.Role != c.role || m.Sequence != c.sequence || m.Timeline != c.timeline || m.Offset != c.offset || m.Head.Number != 19 {
				t.Errorf("%s", asJSON(m))
			}
			mustVerify(t, store, m.ID)
		})
	}
}

type fakeTopic struct {
	next int64
	err  error
}

func (f fakeTopic) FindSequence(context.Context, uint64, uint64) (int64, error) { return f.next, f.err }

func TestTheOffsetOfAMastersSnapshotComesFromTheTopic(t *testing.T) {
	base := t.TempDir()
	src := newSource(t, filepath.Join(base, "datadir"))
	src.write(5)
	store := openDir(t, filepath.Join(base, "store"))
	if m := src.create(store, func(o *CreateOptions) { o.Topic = fakeTopic{next: 100} }).Manifest; m.Offset != 99 {
		t.Errorf("offset %d", m.Offset)
	}
	if m := src.create(store, func(o *CreateOptions) { o.Topic = fakeTopic{err: errors.New("brokers are away")} }).Manifest; m.Offset != -1 {
		t.Errorf("offset %d", m.Offset)
	}
	_, err := Create(t.Context(), CreateOptions{Cluster: testCluster, Store: store, Datadir: src.datadir,
		Topic: fakeTopic{err: fmt.Errorf("too old: %w", changelog.ErrNotRetained)}})
	if !errors.Is(err, changelog.ErrNotRetained) {
		t.Errorf("a source that the log has left behind: %v", err)
	}
}

func TestWrongUseIsOneClearLine(t *testing.T) {
	base := t.TempDir()
	src := newSource(t, filepath.Join(base, "datadir"))
	src.write(5)
	store := openDir(t, filepath.Join(base, "store"))
	good := CreateOptions{Cluster: testCluster, Store: store, Datadir: src.datadir}
	empty := filepath.Join(base, "empty")
	stranger := filepath.Join(base, "stranger")
	if err := os.MkdirAll(chaindataOf(stranger), 0o755); err != nil {
		t.Fatal(err)
	}
	if db, err := leveldb.OpenFile(chaindataOf(stranger), nil); err != nil || db.Close() != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*CreateOptions)
		want   error
	}{
		"cluster":         {func(o *CreateOptions) { o.Cluster = "Not A Name" }, ErrUsage},
		"another cluster": {func(o *CreateOptions) { o.Cluster = "other" }, ErrWrongCluster},
		"no store":        {func(o *CreateOptions) { o.Store = nil }, ErrUsage},
		"no datadir":      {func(o *CreateOptions) { o.Datadir = "" }, ErrUsage},
		"empty datadir":   {func(o *CreateOptions) { o.Datadir = empty }, chaindata.ErrNoDatabase},
		"no chain":        {func(o *CreateOptions) { o.Datadir = stranger }, chaindata.ErrNoDatabase},
		"compression":     {func(o *CreateOptions) { o.Compression = "lzma" }, ErrUsage},
	} {
		opts := good
		c.change(&opts)
		if _, err := Create(t.Context(), opts); !errors.Is(err, c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(snapshots(t, store)) > 0 {
		t.Error("a snapshot was made")
	}
	nothingLeft(t, base)
}

func TestRestoreRefusesADatadirThatHoldsSomething(t *testing.T) {
	base := t.TempDir()
	src := newSource(t, filepath.Join(base, "datadir"))
	src.write(5)
	store := openDir(t, filepath.Join(base, "store"))
	src.create(store, nil)
	for _, occupied := range []string{"geth/chaindata/CURRENT", "geth/drover-journals/000001.log"} {
		datadir := filepath.Join(t.TempDir(), "datadir")
		path := filepath.Join(datadir, occupied)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := restore(t, store, datadir, ""); !errors.Is(err, ErrNotEmpty) {
			t.Errorf("%s: %v", occupied, err)
		}
		if body, err := os.ReadFile(path); err != nil || string(body) != "x" {
			t.Errorf("%s: %q, %v", occupied, body, err)
		}
	}
	ready := filepath.Join(t.TempDir(), "datadir") // as an operator prepares it
	if err := os.MkdirAll(filepath.Join(ready, "geth", "chaindata"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(ready, "geth", "nodekey"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustRestore(t, store, ready, "")
}

func TestAnUnfinishedRestoreOfAnotherSnapshotGivesWhatIsTheSame(t *testing.T) {
	base := t.TempDir()
	src := newSource(t, filepath.Join(base, "datadir"))
	src.freeze(500_000)
	src.write(60)
	store := openDir(t, filepath.Join(base, "store"))
	old := src.create(store, nil).Manifest
	src.write(3)
	m := src.create(store, nil).Manifest
	datadir := filepath.Join(base, "restored")
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Restore(ctx, RestoreOptions{Cluster: testCluster, Store: store, Datadir: datadir, Select: Select{ID: old.ID, Unverified: true},
		NoHardLinks: true, at: func(step string) {
			if step == "fetched" {
				cancel()
			}
		}})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	res := mustRestore(t, store, datadir, m.ID)
	if !res.Resumed || res.Moved > m.Files.Bytes-500_000 { // the freezer at least is the same
		t.Errorf("resumed %v, %d of %d bytes were read again", res.Resumed, res.Moved, m.Files.Bytes)
	}
	src.sameAt(datadir, m)
}
