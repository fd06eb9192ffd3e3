package snapshot

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// PruneOptions tune Prune. Cluster, Store and Keep are needed.
type PruneOptions struct {
	Cluster string
	Store   Store
	// Keep is how many of the newest usable snapshots stay, at least 1. Daily, Weekly and Monthly keep the newest of that
	// many days, ISO weeks and months (UTC) that have one.
	Keep, Daily, Weekly, Monthly int
	// FirstRetained is the first offset that the topic still has. Nothing is removed when the newest usable snapshot is
	// less than Margin frames above it: then headroom is short, and that is no time to remove anything.
	FirstRetained, Margin int64
	Confirm               bool          // remove; otherwise it is only told what would be
	DropBroken            bool          // also those whose manifest or file list is damaged (not those of a newer release)
	OrphanAge             time.Duration // objects that no snapshot needs go at this age: a killed create may be resumed until then. Default 24h, negative: at once
	Logger                *slog.Logger  // default: none

	at func(step string) // for tests
}

// Decision is what Prune does with a snapshot, and why.
type Decision struct {
	Snapshot *Snapshot
	Remove   bool
	Why      string
}

// PruneResult says what was removed, or would be.
type PruneResult struct {
	Decisions []Decision // the newest first
	Objects   int64      // removed
	Bytes     int64      // of them
	Orphans   int64      // of Objects: those that no snapshot needed before
	DryRun    bool
}

// Prune removes snapshots that nobody needs, and the objects that no other one shares. The manifest goes first, so that
// what is left of a killed run is no snapshot, and the next run removes the rest.
// It never removes the last usable snapshot, nor the newest that the change log continues, nor any newer than that.
// Errors: ErrHeadroom, ErrBusy, and ErrFutureFormat or ErrCorrupt when it cannot be told which objects are needed.
func Prune(ctx context.Context, opts PruneOptions) (res PruneResult, err error) {
	if err := opts.check(); err != nil {
		return res, err
	}
	k := keys(opts.Cluster)
	p := &pruning{keys: k, res: PruneResult{DryRun: !opts.Confirm}}
	if opts.Confirm {
		lease, held, err := acquire(ctx, opts.Store, k.lease("writer"), "prune", opts.Logger)
		if err != nil {
			return res, err
		}
		defer lease.release()
		ctx, p.lease = held, lease
		if c, ok := opts.Store.(interface{ Clean() error }); ok {
			if err := c.Clean(); err != nil {
				return res, err
			}
		}
	}
	p.opts = opts
	err = p.run(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return p.res, err
}

func (o *PruneOptions) check() error {
	if err := checkClusterAndStore(o.Cluster, o.Store); err != nil {
		return err
	}
	if o.Keep < 1 || o.Daily < 0 || o.Weekly < 0 || o.Monthly < 0 {
		return fmt.Errorf("%w: keep at least one snapshot", ErrUsage)
	}
	if o.OrphanAge == 0 {
		o.OrphanAge = 24 * time.Hour
	}
	o.Logger = logger(o.Logger)
	if o.at == nil {
		o.at = func(string) {}
	}
	return nil
}

type pruning struct {
	opts  PruneOptions
	keys  keys
	lease *lease
	res   PruneResult
}

func (p *pruning) run(ctx context.Context) error {
	all, err := List(ctx, ListOptions{Cluster: p.opts.Cluster, Store: p.opts.Store})
	if err != nil {
		return err
	}
	lists := make(map[string][]File)
	for _, s := range all {
		if s.Broken == nil {
			if lists[s.ID], err = s.files(ctx, p.opts.Store); errors.Is(err, ErrCorrupt) {
				s.Broken, err = err, nil
			}
		}
		if err != nil {
			return err
		}
		if broken := s.Broken; broken != nil && (!p.opts.DropBroken || !errors.Is(broken, ErrForeign) && !errors.Is(broken, ErrCorrupt)) {
			return fmt.Errorf("nothing is removed, for it cannot be told which objects this one needs: %w", broken)
		}
	}
	if p.res.Decisions, err = p.decide(all); err != nil {
		return err
	}
	needed, doomed := make(objectSet), make(objectSet)
	var removed []*Snapshot
	for _, d := range p.res.Decisions {
		set := needed
		if d.Remove {
			set = doomed
			removed = append(removed, d.Snapshot)
		}
		set.add(lists[d.Snapshot.ID])
	}
	clear(lists)
	remains, err := p.remains(ctx, all, doomed)
	if err != nil {
		return err
	}
	for _, s := range removed {
		if p.opts.Confirm {
			p.opts.Logger.Info("removing a snapshot", "id", s.ID)
		}
		if err := p.delete(ctx, p.keys.manifest(s.ID)); err != nil {
			return err
		}
		p.opts.at("manifest removed")
	}
	if err := p.collect(ctx, needed, doomed); err != nil {
		return err
	}
	// Last: until then they tell the next run which objects may go at once.
	for _, s := range removed {
		remains = append(remains, p.keys.verified(s.ID), p.keys.sums(s.ID), p.keys.files(s.ID))
	}
	return p.delete(ctx, remains...)
}

func (p *pruning) delete(ctx context.Context, keys ...string) error {
	if !p.opts.Confirm || len(keys) == 0 {
		return nil
	}
	if err := errors.Join(ctx.Err(), p.lease.fresh()); err != nil {
		return err
	}
	return p.opts.Store.Delete(ctx, keys...)
}

// remains returns what is left of snapshots without a manifest: a prune or a create was killed. What their lists name goes,
// as far as no snapshot needs it.
func (p *pruning) remains(ctx context.Context, all []*Snapshot, doomed objectSet) ([]string, error) {
	known := make(map[string]bool, len(all))
	for _, s := range all {
		known[s.ID] = true
	}
	var remains []string
	for o, err := range p.opts.Store.List(ctx, p.keys.snapshots()) {
		if err != nil {
			return nil, err
		}
		id, name, _ := strings.Cut(strings.TrimPrefix(o.Key, p.keys.snapshots()), "/")
		if known[id] {
			continue
		}
		remains = append(remains, o.Key)
		if name != "files.zst" {
			continue
		}
		b, err := readObject(ctx, p.opts.Store, o.Key, listLimit)
		if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrForeign) {
			return nil, err
		}
		if files, err := decodeLines[File](b, 1<<30); err == nil {
			doomed.add(files)
		}
	}
	return remains, nil
}

// collect removes objects that no snapshot needs: at once those that a removed one needed, later those of unfinished creates.
func (p *pruning) collect(ctx context.Context, needed, doomed objectSet) error {
	const batch = 500
	var keys []string
	for o, err := range p.opts.Store.List(ctx, p.keys.objects()) {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(o.Key, p.keys.objects())
		if needed.has(name) {
			continue
		}
		if !doomed.has(name) {
			if time.Since(o.Modified) < p.opts.OrphanAge {
				continue
			}
			p.res.Orphans++
		}
		p.res.Objects++
		p.res.Bytes += o.Size
		if keys = append(keys, o.Key); len(keys) == batch {
			if err := p.delete(ctx, keys...); err != nil {
				return err
			}
			keys = keys[:0]
			p.opts.at("objects removed")
		}
	}
	return p.delete(ctx, keys...)
}

// objectSet holds objects' names by half a SHA-256: millions of them fit into memory.
type objectSet map[[16]byte]struct{}

func objectID(name string) [16]byte {
	sum := sha256.Sum256([]byte(name))
	return [16]byte(sum[:16])
}

func (s objectSet) add(files []File) {
	for i := range files {
		for _, p := range files[i].Pieces {
			s[objectID(p.Object)] = struct{}{}
		}
	}
}

func (s objectSet) has(name string) bool {
	_, ok := s[objectID(name)]
	return ok
}

// Decide is what Prune would decide about snapshots, the oldest first, that are kept somewhere else than in a Store. It looks at
// Keep, Daily, Weekly, Monthly, FirstRetained and Margin. The decisions come the newest first. Errors: ErrUsage, ErrHeadroom.
func Decide(all []*Snapshot, opts PruneOptions) ([]Decision, error) {
	if opts.Keep < 1 || opts.Daily < 0 || opts.Weekly < 0 || opts.Monthly < 0 {
		return nil, fmt.Errorf("%w: keep at least one snapshot", ErrUsage)
	}
	return (&pruning{opts: opts}).decide(all)
}

// decide says of each snapshot whether it stays, the newest first.
func (p *pruning) decide(all []*Snapshot) ([]Decision, error) {
	var usable []*Snapshot
	for _, s := range slices.Backward(all) {
		if s.Usable() {
			usable = append(usable, s)
		}
	}
	why := make(map[string]string)
	keep := func(s *Snapshot, reason string) {
		if why[s.ID] == "" {
			why[s.ID] = reason
		}
	}
	if len(usable) > 0 {
		if err := p.protect(usable, keep); err != nil {
			return nil, err
		}
	}
	decisions := make([]Decision, 0, len(all))
	for _, s := range slices.Backward(all) {
		d := Decision{Snapshot: s, Why: why[s.ID]}
		switch {
		case s.Broken != nil:
			d.Remove, d.Why = true, "damaged"
		case d.Why != "":
		case len(usable) == 0:
			d.Why = "there is no usable snapshot yet"
		case !s.Usable() && s.Created.After(usable[0].Created):
			d.Why = "newer than the newest usable one, not verified yet"
		case !s.Usable():
			d.Remove, d.Why = true, "not verified, and there is a newer one that is"
		default:
			d.Remove, d.Why = true, "not among those to keep"
		}
		decisions = append(decisions, d)
	}
	return decisions, nil
}

// protect names the usable snapshots that stay. usable has the newest first.
func (p *pruning) protect(usable []*Snapshot, keep func(*Snapshot, string)) error {
	keep(usable[0], "the newest usable one")
	continued := func(s *Snapshot) bool { return s.Offset+1 >= p.opts.FirstRetained+p.opts.Margin }
	if s := usable[0]; s.Offset >= 0 && !continued(s) {
		return fmt.Errorf("%w: the newest usable snapshot %s is at offset %d, the log begins at %d and the margin is %d: "+
			"nothing is removed; take and verify a snapshot, or extend the topic's retention", ErrHeadroom, s.ID, s.Offset,
			p.opts.FirstRetained, p.opts.Margin)
	}
	for _, s := range usable {
		if s.Offset >= 0 && continued(s) {
			keep(s, "the newest that the change log is known to continue")
			break
		}
	}
	for i, s := range usable {
		if i < p.opts.Keep {
			keep(s, fmt.Sprintf("one of the %d newest", p.opts.Keep))
		}
	}
	for _, period := range []struct {
		name  string
		count int
		of    func(time.Time) string
	}{
		{"daily", p.opts.Daily, func(t time.Time) string { return t.UTC().Format("2006-01-02") }},
		{"weekly", p.opts.Weekly, func(t time.Time) string { y, w := t.UTC().ISOWeek(); return fmt.Sprint(y, " ", w) }},
		{"monthly", p.opts.Monthly, func(t time.Time) string { return t.UTC().Format("2006-01") }},
	} {
		last, left := "", period.count
		for _, s := range usable {
			if now := period.of(s.Created); now != last && left > 0 {
				last = now
				left--
				keep(s, period.name)
			}
		}
	}
	return nil
}

// sizes finds out what each snapshot takes up.
func sizes(ctx context.Context, store Store, k keys, all []*Snapshot) error {
	size := make(map[[16]byte]int64)
	for o, err := range store.List(ctx, k.objects()) {
		if err != nil {
			return err
		}
		size[objectID(strings.TrimPrefix(o.Key, k.objects()))] = o.Size
	}
	type use struct{ count, owner int }
	uses := make(map[[16]byte]use)
	for i, s := range all {
		if s.Broken != nil {
			continue
		}
		files, err := s.files(ctx, store)
		if errors.Is(err, ErrCorrupt) {
			s.Broken = err
			continue
		}
		if err != nil {
			return err
		}
		mine := make(objectSet)
		mine.add(files)
		for id := range mine {
			s.StoredBytes += size[id]
			uses[id] = use{uses[id].count + 1, i}
		}
	}
	for id, u := range uses {
		if u.count == 1 {
			all[u.owner].UniqueBytes += size[id]
		}
	}
	return nil
}
