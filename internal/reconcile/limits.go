package reconcile

import "errors"

const (
	// MaxMessage is the most bytes a message may have.
	MaxMessage = 64 << 10
	// ScanPage is how many ids a scan asks for at a time.
	ScanPage = 4096

	version      = 1
	helloCounts  = 32      // counts in a hello, the size among them
	chunkSymbols = 1024    // symbols per message: at most 50 bytes each
	maxRun       = 8192    // symbols sent without being asked again: 350 KB in flight
	pageIDs      = 2000    // ids per page of a listing and per request: 64,000 bytes
	pageWindow   = 4       // pages of a listing in flight
	maxSet       = 1 << 40 // ids in a set: arithmetic on counts cannot overflow
	farSmaller   = 16      // a side with a 16th of the other's ids or less gets them in bulk
	bulkMin      = 1024    // ids below which a bulk stream is not worth the repetition
)

var (
	// ErrVersion says that the peer speaks a version of the protocol unknown here.
	ErrVersion = errors.New("reconcile: unknown protocol version")
	// ErrProtocol says that the peer broke the protocol; drop it.
	ErrProtocol = errors.New("reconcile: peer broke the protocol")
	// ErrBudget says that the peer's listing is longer than allowed; back off from it.
	ErrBudget = errors.New("reconcile: peer exceeds the budget")
	// ErrScan says that the host supplied ids that nobody asked for or that are not in ascending order.
	ErrScan = errors.New("reconcile: scan not asked for or out of order")
	// ErrConfig says that a session cannot be made from the snapshot or limits given.
	ErrConfig = errors.New("reconcile: invalid configuration")
)

// Limits bounds what a peer can make a session cost. Zero fields take the defaults.
type Limits struct {
	// Symbols is the most coded symbols received, made or served in one attempt:
	// default and maximum 65,536, enough for 48,000 differences, 3 MiB a side.
	// An attempt may further take no more than 8 times the estimated differences and 256.
	Symbols int
	// Bytes is the most bytes of symbols received in one attempt, default 4 MiB.
	Bytes int
	// Work is the most operations (updates of a symbol, some 10 ns each) that
	// decoding takes in one attempt, default 32 million.
	Work int
	// Listed is the most ids accepted in a peer's listing, default 16,777,216. A
	// listing may further have no more than twice the ids the peer claimed, and 4,096.
	Listed int
}

func (l Limits) withDefaults() (Limits, error) {
	def := func(v *int, d, most int) bool {
		if *v == 0 {
			*v = d
		}
		return *v > 0 && *v <= most
	}
	ok := def(&l.Symbols, MaxPrefix, MaxPrefix)
	ok = def(&l.Bytes, 4<<20, 1<<30) && ok
	ok = def(&l.Work, 32<<20, 1<<30) && ok
	ok = def(&l.Listed, 1<<24, 1<<30) && ok
	if !ok || l.Symbols < MinPrefix {
		return l, ErrConfig
	}
	return l, nil
}
