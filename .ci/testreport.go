//go:build ignore

// Command testreport reads the events of "go test -json" and says what matters: a
// line for each package, the output of what failed, and what was skipped. A test
// that was meant to run and did not is a failure, so skipping counts as failing.
//
//	go test -json ./... | go run .ci/testreport.go <file>
//
// It appends "<passed> <failed>" to the file, and exits with status 1 when
// anything failed, was skipped, or when nothing ran at all.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

type event struct {
	Action      string
	Package     string
	ImportPath  string // of build events
	Test        string
	Output      string
	Elapsed     float64
	FailedBuild string
}

// keep bounds what is remembered of one test's output, in bytes.
const keep = 256 << 10

type report struct {
	passed, failed int
	output         map[string]*strings.Builder // by package and test, or by build
	tests          map[string]int              // that ended, by package
	bad            map[string]int              // that failed, by package
	running        map[string]bool
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: testreport <file>")
		os.Exit(2)
	}
	r := report{
		output: map[string]*strings.Builder{}, tests: map[string]int{}, bad: map[string]int{}, running: map[string]bool{},
	}
	if err := r.read(os.Stdin); err != nil {
		fmt.Println("testreport:", err)
		r.failed++
	}
	if r.passed+r.failed == 0 {
		fmt.Println("testreport: no test ran")
		r.failed++
	}
	f, err := os.OpenFile(os.Args[1], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = fmt.Fprintln(f, r.passed, r.failed)
		if e := f.Close(); err == nil {
			err = e
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		os.Exit(1)
	}
	fmt.Printf("%d tests passed, %d failed\n", r.passed, r.failed)
	if r.failed > 0 {
		os.Exit(1)
	}
}

func (r *report) read(in io.Reader) error {
	br := bufio.NewReaderSize(in, 1<<20)
	for {
		line, err := br.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) == nil && e.Action != "" {
				r.take(e)
			} else {
				fmt.Printf("%s", line) // the go command speaking for itself
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *report) take(e event) {
	key := e.Package + "\x00" + e.Test
	switch e.Action {
	case "build-output":
		r.add("build\x00"+e.ImportPath, e.Output)
	case "build-fail":
		r.show("build\x00"+e.ImportPath, "build of "+e.ImportPath)
	case "run":
		r.running[key] = true
	case "output":
		r.add(key, e.Output)
	case "pass", "fail", "skip":
		delete(r.running, key)
		if e.Test == "" {
			r.end(e)
			return
		}
		r.tests[e.Package]++
		switch e.Action {
		case "pass":
			r.passed++
		case "fail":
			r.fail(e.Package)
			r.show(key, "FAIL "+e.Package+" "+e.Test)
		case "skip":
			r.fail(e.Package)
			r.show(key, "SKIPPED, which counts as a failure: "+e.Package+" "+e.Test)
		}
		delete(r.output, key)
	}
}

// end takes the event that ends a package.
func (r *report) end(e event) {
	key := e.Package + "\x00"
	n := r.tests[e.Package]
	switch {
	case e.Action == "fail":
		// A test that was running when the process died has no event of its own.
		for k := range r.running {
			if strings.HasPrefix(k, key) {
				r.fail(e.Package)
				r.show(k, "DID NOT END "+strings.Replace(k, "\x00", " ", 1))
				delete(r.running, k)
			}
		}
		if r.bad[e.Package] == 0 {
			r.fail(e.Package)
		}
		r.show(key, "output of "+e.Package)
		fmt.Printf("FAIL  %-60s %5d tests %7.1fs\n", e.Package, n, e.Elapsed)
	case n > 0:
		fmt.Printf("ok    %-60s %5d tests %7.1fs\n", e.Package, n, e.Elapsed)
	}
	delete(r.output, key)
}

func (r *report) fail(pkg string) {
	r.failed++
	r.bad[pkg]++
}

func (r *report) add(key, s string) {
	b := r.output[key]
	if b == nil {
		b = new(strings.Builder)
		r.output[key] = b
	}
	if b.Len() < keep {
		b.WriteString(s)
	}
}

func (r *report) show(key, title string) {
	fmt.Printf("--- %s\n", title)
	if b := r.output[key]; b != nil {
		fmt.Printf("%s--- end\n", b.String())
	}
}
