// Package snapshotview shows snapshots, and how far work on them has come, to a person or a program.
package snapshotview

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/drover-io/drover/ops/retention"
	"github.com/drover-io/drover/snapshot"
	"github.com/drover-io/drover/snapshot/schedule"
)

// Headrooms are those of snapshots, by id; nil where no brokers were named.
type Headrooms map[string]schedule.Headroom

// List writes a row for each snapshot, the newest first.
func List(w io.Writer, snapshots []*snapshot.Snapshot, headrooms Headrooms, now time.Time) error {
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
			size(s.Files.Bytes), size(s.StoredBytes), size(s.UniqueBytes), usable(s), headrooms.text(s.ID))
	}
	return t.Flush()
}

// ListJSON writes an array, the oldest first. Each snapshot has its headroom, too, where brokers were named.
func ListJSON(w io.Writer, snapshots []*snapshot.Snapshot, headrooms Headrooms) error {
	list := make([]map[string]any, 0, len(snapshots))
	for _, s := range snapshots {
		body, err := json.Marshal(s)
		if err != nil {
			return err
		}
		object := make(map[string]any)
		decoder := json.NewDecoder(bytes.NewReader(body))
		decoder.UseNumber() // sequences have more digits than a float
		if err := decoder.Decode(&object); err != nil {
			return err
		}
		if h, ok := headrooms[s.ID]; ok {
			object["headroom"] = h.Condition
			object["headroomSeconds"] = nil // there is no limit
			if h.Condition != schedule.Unlimited {
				object["headroomSeconds"] = h.Left.Seconds()
			}
		}
		list = append(list, object)
	}
	return JSON(w, list)
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

func (all Headrooms) text(id string) string {
	h, ok := all[id]
	switch {
	case !ok:
		return "-"
	case h.Condition == schedule.Bounded:
		return retention.Span(h.Left)
	case h.Condition == schedule.Unlimited:
		return "for ever"
	}
	return "none: " + h.Reason
}

// Report writes what a scheduler's one run did.
func Report(w io.Writer, r schedule.Report) error {
	var lines []string
	if r.Skipped != "" {
		lines = append(lines, "no snapshot was made: "+r.Skipped)
	}
	if run := r.Run; run != nil && run.Outcome == schedule.Succeeded {
		lines = append(lines, fmt.Sprintf("%s is usable: %s moved, %s", run.Snapshot, size(run.Moved), retention.Span(run.Duration())))
	}
	if m := r.Measured; m != nil && m.Newest != nil {
		lines = append(lines, fmt.Sprintf("headroom of %s: %s", m.Newest.ID, Headrooms{m.Newest.ID: m.Headroom}.text(m.Newest.ID)))
	}
	if e := r.Extension; e != nil {
		lines = append(lines, fmt.Sprintf("the topic's retention is raised, since %s", e.Since.UTC().Format(time.RFC3339)))
	}
	for _, f := range r.Alerts {
		lines = append(lines, fmt.Sprintf("alert %s (%s): %s", f.Alert.Name, f.Alert.Severity, f.Alert.Summary))
	}
	if len(lines) == 0 {
		return nil
	}
	_, err := fmt.Fprintln(w, strings.Join(lines, "\n"))
	return err
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
