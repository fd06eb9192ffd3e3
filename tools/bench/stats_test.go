package main

import (
	"math"
	"testing"
)

func TestMedianAndPercentiles(t *testing.T) {
	s := samples{5, 1, 4, 2, 3}
	for share, want := range map[float64]float64{0: 1, 0.2: 1, 0.21: 2, 0.5: 3, 0.99: 5, 1: 5} {
		if got := s.percentile(share); got != want {
			t.Errorf("percentile %v is %v, want %v", share, got, want)
		}
	}
	if got := s.median(); got != 3 {
		t.Errorf("median of five is %v, want 3", got)
	}
	if got := (samples{1, 2, 10, 20}).median(); got != 6 {
		t.Errorf("median of four is %v, want 6", got)
	}
	if got := (samples{}).median(); !math.IsNaN(got) {
		t.Errorf("median of nothing is %v, want NaN", got)
	}
	if s[0] != 5 {
		t.Error("the samples were reordered")
	}
}

func TestRatiosPairRuns(t *testing.T) {
	got := ratios(samples{2, 9, 4}, samples{1, 3})
	if len(got) != 2 || got[0] != 2 || got[1] != 3 {
		t.Errorf("got %v, want [2 3]", got)
	}
}
