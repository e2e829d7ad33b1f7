// Package simulate runs whole networks of cansync nodes inside one test, in
// virtual time, with everything that goes wrong in the field: partitions, slow and
// lossy links, crashes, failing CAN Services, lost events, wrong clocks. It is what
// cansync tests itself with, and is meant for programs that embed cansync too.
//
//	func TestMyClient(t *testing.T) {
//		o := simulate.Options{Seeds: 20, Peers: 4, Client: func(s *cantest.Service) can.Client { return mine.New(s) }}
//		simulate.Run(t, o, func(w *simulate.World) {
//			w.Chaos(40)
//			w.Settle()
//			w.Check()
//		})
//	}
//
// A [World] holds peers, each an in-memory CAN Service with a node beside it that
// keeps its records in a store which can lose power. The peers share one library.
// [World.Chaos] adds, edits and trashes assets while it breaks things; a test may
// do the same by hand. [World.Settle] ends all faults and waits, within a bound,
// until the peers agree; [World.Check] holds the outcome against what was put in:
// nothing lost, nothing ingested twice, nothing unexpected, nothing unverified, and
// the same library everywhere.
//
// Everything random is drawn from a seed. A run that fails prints its seed and the
// command that runs that seed alone. Goroutines and maps still take their own
// order, so that a seed usually, not always, reproduces a failure.
//
// A test that asks for faults which then never happen proves nothing: [Run] fails
// unless each kind of fault of [Options.Faults] had an effect at least once.
//
// Each world lives in a testing/synctest bubble: hours pass in milliseconds, and a
// goroutine that outlives its node fails the test. What a client factory makes must
// live in the bubble as well: no sockets, no goroutines shared between worlds.
package simulate
