package main

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestVerdictIsThatOfTheMedian(t *testing.T) {
	f := newFigure("x", "y", &target{Series: "ratio", Limit: 1.25}, &target{Series: "faster", Limit: 4.5, AtLeast: true})
	for _, v := range []float64{1.2, 9, 1.3} {
		f.add("ratio", "", v)
		f.add("faster", "", 4*v)
	}
	f.finish()
	if s := f.Series[0]; s.Median != 1.3 || s.Min != 1.2 || s.Max != 9 {
		t.Errorf("median, min, max: %v", s)
	}
	if f.Targets[0].Met || !f.Targets[1].Met {
		t.Errorf("verdicts of %v: %v, %v", f.Series, f.Targets[0], f.Targets[1])
	}
	var out bytes.Buffer
	f.print(&out)
	for _, want := range []string{"target: ratio at most 1.25: 1.3: MISSED", "target: faster at least 4.5: 5.2: met"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, &out)
		}
	}
}

func TestMedianOfAnEvenNumberOfRunsIsBetweenTheMiddleTwo(t *testing.T) {
	f := newFigure("x", "y")
	for _, v := range []float64{1, 4, 2, 100} {
		f.add("a", "s", v)
	}
	if f.finish(); f.Series[0].Median != 3 {
		t.Errorf("median %v, want 3", f.Series[0].Median)
	}
}

func TestQuantile(t *testing.T) {
	var values []float64
	for i := range 200 {
		values = append(values, float64(200-i))
	}
	for q, want := range map[float64]float64{0: 1, 0.5: 100, 0.99: 198, 1: 200} {
		if got := quantile(values, q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
}

func TestQuickIsSmallerUnlessToldOtherwise(t *testing.T) {
	s, err := parse([]string{"--quick", "--runs", "7", "--only", "lag"}, io.Discard)
	if err != nil || s.runs != 7 || s.blocks != 150 || !s.wants("lag") || s.wants("apply") {
		t.Errorf("%+v, %v", s, err)
	}
	for _, wrong := range []string{"--only=speed", "--runs=0", "argument", "--unknown"} {
		if _, err := parse([]string{wrong}, io.Discard); !errors.Is(err, errUsage) {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}

func TestVerdictOnATimeSaysWhenOthersHadTheCores(t *testing.T) {
	for _, timed := range []bool{true, false} {
		f := newFigure("x", "y", &target{Series: "a", Limit: 1}, &target{Series: "a", Limit: 1, size: true})
		f.timed, f.Others = timed, 0.5
		f.add("a", "s", 1)
		f.finish()
		if got := strings.Contains(f.Targets[0].String(), "NOT CONCLUSIVE"); got != timed {
			t.Errorf("timed %v: %v", timed, f.Targets[0])
		}
		if f.Targets[1].Busy {
			t.Errorf("a size is not conclusive")
		}
	}
}
