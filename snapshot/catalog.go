package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/drover-io/drover/changelog"
)

const (
	manifestLimit = 1 << 20 // bytes of manifest.json and verified.json
	listLimit     = 8 << 30 // bytes of files.zst: an archive has millions of tables
)

// Snapshot is one snapshot in a store, as List finds it.
type Snapshot struct {
	Manifest
	Verified *Verification // nil: not verified, so not usable
	// Broken says why the manifest or verified.json cannot be read: damaged, foreign, or of a newer release. Then only the
	// ID is sure. errors.Is tells which.
	Broken error

	// With ListOptions.Sizes:
	UniqueBytes int64 // bytes in the store that only this snapshot needs
	StoredBytes int64 // bytes in the store that it needs

	manifestSum string
}

// Usable tells whether a replica may be started from the snapshot without further ado.
func (s *Snapshot) Usable() bool { return s.Broken == nil && s.Verified != nil }

// MarshalJSON is what drover snapshot list --json shows.
func (s *Snapshot) MarshalJSON() ([]byte, error) {
	shown := struct {
		*Manifest
		Usable      bool          `json:"usable"`
		Verified    *Verification `json:"verified,omitempty"`
		Broken      string        `json:"broken,omitempty"`
		AgeSeconds  float64       `json:"ageSeconds"`
		StoredBytes int64         `json:"storedBytes,omitempty"`
		UniqueBytes int64         `json:"uniqueBytes,omitempty"`
	}{&s.Manifest, s.Usable(), s.Verified, "", s.Age().Seconds(), s.StoredBytes, s.UniqueBytes}
	if s.Broken != nil {
		shown.Broken = s.Broken.Error()
	}
	return json.Marshal(shown)
}

// Age is the time since the snapshot's position was taken.
func (s *Snapshot) Age() time.Duration { return time.Since(s.Created) }

// ListOptions tune List.
type ListOptions struct {
	Cluster string
	Store   Store
	Sizes   bool // also find out what takes how much: reads every file list and lists every object
}

// List returns a cluster's snapshots, the oldest first. One that is damaged or of a newer release is in it as Broken.
func List(ctx context.Context, opts ListOptions) ([]*Snapshot, error) {
	if err := checkClusterAndStore(opts.Cluster, opts.Store); err != nil {
		return nil, err
	}
	k := keys(opts.Cluster)
	var all []*Snapshot
	for o, err := range opts.Store.List(ctx, k.snapshots()) {
		if err != nil {
			return nil, err
		}
		id, ok := strings.CutSuffix(strings.TrimPrefix(o.Key, k.snapshots()), "/manifest.json")
		if !ok || strings.Contains(id, "/") {
			continue
		}
		s, err := load(ctx, opts.Store, k, id)
		if errors.Is(err, ErrNotFound) {
			continue // pruned meanwhile
		}
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	// By IDs they come in this order already, but for those of one second.
	slices.SortStableFunc(all, func(a, b *Snapshot) int { return a.Created.Compare(b.Created) })
	if opts.Sizes {
		return all, sizes(ctx, opts.Store, k, all)
	}
	return all, nil
}

func checkClusterAndStore(cluster string, store Store) error {
	if err := changelog.CheckCluster(cluster); err != nil {
		return fmt.Errorf("%w: %w", ErrUsage, err)
	}
	if store == nil {
		return fmt.Errorf("%w: a --store is needed", ErrUsage)
	}
	return nil
}

// load reads one snapshot's manifest and verification. What cannot be understood is in Broken; the error is the store's.
func load(ctx context.Context, store Store, k keys, id string) (*Snapshot, error) {
	b, err := readObject(ctx, store, k.manifest(id), manifestLimit)
	if err != nil && !errors.Is(err, ErrForeign) {
		return nil, err
	}
	s := &Snapshot{manifestSum: sumOf(b)}
	var m *Manifest
	if err == nil {
		m, err = decodeManifest(b)
	}
	switch {
	case err != nil:
	case m.Cluster != string(k):
		err = fmt.Errorf("%w: its manifest names cluster %q", ErrWrongCluster, m.Cluster)
	case m.ID != id:
		err = fmt.Errorf("%w: its manifest names snapshot %q", ErrForeign, m.ID)
	default:
		s.Manifest = *m
		s.Verified, err = loadVerification(ctx, store, k, s)
	}
	if unclear := err != nil && !errors.Is(err, ErrForeign) && !errors.Is(err, ErrFutureFormat) && !errors.Is(err, ErrWrongCluster); unclear {
		return nil, err
	}
	if err != nil {
		s.ID, s.Created = id, idTime(id)
		s.Broken = fmt.Errorf("snapshot %s in store %s: %w", id, store, err)
	}
	return s, nil
}

// loadVerification returns nil where there is none, or one of another manifest under that ID.
func loadVerification(ctx context.Context, store Store, k keys, s *Snapshot) (*Verification, error) {
	b, err := readObject(ctx, store, k.verified(s.ID), manifestLimit)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var v Verification
	if err := decodeStrict(b, &v); err != nil {
		return nil, fmt.Errorf("verified.json: %w", err)
	}
	if v.Manifest != s.manifestSum {
		return nil, nil
	}
	return &v, nil
}

// files reads a snapshot's file list.
func (s *Snapshot) files(ctx context.Context, store Store) ([]File, error) {
	b, err := readObject(ctx, store, keys(s.Cluster).files(s.ID), listLimit)
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrForeign) {
		return nil, err // which says nothing about the content
	}
	var files []File
	if err == nil {
		files, err = decodeFiles(b, s.Files)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: snapshot %s in store %s: its file list files.zst: %w", ErrCorrupt, s.ID, store, err)
	}
	return files, nil
}

// Select says which snapshot is meant. The zero value is the newest usable one.
type Select struct {
	ID         string    // this one
	Before     time.Time // the newest taken at or before
	Block      *uint64   // the newest whose head is at or below
	Unverified bool      // also one that was not verified
}

// Find returns the snapshot that is meant. ErrNoSnapshot, ErrUnverified, or why the one named by its ID cannot be used.
func Find(ctx context.Context, store Store, cluster string, sel Select) (*Snapshot, error) {
	if err := checkClusterAndStore(cluster, store); err != nil {
		return nil, err
	}
	if sel.ID != "" {
		return findID(ctx, store, cluster, sel)
	}
	all, err := List(ctx, ListOptions{Cluster: cluster, Store: store})
	if err != nil {
		return nil, err
	}
	unverified := 0
	var newer error
	for i := len(all) - 1; i >= 0; i-- {
		s := all[i]
		switch {
		case s.Broken != nil:
			newer = s.Broken
		case !sel.Before.IsZero() && s.Created.After(sel.Before), sel.Block != nil && s.Head.Number > *sel.Block:
		case !s.Usable() && !sel.Unverified:
			unverified++
		default:
			return s, nil
		}
	}
	hint := "take one with drover snapshot create"
	if unverified > 0 {
		hint = fmt.Sprintf("%d are not verified yet: drover snapshot verify makes them usable", unverified)
	}
	err = fmt.Errorf("%w: store %s holds no usable snapshot of cluster %q that was asked for; %s", ErrNoSnapshot, store, cluster, hint)
	if newer != nil {
		err = fmt.Errorf("%w (%w)", err, newer)
	}
	return nil, err
}

func findID(ctx context.Context, store Store, cluster string, sel Select) (*Snapshot, error) {
	if !idForm.MatchString(sel.ID) {
		return nil, fmt.Errorf("%w: %.60q is not a snapshot's ID: they look like 20261121T130500Z-1234, see drover snapshot list", ErrUsage, sel.ID)
	}
	s, err := load(ctx, store, keys(cluster), sel.ID)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, fmt.Errorf("%w: store %s has no snapshot %s of cluster %q", ErrNoSnapshot, store, sel.ID, cluster)
	case err != nil:
		return nil, err
	case s.Broken != nil:
		return nil, s.Broken
	case !s.Usable() && !sel.Unverified:
		return nil, fmt.Errorf("%w: %s in store %s: verify it first (drover snapshot verify)", ErrUnverified, sel.ID, store)
	}
	return s, nil
}

// ParseRef splits a REF of the command line, STORE or STORE#ID.
func ParseRef(ref string) (store, id string) {
	store, id, _ = strings.Cut(ref, "#")
	return store, id
}
