package retention

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/drover-io/drover/changelog"
	"github.com/drover-io/drover/snapshot/schedule"
)

const (
	hour = time.Hour
	day  = 24 * hour
)

func TestFailuresThatCanBeMissed(t *testing.T) {
	for _, c := range []struct {
		name        string
		f           Figures
		misses      int
		verdict     Verdict
		oldest      time.Duration
		recommended time.Duration
	}{
		// 7 d = 168 h; less 1 h of making and 1 h of restoring 166 h: 27 intervals of 6 h, one of which is needed.
		{"a week, every 6 h", Figures{Retention: 7 * day, Interval: 6 * hour, Making: hour}, 26, Enough, 7 * hour, day},
		{"just enough for none", Figures{Retention: 10 * hour, Interval: 8 * hour, Making: hour}, 0, Tight, 9 * hour, 2 * hour},
		{"a second less", Figures{Retention: 10*hour - time.Second, Interval: 8 * hour, Making: hour}, -1, Short, 9 * hour, hour},
		{"restoring takes long", Figures{Retention: 10 * hour, Interval: 4 * hour, Making: hour, Restore: 6 * hour}, -1, Short, 5 * hour, 0},
		{"making one takes longer than the interval", Figures{Retention: day, Interval: hour, Making: 2 * hour, Run: 5 * hour}, 3, Enough, 7 * hour, 0},
		{"for ever", Figures{Interval: day, Making: hour}, Unlimited, Enough, 25 * hour, 7 * day},
		{"by size", Figures{Retention: 7 * day, Bytes: 36e9, Rate: 1e6, Interval: hour, Making: hour}, 7, Enough, 2 * hour, 2 * hour},
		{"by size alone", Figures{Bytes: 36e9, Rate: 1e6, Interval: hour, Making: hour, Tolerate: 7}, 7, Enough, 2 * hour, hour},
		{"large enough", Figures{Retention: 10 * hour, Bytes: 36e12, Rate: 1e6, Interval: 8 * hour, Making: hour}, 0, Tight, 9 * hour, 2 * hour},
		{"no time at all", Figures{Retention: hour, Interval: hour}, 0, Tight, hour, 15 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := Compute(c.f)
			if err != nil {
				t.Fatal(err)
			}
			if p.Misses != c.misses || p.Verdict != c.verdict || p.Oldest != c.oldest || p.Recommended != c.recommended {
				t.Errorf("got %d misses, %s, oldest %v, recommended %v", p.Misses, p.Verdict, p.Oldest, p.Recommended)
			}
		})
	}
}

// boots plays a schedule through in steps: snapshot k has its position at k·Spacing and is usable Making later, but for this
// many after snapshot 0, which fail. It tells whether a replica that begins to restore the newest usable one, at any step
// until the next good one is usable, finds the frames that it reads after its restore.
func boots(p Plan, failures int, step time.Duration) bool {
	newest := time.Duration(0) // position of snapshot 0
	next := time.Duration(failures+1) * p.Spacing
	for begins := p.Making; begins <= next+p.Making; begins += step { // at the last step the next one is not there for a moment yet
		if reads := begins + p.Restore; newest < reads-p.Effective {
			return false
		}
	}
	return true
}

func TestTheNumbersAgreeWithASchedulePlayedThrough(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const step = 10 * time.Minute
	span := func(most time.Duration) time.Duration { return step * time.Duration(1+random.Int64N(int64(most/step))) }
	for range 5000 {
		p, err := Compute(Figures{
			Retention: span(10 * day), Interval: span(day), Making: span(6 * hour), Run: span(8 * hour), Restore: span(6 * hour), Tolerate: 1 + random.IntN(5),
		})
		if err != nil {
			t.Fatal(err)
		}
		if p.Misses >= 0 && !boots(p, p.Misses, step) || boots(p, p.Misses+1, step) {
			t.Fatalf("%d misses: %+v", p.Misses, p)
		}
		enough := p.Figures
		enough.Retention = p.NeedsRetention
		if q, err := Compute(enough); err != nil || q.Misses != p.Tolerate {
			t.Fatalf("with the retention it says are needed %d failures can be missed, not %d (%v): %+v", q.Misses, p.Tolerate, err, p)
		}
		if p.Recommended > 0 {
			enough = p.Figures
			enough.Interval = p.Recommended
			if q, err := Compute(enough); err != nil || q.Misses < p.Tolerate {
				t.Fatalf("with the interval it recommends %d failures can be missed, not %d (%v): %+v", q.Misses, p.Tolerate, err, p)
			}
		}
	}
}

func TestFiguresThatMakeNoSenseAreRefused(t *testing.T) {
	for _, f := range []Figures{
		{}, {Interval: -1}, {Interval: hour, Retention: -1}, {Interval: hour, Making: -1}, {Interval: hour, Bytes: 5}, {Interval: hour, Bytes: -5, Rate: 1},
		{Interval: hour, Tolerate: -1}, {Interval: hour, Tolerate: 1e6}, {Interval: 1 << 62}, {Interval: hour, Restore: 1 << 62},
	} {
		if _, err := Compute(f); !errors.Is(err, ErrFigures) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: %v", f, err)
		}
	}
	if p, err := Compute(Figures{Interval: maxSpan, Making: maxSpan, Restore: maxSpan, Run: maxSpan, Tolerate: 100, Retention: 1<<63 - 1}); err != nil || p.NeedsRetention < 0 {
		t.Errorf("the largest: %+v, %v", p, err)
	}
}

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// observed is a cluster with a retention of 2 d whose newest usable snapshot is 10 h old.
func observed() Observed {
	point := schedule.Point{ID: "20261121T020000Z-7", Taken: now.Add(-10 * hour), Usable: true}
	o := Observed{
		Measured: schedule.Measured{
			Headroom: schedule.Headroom{Condition: schedule.Bounded, Left: 38 * hour, Retention: 2 * day}, At: now, Newest: &point, All: 4,
			Setting: changelog.Retention{Time: 2 * day},
		},
		FirstAt: now.Add(-50 * hour),
	}
	for i, outcome := range []schedule.Outcome{schedule.Succeeded, schedule.Succeeded, schedule.Succeeded, schedule.Failed, schedule.Stopped} {
		r := schedule.Run{Started: now.Add(time.Duration(-22+5*i) * hour), Outcome: outcome, Seconds: 3600, Create: float64(600 * (i + 1)), Verify: 900, Prepare: 100}
		if outcome == schedule.Failed {
			r.Step, r.Error, r.Seconds = "create", "disk\nfull "+strings.Repeat("x", 500), 1e6
		}
		o.State.Runs = append(o.State.Runs, r)
	}
	o.State.Failures = 1
	return o
}

func TestFiguresOfAClusterComeFromItsGoodRuns(t *testing.T) {
	f := Measured(observed())
	if f.Retention != 2*day || f.Interval != 5*hour || f.Making != 45*time.Minute || f.Run != hour || f.BySize {
		t.Errorf("got %+v", f)
	}
	if n := f.Now; n.FirstAge != 50*hour || n.Left != 38*hour || n.Newest == "" || n.Failures != 1 || n.Lost != "" || n.Snapshots != 4 {
		t.Errorf("got %+v", f.Now)
	}
	// The last run began 2 h ago, so the next is due in 3 h; it takes 1 h. Restoring takes 45 min, so a run has to begin
	// within 36 h 15 min: 33 h 15 min after the next, which is 6 intervals.
	p, err := Compute(f)
	if err != nil {
		t.Fatal(err)
	}
	a := p.Ahead
	if !a.Next.Equal(now.Add(3*hour)) || !a.Deadline.Equal(now.Add(37*hour+15*time.Minute)) || !a.LastStart.Equal(now.Add(36*hour+15*time.Minute)) || a.Misses != 6 {
		t.Errorf("ahead: %+v", a)
	}
	o := observed()
	o.State.Runs = nil
	o.Points = []schedule.Point{{Taken: now.Add(-20 * hour)}, {Taken: now.Add(-16 * hour)}, {Taken: now.Add(-10 * hour)}}
	if f := Measured(o); f.Interval != 6*hour || f.Making != 0 {
		t.Errorf("without a scheduler: %+v", f)
	}
	o.Interval = hour
	if f := Measured(o); f.Interval != hour {
		t.Errorf("given: %v", f.Interval)
	}
}

func TestARetentionThatIsRaisedForNowIsNotPlannedWith(t *testing.T) {
	o := observed()
	o.Measured.Setting.Time = 4 * day
	o.State.Extension = &schedule.Extension{Original: schedule.Duration(2 * day)}
	p, err := Compute(Measured(o))
	if err != nil || p.Effective != 2*day || p.Now.Raised != 2*day {
		t.Errorf("got %+v, %v", p, err)
	}
	var b bytes.Buffer
	if err := Table(&b, p); err != nil || !strings.Contains(b.String(), "raised for now") {
		t.Errorf("%v: %s", err, &b)
	}
}

func TestTheTableSaysWhatToDo(t *testing.T) {
	lost := observed()
	lost.Measured.Condition, lost.Measured.Reason = schedule.Lost, "the topic begins behind it"
	none := Observed{Measured: schedule.Measured{Headroom: schedule.Headroom{Condition: schedule.None, Reason: "none of 0 snapshots is usable"}, At: now}, Interval: hour}
	unlimited := observed()
	unlimited.Measured.Condition, unlimited.Measured.Setting.Time = schedule.Unlimited, 0
	bySize := observed()
	bySize.Measured.BySize, bySize.Measured.Retention, bySize.Measured.Setting.Bytes = true, 5*hour, 1e9
	for _, c := range []struct {
		name string
		f    Figures
		want []string
	}{
		{"given, enough", Figures{Retention: 7 * day, Interval: 6 * hour, Making: hour}, []string{"7d", "6h", " 26 ", "an interval of up to 1d does", "enough"}},
		{"given, short", Figures{Retention: 10 * hour, Interval: 9 * hour, Making: hour}, []string{"none", "there are times", "shorten the interval to 2h, or raise the topic's retention (retention.ms) to 1d14h", "short"}},
		{"given, hopeless", Figures{Retention: hour, Interval: hour, Making: hour}, []string{"raise the topic's retention (retention.ms) to 6h", "short"}},
		{"observed", Measured(observed()), []string{"50m", "38h|1d14h", "2026-11-22 00:15:00Z|2026-11-23", "failed in create: disk full", "the longest of the last 3, the median is 35m"}},
		{"given, by size", Figures{Bytes: 36e8, Rate: 1e6, Interval: hour, Making: hour}, []string{"retention.bytes to 22 GB", "short"}},
		{"lost", Measured(lost), []string{"lost", "begins behind it", "drover snapshot create"}},
		{"none", Measured(none), []string{"none", "of 0 in the store", "lost", "not known: no run has succeeded yet"}},
		{"unlimited", Measured(unlimited), []string{"ever", "any number", "without end"}},
		{"by size", Measured(bySize), []string{"5h", "retention.bytes (1.0 GB)", "retention.bytes so that it lasts for 21h30m"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := Compute(c.f)
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			if err := Table(&b, p); err != nil {
				t.Fatal(err)
			}
			t.Logf("\n%s", &b)
			for _, want := range c.want {
				found := false
				for alternative := range strings.SplitSeq(want, "|") {
					found = found || strings.Contains(b.String(), alternative)
				}
				if !found {
					t.Errorf("it lacks %q", want)
				}
			}
			for line := range strings.Lines(b.String()) {
				if len(line) > 260 || strings.HasSuffix(line, " \n") {
					t.Errorf("a long line, or one that ends in blanks: %q", line)
				}
			}
			var back map[string]any
			if err := JSON(&b, p); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(b.Bytes()[bytes.IndexByte(b.Bytes(), '{'):], &back); err != nil || back["verdict"] != string(p.Verdict) {
				t.Errorf("JSON: %v, %v", back, err)
			}
			if misses, there := back["misses"]; !there || (misses == nil) != (p.Misses == Unlimited) {
				t.Errorf("misses in JSON: %v", misses)
			}
		})
	}
}

func TestSpansAreShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		7 * day: "7d", 36 * hour: "1d12h", 10 * hour: "10h", 6*hour + 30*time.Minute: "6h30m", 10 * time.Minute: "10m", 90 * time.Second: "1m30s",
		45 * time.Second: "45s", 1500 * time.Millisecond: "1.5s", 0: "0s", -hour: "-1h", 20 * day: "20d", 100 * time.Minute: "1h40m",
	} {
		if got := Span(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}
