package main

import (
	"fmt"
	"math"
	"slices"
)

// samples are the results of repeated runs of one measurement.
type samples []float64

func (s samples) sorted() samples {
	c := slices.Clone(s)
	slices.Sort(c)
	return c
}

// percentile is the smallest sample that at least the given share (0 to 1) of
// all samples do not exceed: the nearest-rank definition. NaN without samples.
func (s samples) percentile(share float64) float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	rank := int(math.Ceil(share * float64(len(s))))
	return s.sorted()[max(rank, 1)-1]
}

// median is the middle sample, or the mean of the middle two.
func (s samples) median() float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	c := s.sorted()
	return (c[(len(c)-1)/2] + c[len(c)/2]) / 2
}

func (s samples) String() string {
	if len(s) == 0 {
		return "no samples"
	}
	return fmt.Sprintf("median %.3f, %.3f to %.3f (%d runs)", s.median(), slices.Min(s), slices.Max(s), len(s))
}

// ratios divides run by run: both of a pair ran one after the other, so that
// what the machine does beside weighs on both.
func ratios(over, under samples) samples {
	var r samples
	for i := range min(len(over), len(under)) {
		r = append(r, over[i]/under[i])
	}
	return r
}
