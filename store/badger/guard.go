package badger

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/cansync/cansync/store"
)

const (
	// probeEvery and probeBytes bound how old the guard's knowledge may be, in
	// time and in bytes written.
	probeEvery = 200 * time.Millisecond
	probeBytes = 4 << 20
	// needed is what badger may write to open or to close: its memtables, their
	// logs, and a table being rewritten.
	needed      = 4 * memTableSize
	maxBallast  = 64 << 20
	ballastName = "ballast"
)

// guard keeps badger from writing to a disk that is nearly full.
type guard struct {
	dir     string
	reserve uint64
	ballast uint64 // size of a file that is given up when space is low
	free    func(string) (uint64, error)
	log     *slog.Logger

	mu      sync.Mutex
	at      time.Time // of the last look
	written int       // bytes allowed since
	low     bool
	fault   error // of the last look
	held    bool  // the ballast is on disk
	sure    map[string]bool
}

func newGuard(dir string, o Options) *guard {
	return &guard{
		dir: dir, reserve: o.Reserve, ballast: min(maxBallast, o.Reserve/4),
		free: o.free, log: o.Logger, sure: make(map[string]bool),
	}
}

func (g *guard) path() string { return filepath.Join(g.dir, ballastName) }

// open says whether badger may be opened.
func (g *guard) open() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, err := os.Stat(g.path())
	g.held = err == nil
	return g.room("open")
}

// close says whether badger may be closed, which writes what is in memory.
func (g *guard) close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.room("close")
}

// room gives up the ballast where that is needed. Callers hold mu.
func (g *guard) room(what string) error {
	free, err := g.free(g.dir)
	if err != nil {
		return mapError(err)
	}
	need := min(g.reserve, needed)
	if free < need && g.held {
		g.drop(free)
		if free, err = g.free(g.dir); err != nil {
			return mapError(err)
		}
	}
	if free < need {
		return fmt.Errorf("%w to %s: %d MiB free, %d MiB needed", store.ErrNoSpace, what, free>>20, need>>20)
	}
	return nil
}

// allow says whether n more bytes may be written.
func (g *guard) allow(n int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	g.written += n
	if g.low || g.fault != nil || g.written >= probeBytes || now.Sub(g.at) >= probeEvery {
		g.look(now)
	}
	if g.fault != nil {
		return g.fault
	}
	if g.low {
		return fmt.Errorf("%w: less than %d MiB", store.ErrNoSpace, g.reserve>>20)
	}
	return nil
}

// probe looks at the disk.
func (g *guard) probe(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.look(now)
}

// look is probe for callers that hold mu.
func (g *guard) look(now time.Time) {
	g.at, g.written = now, 0
	free, err := g.free(g.dir)
	if g.fault = mapError(err); err != nil {
		return
	}
	low := free < g.reserve
	if low != g.low {
		g.low = low
		if low {
			g.log.Warn("store: disk nearly full, refusing writes", "free", free, "reserve", g.reserve)
		} else {
			g.log.Info("store: disk has space again", "free", free, "reserve", g.reserve)
		}
	}
	switch {
	case g.held && free < g.reserve/2:
		g.drop(free)
	case !g.held && free >= g.reserve+2*g.ballast:
		g.fill()
	}
	if !low {
		g.secure()
	}
}

func (g *guard) drop(free uint64) {
	if err := os.Remove(g.path()); err != nil && !os.IsNotExist(err) {
		g.log.Error("store: cannot give up ballast", "err", err)
		return
	}
	g.held = false
	g.log.Warn("store: gave up ballast", "free", free, "ballast", g.ballast)
}

func (g *guard) fill() {
	f, err := os.OpenFile(g.path(), os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = allocate(f, int64(g.ballast), false)
		if e := f.Close(); err == nil {
			err = e
		}
	}
	if err != nil {
		_ = os.Remove(g.path())
		g.log.Debug("store: no ballast", "err", err)
		return
	}
	g.held = true
}

// secure gives blocks to the logs of memtables, which badger makes as holes and
// fills through a memory map: once they have blocks, writing them cannot fail.
func (g *guard) secure() {
	entries, err := os.ReadDir(g.dir)
	if err != nil {
		return
	}
	seen := make(map[string]bool)
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".mem") {
			continue
		}
		seen[e.Name()] = true
		if g.sure[e.Name()] {
			continue
		}
		f, err := os.OpenFile(filepath.Join(g.dir, e.Name()), os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if info, err := f.Stat(); err == nil {
			_ = allocate(f, info.Size(), true)
		}
		_ = f.Close()
	}
	g.sure = seen
}
