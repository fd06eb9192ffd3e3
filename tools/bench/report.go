package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report is the JSON that --json writes.
type report struct {
	Machine  machineLine `json:"machine"`
	Settings string      `json:"settings"`
	Figures  []*figure   `json:"figures"`
	Failures []string    `json:"failures,omitempty"` // what could not be measured, and why
}

func (r *report) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

type machineLine struct {
	Cores   int       `json:"cores"`
	CPU     string    `json:"cpu"`
	Memory  string    `json:"memory"`
	Kernel  string    `json:"kernel"`
	Go      string    `json:"go"`
	Started time.Time `json:"started"`
}

func machine() machineLine {
	m := machineLine{Cores: runtime.NumCPU(), Go: runtime.Version(), Started: time.Now().UTC().Truncate(time.Second)}
	m.CPU = procField("/proc/cpuinfo", "model name")
	m.Memory = procField("/proc/meminfo", "MemTotal")
	if kernel, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(kernel))
	}
	return m
}

func (m machineLine) String() string {
	return fmt.Sprintf("machine: %d cores (%s), memory %s, Linux %s, %s, %s; broker, geth, drover and bench all run on it",
		m.Cores, m.CPU, m.Memory, m.Kernel, m.Go, m.Started.Format(time.RFC3339))
}

// load is the load average over the last minute.
func load() float64 {
	var average float64
	if content, err := os.ReadFile("/proc/loadavg"); err == nil {
		_, _ = fmt.Sscan(string(content), &average)
	}
	return average
}

// series is one quantity with a value for each run.
type series struct {
	Name   string    `json:"name"`
	Unit   string    `json:"unit,omitempty"`
	Values []float64 `json:"values"`
	Median float64   `json:"median"`
	Min    float64   `json:"min"`
	Max    float64   `json:"max"`
}

// target is a value that one of the series' medians must not pass.
type target struct {
	Series  string  `json:"series"`
	AtLeast bool    `json:"atLeast,omitempty"` // otherwise at most
	Limit   float64 `json:"limit"`
	Median  float64 `json:"median"`
	Met     bool    `json:"met"`
	Busy    bool    `json:"busy,omitempty"` // other programs had the cores: the verdict on a time proves nothing
	Note    string  `json:"note,omitempty"`
	size    bool    // of bytes alone: other programs change nothing
}

func (t target) String() string {
	relation, verdict := "at most", "MISSED"
	if t.AtLeast {
		relation = "at least"
	}
	if t.Met {
		verdict = "met"
	}
	if t.Note != "" {
		verdict += " (" + t.Note + ")"
	}
	if t.Busy {
		verdict += ", NOT CONCLUSIVE: other programs had the cores, measure again on an idle machine"
	}
	return fmt.Sprintf("target: %s %s %g: %s: %s", t.Series, relation, t.Limit, number(t.Median), verdict)
}

// figure is what one name of --only stands for.
type figure struct {
	Name    string    `json:"name"`
	Title   string    `json:"title"`
	Load    []float64 `json:"loadBefore"` // load average before each run
	Others  float64   `json:"others"`     // share of the processors that other programs had meanwhile
	Series  []*series `json:"series"`
	Targets []*target `json:"targets"`
	Notes   []string  `json:"notes,omitempty"`
	timed   bool      // the targets are times or ratios of them
}

func newFigure(name, title string, targets ...*target) *figure {
	return &figure{Name: name, Title: title, Targets: targets, timed: true}
}

// add adds the value of one more run.
func (f *figure) add(name, unit string, value float64) {
	for _, s := range f.Series {
		if s.Name == name {
			s.Values = append(s.Values, value)
			return
		}
	}
	f.Series = append(f.Series, &series{Name: name, Unit: unit, Values: []float64{value}})
}

func (f *figure) seconds(name string, d time.Duration) { f.add(name, "s", d.Seconds()) }

func (f *figure) note(format string, args ...any) {
	f.Notes = append(f.Notes, fmt.Sprintf(format, args...))
}

// finish works out medians and verdicts.
func (f *figure) finish() {
	for _, s := range f.Series {
		sorted := slices.Sorted(slices.Values(s.Values))
		n := len(sorted)
		s.Min, s.Max, s.Median = sorted[0], sorted[n-1], (sorted[(n-1)/2]+sorted[n/2])/2
		for _, t := range f.Targets {
			if t.Series == s.Name {
				t.Median = s.Median
				t.Busy = f.timed && !t.size && f.Others > othersLimit
				if t.Met = s.Median <= t.Limit; t.AtLeast {
					t.Met = s.Median >= t.Limit
				}
			}
		}
	}
}

func (f *figure) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s: %s\n", f.Name, f.Title)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "  what\tunit\tmedian\tmin\tmax\truns\n")
	for _, s := range f.Series {
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\t%s\n", s.Name, s.Unit, number(s.Median), number(s.Min), number(s.Max), numbers(s.Values))
	}
	fmt.Fprintf(t, "  load average before\t\t\t\t\t%s\n", numbers(f.Load))
	_ = t.Flush()
	fmt.Fprintf(w, "  other programs had %.0f %% of the processors meanwhile\n", 100*f.Others)
	for _, t := range f.Targets {
		fmt.Fprintf(w, "  %s\n", t)
	}
	for _, note := range f.Notes {
		fmt.Fprintf(w, "  note: %s\n", note)
	}
}

func number(v float64) string {
	if v >= 100 || v <= -100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

func numbers(values []float64) string {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = number(v)
	}
	return strings.Join(words, " ")
}

// procField is the first value of a "name : value" file.
func procField(path, name string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(content)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
