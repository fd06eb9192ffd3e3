package snapshotview

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/drover-io/drover/snapshot"
	"github.com/drover-io/drover/snapshot/schedule"
)

func lines(t *testing.T, show func(w *bytes.Buffer) error) []string {
	t.Helper()
	var out bytes.Buffer
	if err := show(&out); err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
}

func TestListSaysWhatCanBeStartedFrom(t *testing.T) {
	now := time.Date(2026, 11, 21, 13, 0, 0, 0, time.UTC)
	at := func(id string, age time.Duration) *snapshot.Snapshot {
		s := new(snapshot.Snapshot)
		s.ID, s.Created = id, now.Add(-age)
		return s
	}
	old, unknown, fresh := at("old", 50*time.Hour), at("unknown", 3*time.Hour), at("fresh", 90*time.Second)
	fresh.Verified = new(snapshot.Verification)
	broken := &snapshot.Snapshot{Broken: errors.New("its manifest is cut off")}
	broken.ID = "broken"
	all := []*snapshot.Snapshot{old, broken, unknown, fresh}
	headrooms := Headrooms{
		"old":   {Condition: schedule.Lost, Reason: "the topic begins behind it"},
		"fresh": {Condition: schedule.Bounded, Left: 36 * time.Hour},
	}
	got := lines(t, func(w *bytes.Buffer) error { return List(w, all, headrooms, now) })
	want := [][]string{
		{"ID", "HEADROOM"},
		{"fresh", "1m", "yes", "1d12h"},
		{"unknown", "3h00m", "not verified", "-"},
		{"broken", "no: its manifest is cut off"},
		{"old", "2d02h", "not verified", "none: the topic begins behind it"},
	}
	if len(got) != len(want) {
		t.Fatalf("got %d lines, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	for i, words := range want {
		for _, word := range words {
			if !strings.Contains(got[i], word) {
				t.Errorf("line %q lacks %q", got[i], word)
			}
		}
	}
}

func TestListForProgramsKeepsEveryDigit(t *testing.T) {
	s := new(snapshot.Snapshot)
	s.ID, s.Sequence = "newest", 9_007_199_254_740_993 // beyond what a float holds
	out := strings.Join(lines(t, func(w *bytes.Buffer) error {
		return ListJSON(w, []*snapshot.Snapshot{s}, Headrooms{"newest": {Condition: schedule.Bounded, Left: 90 * time.Second}})
	}), "\n")
	for _, part := range []string{"9007199254740993", `"headroomSeconds": 90`, `"headroom": "ok"`} {
		if !strings.Contains(out, part) {
			t.Errorf("lacks %s:\n%s", part, out)
		}
	}
}

func TestProgressElsewhereThanOnATerminalIsALineForEachPhase(t *testing.T) {
	var out bytes.Buffer
	bar := &Bar{out: &out}
	for _, p := range []snapshot.Progress{
		{Phase: "copy"}, {Phase: "copy", Done: 1e6, Total: 4e6, Rate: 1e6, Left: 3 * time.Second}, {Phase: "copy", Done: 2e6, Total: 4e6},
		{Phase: "copy", Done: 4e6, Total: 4e6}, {Phase: "copy", Done: 4e6, Total: 4e6}, {Phase: "verify: state", Done: 7},
	} {
		bar.Show(p)
	}
	bar.End()
	got := strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
	if len(got) != 3 || !strings.Contains(got[0], "25 %") || !strings.Contains(got[0], "1.0 MB/s  3s left") ||
		!strings.Contains(got[1], "100 %") || !strings.Contains(got[2], "7 nodes") {
		t.Errorf("got:\n%s", out.String())
	}
}

func TestProgressOnATerminalLeavesNothingOfALongerLine(t *testing.T) {
	var out bytes.Buffer
	bar := &Bar{out: &out, terminal: true}
	bar.Show(snapshot.Progress{Phase: "copy", Done: 1e6, Total: 4e6, Rate: 1e6, Left: time.Hour})
	bar.Show(snapshot.Progress{Phase: "copy", Done: 4e6, Total: 4e6})
	bar.End()
	parts := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\r")
	if len(parts) != 3 || len(parts[1]) != len(parts[2]) || strings.Contains(out.String(), "\n\r") {
		t.Errorf("got %q", out.String())
	}
}
