package session

import (
	"context"
	"time"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/transport"
)

// Timing of the search for peers. A round is short while the node is alone and
// long when it is not.
const (
	advertiseFor  = 2 * time.Hour
	advertiseWait = time.Minute
	findWait      = 30 * time.Second
	searchAlone   = 3 * time.Second
	searchCalm    = 10 * time.Minute
	maxFind       = 32 // peers taken from one search
)

// discover advertises the node under the keys of its libraries and looks for
// others there, until the manager is closed.
func (m *Manager) discover(d transport.Discovery) {
	told := make(map[[32]byte]time.Time)
	alone := searchAlone
	for {
		changed := m.watch()
		lonely := m.search(d, told)
		wait := searchCalm
		if lonely {
			wait, alone = alone, min(2*alone, searchCalm)
		} else {
			alone = searchAlone
		}
		timer := time.NewTimer(jitter(wait))
		for waiting := true; waiting; {
			select {
			case <-timer.C:
				waiting = false
			case <-changed:
				// A new library or ticket is looked for at once; a session that came
				// or went is not worth a search of its own.
				changed = m.watch()
				waiting = !m.unsought(told)
			case <-m.ctx.Done():
				timer.Stop()
				return
			}
		}
		timer.Stop()
	}
}

func (m *Manager) watch() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// quests returns the keys to meet at, by library, and those of tickets.
func (m *Manager) quests() (libs map[*Library][][32]byte, joins [][32]byte) {
	now := m.cfg.Now()
	libs = make(map[*Library][][32]byte)
	for _, lib := range m.libraries() {
		libs[lib] = lib.Meet(now)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, j := range m.joins {
		window := capability.RendezvousWindow(j.Ticket.Secret, 0, now)
		joins = append(joins, window[:]...)
	}
	return libs, joins
}

// unsought reports whether there are keys that were never advertised or asked for.
func (m *Manager) unsought(told map[[32]byte]time.Time) bool {
	libs, joins := m.quests()
	for _, keys := range libs {
		joins = append(joins, keys...)
	}
	for _, k := range joins {
		if _, ok := told[k]; !ok {
			return true
		}
	}
	return false
}

// search makes one round and reports whether some library or ticket has nobody.
func (m *Manager) search(d transport.Discovery, told map[[32]byte]time.Time) (lonely bool) {
	libs, joins := m.quests()
	now := time.Now()
	for k, at := range told {
		if now.Sub(at) > 3*24*time.Hour {
			delete(told, k)
		}
	}
	for lib, keys := range libs {
		alone := len(m.places(lib.ID)) == 0
		lonely = lonely || alone
		for _, k := range keys {
			if at, ok := told[k]; !ok || now.Sub(at) > advertiseFor/2 {
				ctx, cancel := context.WithTimeout(m.ctx, advertiseWait)
				err := d.Advertise(ctx, k, advertiseFor)
				cancel()
				if err == nil {
					told[k] = now
				} else {
					told[k] = time.Time{}
					lonely = true
					m.log.Debug("not advertised", "error", err)
				}
			}
			m.lookFor(d, k)
		}
	}
	for _, k := range joins {
		lonely = true
		told[k] = now
		m.lookFor(d, k)
	}
	return lonely
}

func (m *Manager) lookFor(d transport.Discovery, key [32]byte) {
	ctx, cancel := context.WithTimeout(m.ctx, findWait)
	defer cancel()
	n := 0
	for p, err := range d.Find(ctx, key) {
		if err != nil || n == maxFind {
			break
		}
		n++
		m.meet(p)
	}
}
