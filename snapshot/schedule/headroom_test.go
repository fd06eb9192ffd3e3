package schedule

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drover-io/drover/changelog"
)

func TestHeadroomArithmetic(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	day := changelog.Retention{Time: 24 * hour}
	sized := changelog.Retention{Time: 24 * hour, Bytes: 1 << 30}
	for name, c := range map[string]struct {
		f    Figures
		want Headroom
	}{
		"in the middle": {
			Figures{First: 100, Next: 900, FirstAt: ago(24 * hour), Retention: day, Reads: 600, ReadsAt: ago(5 * hour)},
			Headroom{Condition: Bounded, Left: 19 * hour, Retention: 24 * hour, Age: 5 * hour},
		},
		"caught up": {
			Figures{First: 100, Next: 900, FirstAt: ago(24 * hour), Retention: day, Reads: 900},
			Headroom{Condition: Bounded, Left: 24 * hour, Retention: 24 * hour},
		},
		"a frame from the future": {
			Figures{First: 100, Next: 900, FirstAt: ago(hour), Retention: day, Reads: 899, ReadsAt: now.Add(time.Minute)},
			Headroom{Condition: Bounded, Left: 24 * hour, Retention: 24 * hour},
		},
		"past its time, not dropped yet": {
			Figures{First: 100, Next: 900, FirstAt: ago(26 * hour), Retention: day, Reads: 101, ReadsAt: ago(25 * hour)},
			Headroom{Condition: Bounded, Retention: 24 * hour, Age: 25 * hour},
		},
		"the first one left": {
			Figures{First: 100, Next: 900, FirstAt: ago(23 * hour), Retention: day, Reads: 100, ReadsAt: ago(23 * hour)},
			Headroom{Condition: Bounded, Left: hour, Retention: 24 * hour, Age: 23 * hour},
		},
		"dropped": {
			Figures{First: 100, Next: 900, FirstAt: ago(23 * hour), Retention: day, Reads: 99},
			Headroom{Condition: Lost, Retention: 24 * hour, Reason: "a replica would have to read from offset 99, the topic begins at 100"},
		},
		"does not join": {
			Figures{First: 0, Next: 900, FirstAt: ago(hour), Retention: day, Continues: errors.New("other timeline")},
			Headroom{Condition: Lost, Retention: 24 * hour, Reason: "other timeline"},
		},
		"for ever": {
			Figures{First: 0, Next: 900, FirstAt: ago(999 * hour), Reads: 1, ReadsAt: ago(998 * hour)},
			Headroom{Condition: Unlimited, Age: 998 * hour},
		},
		"by size": {
			Figures{First: 100, Next: 900, FirstAt: ago(6 * hour), Retention: sized, Reads: 600, ReadsAt: ago(2 * hour)},
			Headroom{Condition: Bounded, Left: 4 * hour, Retention: 6 * hour, BySize: true, Age: 2 * hour},
		},
		"by size alone": {
			Figures{First: 100, Next: 900, FirstAt: ago(6 * hour), Retention: changelog.Retention{Bytes: 1}, Reads: 600, ReadsAt: ago(2 * hour)},
			Headroom{Condition: Bounded, Left: 4 * hour, Retention: 6 * hour, BySize: true, Age: 2 * hour},
		},
		"by size, nothing dropped yet": {
			Figures{First: 0, Next: 900, FirstAt: ago(6 * hour), Retention: sized, Reads: 600, ReadsAt: ago(2 * hour)},
			Headroom{Condition: Bounded, Left: 22 * hour, Retention: 24 * hour, Age: 2 * hour},
		},
		"size and time, time is first": {
			Figures{First: 100, Next: 900, FirstAt: ago(25 * hour), Retention: sized, Reads: 600, ReadsAt: ago(2 * hour)},
			Headroom{Condition: Bounded, Left: 22 * hour, Retention: 24 * hour, Age: 2 * hour},
		},
	} {
		c.f.Now = now
		if got := Compute(c.f); got != c.want {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got, c.want)
		}
	}
}

// The promise of headroom: nothing that Kafka does can make a snapshot useless sooner.
func TestAReplicaCanBeStartedUntilHeadroomIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic := newSimTopic(hour)
		time.Sleep(90 * time.Minute)
		_, next, _ := topic.Bounds(t.Context())
		at := changelog.Position{Cluster: testCluster, Timeline: 1, Offset: next - 1800} // half an hour old
		points := []Point{{ID: "old", Usable: true, Position: at}, {ID: "new", Position: changelog.Position{Timeline: 1, Offset: next - 1}}}
		m, err := Measure(t.Context(), topic, points, time.Now)
		if err != nil || m.Newest.ID != "old" || m.Left < 29*time.Minute || m.Left > 31*time.Minute {
			t.Fatalf("%+v, %v", m, err)
		}
		time.Sleep(m.Left)
		if _, err := topic.Join(t.Context(), at); err != nil {
			t.Errorf("when headroom was over: %v", err)
		}
		time.Sleep(3 * beat)
		if m, err = Measure(t.Context(), topic, points, time.Now); err != nil || m.Condition != Lost || !strings.Contains(m.Reason, "no longer retained") {
			t.Errorf("%+v, %v", m, err)
		}
		if m, err = Measure(t.Context(), topic, points[1:], time.Now); err != nil || m.Condition != None {
			t.Errorf("%+v, %v", m, err)
		}
		topic.set(func(s *simTopic) { s.down = errors.New("away") })
		if _, err = Measure(t.Context(), topic, points, time.Now); err == nil {
			t.Error("no error without brokers")
		}
	})
}

func TestHeadroomIsShownInSeconds(t *testing.T) {
	for want, h := range map[string]Headroom{
		`{"condition":"ok","seconds":90,"retentionSeconds":3600,"ageSeconds":3510}`:                  {Condition: Bounded, Left: 90 * time.Second, Retention: hour, Age: 3510 * time.Second},
		`{"condition":"unlimited","seconds":null,"retentionSeconds":null,"ageSeconds":1}`:            {Condition: Unlimited, Age: time.Second},
		`{"condition":"lost","seconds":0,"retentionSeconds":null,"ageSeconds":0,"reason":"it went"}`: {Condition: Lost, Reason: "it went"},
	} {
		if b, err := json.Marshal(h); err != nil || string(b) != want {
			t.Errorf("%s, %v, want %s", b, err, want)
		}
	}
}
