package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// env is what every budget works with: the options, a place for data, the
// processes that were started, and the report.
type env struct {
	options
	w       io.Writer
	root    string // of all temporary data
	exe     string
	budget  string
	dirs    int
	spawned int      // processes, to tell their profiles apart
	kids    []*child // of the budget under way
	lines   int
	short   int
}

func newEnv(o options, w io.Writer) (*env, error) {
	if !measurable {
		return nil, errors.New("processes can be measured on Linux only")
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if o.profile != "" {
		if o.profile, err = filepath.Abs(o.profile); err != nil {
			return nil, err
		}
		if err := os.MkdirAll(o.profile, 0o700); err != nil {
			return nil, err
		}
	}
	root, err := os.MkdirTemp(o.dir, "cansync-bench-")
	if err != nil {
		return nil, err
	}
	return &env{options: o, w: w, root: root, exe: exe}, nil
}

func (e *env) close() error { return os.RemoveAll(e.root) }

// scoped runs a budget, or a part of one, and ends the processes that it left
// running.
func (e *env) scoped(ctx context.Context, fn func(context.Context, *env) error) (err error) {
	before := len(e.kids)
	defer func() {
		for _, c := range slices.Backward(e.kids[before:]) {
			err = errors.Join(err, c.close())
		}
		e.kids = e.kids[:before]
	}()
	return fn(ctx, e)
}

// temp returns a new directory for data.
func (e *env) temp(what string) (string, error) {
	e.dirs++
	dir := filepath.Join(e.root, fmt.Sprintf("%s-%d", what, e.dirs))
	return dir, os.Mkdir(dir, 0o700)
}

// size is the full size of a measurement, or a tenth of it.
func (e *env) size(n int) int {
	if e.quick {
		return n / 10
	}
	return n
}

// header says where the figures come from.
func (e *env) header() {
	fmt.Fprintf(e.w, "# %s %s/%s, %d cores (%s), load %s, data in %s (%s)\n", runtime.Version(), runtime.GOOS, runtime.GOARCH,
		runtime.NumCPU(), cpuModel(), loadAverage(), e.options.dir, fileSystem(e.options.dir))
	if e.quick {
		fmt.Fprintln(e.w, "# quick: a tenth of the size; some budgets are only meant for the full one")
	}
}

func (e *env) footer() {
	fmt.Fprintf(e.w, "# %d of %d hold, load %s\n", e.lines-e.short, e.lines, loadAverage())
}

// result is one line of the report.
type result struct {
	name     string  // what was measured
	figure   string  // what came out
	baseline string  // measured in the same run; may be empty
	ratio    float64 // figure to baseline; 0 when there is none
	limit    string  // what the budget asks for
	holds    bool
}

// report prints a line of the budget under way.
func (e *env) report(r result) {
	parts := []string{fmt.Sprintf("%-4s %s: %s", e.budget, r.name, r.figure)}
	if r.baseline != "" {
		parts = append(parts, "baseline "+r.baseline)
	}
	if r.ratio != 0 {
		parts = append(parts, fmt.Sprintf("ratio %.2f", r.ratio))
	}
	verdict := "holds"
	if !r.holds {
		verdict = "falls short"
		e.short++
	}
	e.lines++
	parts = append(parts, "budget "+r.limit, verdict)
	fmt.Fprintln(e.w, strings.Join(parts, " | "))
}

// note prints something beside the figures.
func (e *env) note(format string, args ...any) {
	fmt.Fprintf(e.w, "%-4s   %s\n", e.budget, fmt.Sprintf(format, args...))
}

// progress tells on standard error what is under way, since some of it takes long.
func (e *env) progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s %-4s %s\n", time.Now().Format("15:04:05"), e.budget, fmt.Sprintf(format, args...))
}
