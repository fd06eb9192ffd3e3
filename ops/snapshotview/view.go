// Package snapshotview shows snapshots, and how far work on them has come, to a person or a program.
package snapshotview

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/drover-io/drover/snapshot"
)

// Log is what is known of the change log; nil where no brokers were named.
type Log struct {
	First int64 // first offset that the topic still has
}

// List writes a row for each snapshot, the newest first. With a Log it tells whether the topic still continues each.
func List(w io.Writer, snapshots []*snapshot.Snapshot, log *Log, now time.Time) error {
	if len(snapshots) == 0 {
		_, err := fmt.Fprintln(w, "no snapshots")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tAGE\tBLOCK\tTIMELINE\tSIZE\tSTORED\tUNIQUE\tUSABLE\tHEADROOM")
	for i := len(snapshots) - 1; i >= 0; i-- {
		s := snapshots[i]
		if s.Broken != nil {
			fmt.Fprintf(t, "%s\t\t\t\t\t\t\tno: %v\t\n", s.ID, s.Broken)
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\t%s\t%s\t%s\t%s\n", s.ID, age(now.Sub(s.Created)), s.Head.Number, s.Timeline,
			size(s.Files.Bytes), size(s.StoredBytes), size(s.UniqueBytes), usable(s), headroom(s, log))
	}
	return t.Flush()
}

// ListJSON writes an array, the oldest first.
func ListJSON(w io.Writer, snapshots []*snapshot.Snapshot) error {
	if snapshots == nil {
		snapshots = []*snapshot.Snapshot{}
	}
	return JSON(w, snapshots)
}

// JSON writes one indented value.
func JSON(w io.Writer, value any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(value)
}

func usable(s *snapshot.Snapshot) string {
	if s.Usable() {
		return "yes"
	}
	return "not verified"
}

// headroom is how many frames may still leave the topic before the snapshot cannot be gone on from.
func headroom(s *snapshot.Snapshot, log *Log) string {
	switch {
	case log == nil:
		return "-"
	case s.Offset < 0:
		return "unknown"
	case s.Offset+1 < log.First:
		return "none: the topic begins behind it"
	}
	return fmt.Sprintf("%d frames", s.Offset+1-log.First)
}

// Prune writes what was decided about each snapshot, and what it comes to.
func Prune(w io.Writer, result snapshot.PruneResult) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tDECISION\tWHY")
	for _, d := range result.Decisions {
		decision := "keep"
		if d.Remove {
			decision = "remove"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", d.Snapshot.ID, decision, d.Why)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	what := "removed"
	if result.DryRun {
		what = "would remove"
	}
	_, err := fmt.Fprintf(w, "%s %d objects, %s (%d of them belonged to no snapshot)\n", what, result.Objects, size(result.Bytes), result.Orphans)
	if err == nil && result.DryRun {
		_, err = fmt.Fprintln(w, "nothing was removed: add --confirm to do it")
	}
	return err
}

func size(bytes int64) string { return humanize.Bytes(uint64(max(bytes, 0))) }

// age is short: what matters is the order of magnitude.
func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}

// Created writes what was made, in two lines.
func Created(w io.Writer, res snapshot.CreateResult) error {
	m := res.Manifest
	_, err := fmt.Fprintf(w, "%s: block %d, timeline %d, sequence %d, %d files with %s\n"+
		"%s moved, %s were there already, %d hard links, %s (position fixed after %s); `drover snapshot verify` makes it usable\n",
		m.ID, m.Head.Number, m.Timeline, m.Sequence, m.Files.Count, size(m.Files.Bytes),
		size(res.Moved), size(res.Reused), res.Links, res.Elapsed.Round(time.Millisecond), res.Copying.Round(time.Millisecond))
	return err
}

// Verified writes what was checked, in one line.
func Verified(w io.Writer, s *snapshot.Snapshot) error {
	v := s.Verified
	replayed := "nothing was replayed"
	if v.Replayed > 0 {
		replayed = fmt.Sprintf("replayed up to block %d", v.Replayed)
	}
	_, err := fmt.Fprintf(w, "%s is usable: %d files with %s, %d tables, %d trie nodes of %d accounts found from the root of block %d (%.0f %% of the state), %s\n",
		s.ID, v.Files, size(v.Bytes), v.Tables, v.TrieNodes, v.Accounts, s.Head.Number, 100*v.Sample, replayed)
	return err
}

// Restored writes what was brought back, in one line.
func Restored(w io.Writer, res snapshot.RestoreResult) error {
	s := res.Snapshot
	_, err := fmt.Fprintf(w, "restored %s: block %d, timeline %d, sequence %d, %s, %s read from the store, %s\n",
		s.ID, s.Head.Number, s.Timeline, s.Sequence, size(s.Files.Bytes), size(res.Moved), res.Elapsed.Round(time.Millisecond))
	return err
}
