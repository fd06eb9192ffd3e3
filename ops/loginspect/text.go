package loginspect

import (
	"fmt"
	"sort"
	"strings"

	"github.com/drover-io/drover/changelog"
)

// text is the row of the table.
func (r Row) text() string {
	sequences := fmt.Sprintf("%d", r.First)
	switch {
	case r.Kind == "bad":
		sequences = "-"
	case r.Count > 1:
		sequences = fmt.Sprintf("%d-%d", r.First, r.First+uint64(r.Count)-1)
	case r.Count == 0:
		sequences = fmt.Sprintf("next %d", r.First)
	}
	part := "-"
	if r.Parts > 1 {
		part = fmt.Sprintf("%d/%d", r.Part, r.Parts)
	}
	when := "-"
	if !r.Time.IsZero() {
		when = r.Time.Local().Format("15:04:05.000")
	}
	return fmt.Sprintf("%d\t%d\t%s\t%s\t%s\t%d\t%s\t%s", r.Offset, r.Timeline, sequences, r.Kind, part, r.Bytes, when, r.content())
}

// content says what the frame carries.
func (r Row) content() string {
	switch {
	case r.Error != "":
		return r.Error
	case r.Heartbeat != nil:
		return heartbeatText(r.Heartbeat)
	case r.Start != nil:
		return fmt.Sprintf("timeline %d of cluster %s starts (%s) at sequence %d", r.Timeline, r.Start.Cluster, r.Start.Reason, r.Start.Base+1)
	}
	var parts []string
	if r.Block != nil {
		parts = append(parts, fmt.Sprintf("block %d:", *r.Block))
	}
	parts = append(parts, countsText(r.Puts, "")...)
	parts = append(parts, countsText(r.Deletes, "delete ")...)
	return strings.TrimSuffix(strings.Join(parts, " "), ",")
}

// countsText lists kinds of keys, the most frequent first.
func countsText(counts map[string]int, prefix string) []string {
	kinds := make([]string, 0, len(counts))
	for kind := range counts {
		kinds = append(kinds, kind)
	}
	sort.Slice(kinds, func(a, b int) bool {
		if counts[kinds[a]] != counts[kinds[b]] {
			return counts[kinds[a]] > counts[kinds[b]]
		}
		return kinds[a] < kinds[b]
	})
	for i, kind := range kinds {
		if counts[kind] > 1 {
			kinds[i] = fmt.Sprintf("%s%s ×%d,", prefix, kind, counts[kind])
		} else {
			kinds[i] = prefix + kind + ","
		}
	}
	return kinds
}

func heartbeatText(h *changelog.Heartbeat) string {
	var parts []string
	add := func(name string, block *changelog.BlockRef) {
		if block != nil {
			parts = append(parts, fmt.Sprintf("%s %d", name, block.Number))
		}
	}
	add("head", h.Head)
	add("safe", h.Safe)
	add("finalized", h.Finalized)
	if h.SourceAlive {
		parts = append(parts, fmt.Sprintf("peers %d", h.Peers))
	} else {
		parts = append(parts, "geth does not answer")
	}
	if h.Syncing {
		parts = append(parts, "syncing")
	}
	if h.CaptureLagBytes > 0 {
		parts = append(parts, fmt.Sprintf("%d bytes to publish", h.CaptureLagBytes))
	}
	return strings.Join(parts, ", ")
}
