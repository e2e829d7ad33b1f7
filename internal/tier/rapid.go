package tier

import (
	"flag"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

// Check is rapid.Check with as many cases as [Of] says, a tenth of a push's under the
// race detector. A number of cases given by the flag -rapid.checks goes before. The
// test must not be parallel.
func Check(t *testing.T, push, nightly int, prop func(*rapid.T)) {
	t.Helper()
	n := Of(push, nightly)
	if race && !Nightly() {
		n = min(n, max(1, push/10))
	}
	set(t, "rapid.checks", n)
	rapid.Check(t, prop)
}

// Steps has the state machines of the test take that many steps on average, unless
// the flag -rapid.steps says otherwise. The test must not be parallel.
func Steps(t *testing.T, steps int) {
	t.Helper()
	set(t, "rapid.steps", steps)
}

// set sets one of rapid's flags for the length of a test. They are its only knobs.
func set(t *testing.T, name string, v int) {
	t.Helper()
	f := flag.Lookup(name)
	if f.Value.String() != f.DefValue {
		return
	}
	if testing.Short() {
		v *= 5 // since rapid takes a fifth then
	}
	if err := flag.Set(name, strconv.Itoa(v)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := flag.Set(name, f.DefValue); err != nil {
			t.Error(err)
		}
	})
}
