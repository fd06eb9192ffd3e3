package retention

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/drover-io/drover/snapshot/schedule"
)

// Table writes the arithmetic for a person.
func Table(w io.Writer, p Plan) error {
	var lines bytes.Buffer
	t := tabwriter.NewWriter(&lines, 0, 0, 3, ' ', 0)
	row := func(what, value string, notes ...string) {
		fmt.Fprintf(t, "%s\t%s\t%s\n", what, value, strings.Join(notes, "; "))
	}
	row("the topic keeps frames for", keeps(p), retentionNotes(p)...)
	row("a snapshot begins every", Span(p.Interval), when(p.Spacing > p.Interval, "but one takes longer: every "+Span(p.Spacing)))
	row("from its position until it is usable", Span(p.Making), makingNote(p))
	row("restoring one", Span(p.Restore), when(p.Restore == p.Making, "taken to be as long as making one"))
	row("the newest usable one gets as old as", Span(p.Oldest), "if none fails")
	row("snapshots in a row that may fail", count(p.Misses), missesNote(p))
	row(fmt.Sprintf("so that %d in a row may fail", p.Tolerate), advice(p))
	if p.Now != nil {
		row("", "")
		nowRows(row, p)
	}
	row("", "")
	row("verdict", string(p.Verdict), verdictNote(p))
	if err := t.Flush(); err != nil {
		return err
	}
	if p.Now != nil && len(p.Now.Runs) > 0 {
		if err := runs(&lines, p.Now.Runs); err != nil {
			return err
		}
	}
	for line := range strings.Lines(lines.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

func when(is bool, note string) string {
	if is {
		return note
	}
	return ""
}

func keeps(p Plan) string {
	if p.Effective == 0 {
		return "ever"
	}
	return Span(p.Effective)
}

func retentionNotes(p Plan) []string {
	var notes []string
	switch {
	case p.BySize && p.Bytes > 0:
		notes = append(notes, fmt.Sprintf("retention.bytes (%s) takes them that soon", humanize.Bytes(uint64(p.Bytes))))
	case p.Bytes > 0 && p.Now != nil:
		notes = append(notes, fmt.Sprintf("retention.bytes (%s) has not taken any yet", humanize.Bytes(uint64(p.Bytes))))
	}
	if p.Now != nil && p.Now.Raised > 0 {
		notes = append(notes, "raised for now because snapshots fail")
	}
	return notes
}

func makingNote(p Plan) string {
	if p.Now == nil {
		return ""
	}
	var all []time.Duration
	for _, r := range good(p.Now.Runs) {
		all = append(all, seconds(r.Create+r.Verify))
	}
	switch {
	case p.Making == 0:
		return "not known: no run has succeeded yet"
	case len(all) == 0:
		return "given"
	}
	return fmt.Sprintf("the longest of the last %d, the median is %s", len(all), Span(median(all)))
}

func count(misses int) string {
	switch {
	case misses == Unlimited:
		return "any number"
	case misses < 0:
		return "none"
	}
	return fmt.Sprint(misses)
}

func missesNote(p Plan) string {
	switch {
	case p.Misses < 0:
		return "even if none fails, there are times when no replica can be started"
	case p.Misses == Unlimited:
		return ""
	}
	return "one in each interval; after the next one a new replica cannot start"
}

func advice(p Plan) string {
	if p.Effective == 0 {
		return "any interval does"
	}
	if p.Misses >= p.Tolerate {
		return when(p.Recommended > 0, "an interval of up to "+Span(p.Recommended)+" does") + when(p.Recommended == 0, "this interval does")
	}
	raise := "raise the topic's retention (retention.ms) to " + Span(p.NeedsRetention)
	switch {
	case p.BySize && p.Rate > 0:
		raise = fmt.Sprintf("raise the topic's retention.bytes to %s", humanize.Bytes(uint64(p.Rate*p.NeedsRetention.Seconds())))
	case p.BySize:
		raise = "raise the topic's retention.bytes so that it lasts for " + Span(p.NeedsRetention)
	}
	if p.Recommended == 0 {
		return raise
	}
	return "shorten the interval to " + Span(p.Recommended) + ", or " + raise
}

func nowRows(row func(what, value string, notes ...string), p Plan) {
	now, a := p.Now, p.Ahead
	row("first frame on the topic", when(now.FirstAge > 0, Span(now.FirstAge)+" old")+when(now.FirstAge == 0, "there is none"))
	if now.Newest == "" {
		row("newest usable snapshot", "none", fmt.Sprintf("of %d in the store", now.Snapshots))
	} else {
		row("newest usable snapshot", now.Newest, Span(now.At.Sub(now.Taken))+" old")
	}
	switch {
	case now.Lost != "":
		row("headroom", "lost", now.Lost)
	case now.Unlimited:
		row("headroom", "without end")
	default:
		row("headroom", Span(now.Left))
		row("a new replica has to begin by", clock(a.Deadline), "or it cannot read on after its restore")
		row("a snapshot has to begin by", clock(a.LastStart), "the next is due at "+clock(a.Next))
		row("snapshots from now on that may fail", count(a.Misses), when(now.Failures > 0, fmt.Sprintf("%d failed since the last good one", now.Failures)))
	}
}

func verdictNote(p Plan) string {
	switch p.Verdict {
	case Lost:
		return "no new replica can be started until a snapshot is made and verified: drover snapshot create, drover snapshot verify"
	case Short:
		return advice(p)
	case Tight:
		return fmt.Sprintf("room for %s failures, not for %d: %s", count(p.Misses), p.Tolerate, advice(p))
	}
	return ""
}

func runs(w io.Writer, all []schedule.Run) error {
	const shown = 10
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "STARTED\tOUTCOME\tTOOK\tPREPARE\tCREATE\tVERIFY\tPRUNE\tMOVED\tSNAPSHOT")
	for _, r := range all[max(0, len(all)-shown):] {
		what := r.Snapshot
		if r.Outcome == schedule.Failed {
			what = strings.TrimSpace(r.Snapshot + " failed in " + r.Step + ": " + firstWords(r.Error))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", clock(r.Started), r.Outcome, Span(r.Duration()), Span(seconds(r.Prepare)),
			Span(seconds(r.Create)), Span(seconds(r.Verify)), Span(seconds(r.Prune)), humanize.Bytes(uint64(max(0, r.Moved))), what)
	}
	return t.Flush()
}

// firstWords keeps a row a row.
func firstWords(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if r := []rune(text); len(r) > 80 {
		return string(r[:80]) + "…"
	}
	return text
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// Span is a duration in the two largest units that matter: 7d, 1d12h, 6h30m, 45s.
func Span(d time.Duration) string {
	if d < 0 {
		return "-" + Span(-d)
	}
	switch {
	case d >= 24*time.Hour:
		d = d.Round(time.Hour)
		return trim(fmt.Sprintf("%dd%dh", int(d/(24*time.Hour)), int(d%(24*time.Hour)/time.Hour)), "0h")
	case d >= time.Hour:
		d = d.Round(time.Minute)
		return trim(fmt.Sprintf("%dh%dm", int(d/time.Hour), int(d%time.Hour/time.Minute)), "0m")
	case d >= time.Minute:
		d = d.Round(time.Second)
		return trim(fmt.Sprintf("%dm%ds", int(d/time.Minute), int(d%time.Minute/time.Second)), "0s")
	case d >= 10*time.Second:
		return d.Round(time.Second).String()
	}
	return d.Round(time.Millisecond).String()
}

// trim leaves a zero out, but not the one of 10m.
func trim(text, zero string) string {
	cut, ok := strings.CutSuffix(text, zero)
	if ok && cut[len(cut)-1] >= 'a' {
		return cut
	}
	return text
}

// MarshalJSON is what drover ops retention --json shows. Times are seconds; a number that has no limit is null.
func (p Plan) MarshalJSON() ([]byte, error) {
	type now struct {
		At              time.Time  `json:"at"`
		Newest          string     `json:"newest,omitempty"`
		AgeSeconds      float64    `json:"ageSeconds"`
		HeadroomSeconds *float64   `json:"headroomSeconds"`
		Lost            string     `json:"lost,omitempty"`
		FirstAgeSeconds float64    `json:"firstFrameAgeSeconds"`
		Snapshots       int        `json:"snapshots"`
		Failures        int        `json:"failures"`
		Next            time.Time  `json:"next"`
		LastStart       *time.Time `json:"lastStart"`
		Deadline        *time.Time `json:"deadline"`
		Misses          *int       `json:"misses"`
		Runs            any        `json:"runs"`
		RaisedFrom      float64    `json:"retentionRaisedFromSeconds,omitempty"`
	}
	shown := struct {
		Verdict     Verdict  `json:"verdict"`
		Retention   *float64 `json:"retentionSeconds"`
		BySize      bool     `json:"bySize"`
		Interval    float64  `json:"intervalSeconds"`
		Making      float64  `json:"makingSeconds"`
		Run         float64  `json:"runSeconds"`
		Restore     float64  `json:"restoreSeconds"`
		Oldest      float64  `json:"oldestSeconds"`
		Misses      *int     `json:"misses"`
		Tolerate    int      `json:"tolerate"`
		Needs       float64  `json:"neededRetentionSeconds"`
		Recommended *float64 `json:"recommendedIntervalSeconds"`
		Now         *now     `json:"now,omitempty"`
	}{
		p.Verdict, unlessZero(p.Effective), p.BySize, p.Interval.Seconds(), p.Making.Seconds(), p.Run.Seconds(), p.Restore.Seconds(),
		p.Oldest.Seconds(), unlessUnlimited(p.Misses), p.Tolerate, p.NeedsRetention.Seconds(), unlessZero(p.Recommended), nil,
	}
	if n, a := p.Now, p.Ahead; n != nil && a != nil {
		shown.Now = &now{
			At: n.At, Newest: n.Newest, Lost: n.Lost, FirstAgeSeconds: n.FirstAge.Seconds(), Snapshots: n.Snapshots,
			Failures: n.Failures, Next: a.Next, Misses: unlessUnlimited(a.Misses), Runs: append([]schedule.Run{}, n.Runs...), RaisedFrom: n.Raised.Seconds(),
		}
		if n.Newest != "" {
			shown.Now.AgeSeconds = n.At.Sub(n.Taken).Seconds()
		}
		if !n.Unlimited {
			left := n.Left.Seconds()
			shown.Now.HeadroomSeconds = &left
		}
		if !a.Deadline.IsZero() {
			shown.Now.Deadline, shown.Now.LastStart = &a.Deadline, &a.LastStart
		}
	}
	return json.Marshal(shown)
}

func unlessZero(d time.Duration) *float64 {
	if d == 0 {
		return nil
	}
	s := d.Seconds()
	return &s
}

func unlessUnlimited(n int) *int {
	if n == Unlimited {
		return nil
	}
	return &n
}

// JSON writes the arithmetic for a program.
func JSON(w io.Writer, p Plan) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(p)
}
