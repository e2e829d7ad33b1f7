// Package tier chooses the load of tests whose promise depends on it: what every
// push runs, a tenth of that under go test -short, and what a nightly run does.
package tier

import (
	"os"
	"testing"
)

// Env names the environment variable that chooses the load: "N" is the nightly
// one, anything else that of a push.
const Env = "CANSYNC_TIER"

// Nightly reports whether the nightly load was asked for.
func Nightly() bool { return os.Getenv(Env) == "N" }

// Of returns how much of something a test does: push normally, a tenth of it and at
// least one under -short, and nightly where [Nightly] says so. It may be called from
// tests only.
func Of(push, nightly int) int {
	switch {
	case Nightly():
		return nightly
	case testing.Short():
		return max(1, push/10)
	}
	return push
}
