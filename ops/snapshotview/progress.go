package snapshotview

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/mattn/go-isatty"

	"github.com/drover-io/drover/snapshot"
)

// lineEvery is how often progress is written where lines stay, as in a log file.
const lineEvery = 10 * time.Second

// Bar shows progress: one line that is written over on a terminal, a line now and then elsewhere.
type Bar struct {
	out      io.Writer
	terminal bool
	drawn    int // width of what stands on the terminal's line

	last     time.Time // when the last line was written
	phase    string    // of it
	finished bool      // it said that the phase is done
}

// NewBar writes to a file, usually standard error.
func NewBar(out *os.File) *Bar {
	return &Bar{out: out, terminal: isatty.IsTerminal(out.Fd())}
}

// Show is a snapshot package's Progress function.
func (b *Bar) Show(p snapshot.Progress) {
	if b.terminal {
		line := Describe(p)
		fmt.Fprintf(b.out, "\r%s%s", line, strings.Repeat(" ", max(0, b.drawn-len(line))))
		b.drawn = len(line)
		return
	}
	if p.Done == 0 {
		return
	}
	if p.Phase != b.phase {
		b.last, b.phase, b.finished = time.Time{}, p.Phase, false
	}
	finished := p.Total > 0 && p.Done >= p.Total
	if b.finished || !finished && time.Since(b.last) < lineEvery {
		return
	}
	b.last, b.finished = time.Now(), finished
	fmt.Fprintln(b.out, Describe(p))
}

// End leaves the terminal's line.
func (b *Bar) End() {
	if b.terminal && b.drawn > 0 {
		fmt.Fprintln(b.out)
	}
	b.drawn = 0
}

// Describe is one line: what is done, how far, how fast, how long it will take.
func Describe(p snapshot.Progress) string {
	const width = 24
	count := size
	if strings.Contains(p.Phase, "state") { // trie nodes, not bytes
		count = func(n int64) string { return fmt.Sprintf("%d nodes", n) }
	}
	var s strings.Builder
	fmt.Fprintf(&s, "%-18s", p.Phase)
	if p.Total > 0 {
		part := min(float64(p.Done)/float64(p.Total), 1)
		full := int(part * width)
		fmt.Fprintf(&s, " [%s%s] %3.0f %%  %s of %s", strings.Repeat("=", full), strings.Repeat(" ", width-full), 100*part, count(p.Done), count(p.Total))
	} else {
		fmt.Fprintf(&s, " %s", count(p.Done))
	}
	if p.Rate > 0 {
		fmt.Fprintf(&s, "  %s/s", count(int64(p.Rate)))
	}
	if p.Left > 0 {
		fmt.Fprintf(&s, "  %s left", p.Left.Round(time.Second))
	}
	return s.String()
}
