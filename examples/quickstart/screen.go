package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
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
	barEvery = 100 * time.Millisecond
	barWidth = 30
)

// bar shows on a terminal how far done() is, until the function it returns is
// called, which removes it.
func (s *screen) bar(label string, total int64, done func() int64) (end func()) {
	if !s.tty || total <= 0 {
		return func() {}
	}
	stop, gone := make(chan struct{}), make(chan struct{})
	go func() {
		var begin time.Time // when the first bytes came
		defer close(gone)
		tick := time.NewTicker(barEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				now := done()
				if now == 0 || begin.IsZero() {
					begin = time.Now()
				}
				s.printf("\r\x1b[K%s", drawBar(label, now, total, time.Since(begin)))
			case <-stop:
				s.printf("\r\x1b[K")
				return
			}
		}
	}()
	return func() {
		close(stop)
		<-gone
	}
}

func drawBar(label string, done, total int64, took time.Duration) string {
	done = min(max(done, 0), total)
	full := int(done * barWidth / total)
	rate := float64(done) / max(took, barEvery).Seconds()
	return fmt.Sprintf("  %s [%s%s] %3d%%  %s of %s  %s/s", label, strings.Repeat("#", full), strings.Repeat(".", barWidth-full),
		done*100/total, bytesText(done), bytesText(total), bytesText(int64(rate)))
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
