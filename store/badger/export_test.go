package badger

import "time"

// Fast returns options of a store that does not sync.
func Fast() Options { return Options{fast: true} }

// WithDisk returns options of a store that asks free for the disk's free space,
// every tick.
func WithDisk(o Options, free func(string) (uint64, error), tick time.Duration) Options {
	o.free, o.tick = free, tick
	return o
}

// ShouldFlatten says whether the store would compact itself at the given time.
func (s *Store) ShouldFlatten(now time.Time) bool { return s.shouldFlatten(now) }

// Flatten compacts the store now.
func (s *Store) Flatten() { s.flatten() }
