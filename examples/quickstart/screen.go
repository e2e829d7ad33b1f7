package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
	"unicode/utf8"
)

// screen shows text and, on a terminal, progress bars.
type screen struct {
	mu  sync.Mutex
	out io.Writer
	tty bool
}

func newScreen(out io.Writer, tty bool) *screen { return &screen{out: out, tty: tty} }

func (s *screen) printf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, format, args...)
}

// table shows rows below a header, in columns.
func (s *screen) table(rows [][]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(w, "  "+strings.Join(r, "\t"))
	}
	_ = w.Flush() // what can't be shown can't be helped
}

const (
	barEvery  = 100 * time.Millisecond
	lineEvery = time.Second
	barWidth  = 30
	maxBars   = 5
)

// gauge is how far something is, in bytes and bytes per second.
type gauge struct {
	label             string
	done, total, rate int64
}

// follow shows how far things are until the function it returns is called: on a
// terminal as bars, which are removed at the end, and elsewhere as a line a second
// for the first of them, if it moves.
func (s *screen) follow(look func() []gauge) (end func()) {
	every, show := lineEvery, s.lines()
	if s.tty {
		every, show = barEvery, s.bars()
	}
	stop, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				show(look())
			case <-stop:
				show(nil)
				return
			}
		}
	}()
	return func() {
		close(stop)
		<-gone
	}
}

// bars returns what draws gauges over those drawn before.
func (s *screen) bars() func([]gauge) {
	drawn := 0
	return func(gauges []gauge) {
		var b strings.Builder
		if drawn > 0 {
			fmt.Fprintf(&b, "\x1b[%dA\r\x1b[J", drawn)
		}
		gauges = gauges[:min(len(gauges), maxBars)]
		width := 0
		for _, g := range gauges {
			width = max(width, utf8.RuneCountInString(g.label))
		}
		for _, g := range gauges {
			b.WriteString(g.bar(width) + "\n")
		}
		drawn = len(gauges)
		s.printf("%s", b.String())
	}
}

// lines returns what says how far the first gauge is, when that has changed.
func (s *screen) lines() func([]gauge) {
	var last int64
	return func(gauges []gauge) {
		if len(gauges) == 0 || gauges[0].done <= last || gauges[0].done >= gauges[0].total {
			return
		}
		g := gauges[0]
		last = g.done
		s.printf("  %s %d%%, %s of %s, %s/s\n", g.label, g.percent(), bytesText(g.done), bytesText(g.total), bytesText(g.rate))
	}
}

// percent is between 0 and 100, whatever the numbers.
func (g gauge) percent() int64 {
	if g.total <= 0 {
		return 0
	}
	return int64(100 * (float64(min(max(g.done, 0), g.total)) / float64(g.total)))
}

func (g gauge) bar(width int) string {
	full := int(g.percent() * barWidth / 100)
	return fmt.Sprintf("  %-*s [%s%s] %3d%%  %s of %s  %s/s", width, g.label, strings.Repeat("#", full), strings.Repeat(".", barWidth-full),
		g.percent(), bytesText(min(max(g.done, 0), g.total)), bytesText(g.total), bytesText(g.rate))
}

func bytesText(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
}

func timeText(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}
