package cansync

import (
	"context"
	"fmt"

	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/keyring"
	"github.com/cansync/cansync/internal/library"
)

// Mode says what this node does in a library. Records are exchanged in every mode,
// so that the node can tell what the library holds.
type Mode string

// The modes.
const (
	// Sync announces, fetches and serves. It is the default, and what "" stands for.
	Sync Mode = "sync"
	// ReceiveOnly announces nothing of this node's.
	ReceiveOnly Mode = Mode(library.ModeReceiveOnly)
	// AnnounceOnly fetches nothing and applies nothing to the CAN Service.
	AnnounceOnly Mode = Mode(library.ModeAnnounceOnly)
	// RecordsOnly neither announces nor fetches; see [Library.Fetch].
	RecordsOnly Mode = Mode(library.ModeRecordsOnly)
	// Paused does not even serve.
	Paused Mode = Mode(library.ModePaused)
)

// Mode returns what this node does in the library.
func (l *Library) Mode() Mode {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	if l.keys.Mode == "" {
		return Sync
	}
	return Mode(l.keys.Mode)
}

// SetMode changes what this node does in the library. It may be set while the
// library is being joined, and lasts over restarts. Errors match [ErrConfig] for a
// mode that there is not.
func (l *Library) SetMode(m Mode) error {
	if m == "" {
		m = Sync
	}
	if !m.valid() {
		return badMode(m)
	}
	return l.setMode(func(Mode, Mode) Mode { return m })
}

// Pause is SetMode(Paused).
func (l *Library) Pause() error { return l.SetMode(Paused) }

// Resume ends [Paused] and goes on in the mode that the library was paused in, over
// restarts too. In any other mode it changes nothing.
func (l *Library) Resume() error {
	return l.setMode(func(now, before Mode) Mode {
		if now == Paused {
			return before
		}
		return now
	})
}

// setMode sets the mode that follows from the present one and the one before a
// pause.
func (l *Library) setMode(next func(now, before Mode) Mode) error {
	done, err := l.n.use()
	if err != nil {
		return err
	}
	defer done()
	var kept string
	lib, err := l.keep(l.n.ctx, func(k *keyring.Library) {
		kept = next(Mode(k.Mode), Mode(k.Rested)).kept()
		switch {
		case Mode(kept) != Paused:
			k.Rested = ""
		case Mode(k.Mode) != Paused:
			k.Rested = k.Mode
		}
		k.Mode = kept
	})
	if err != nil || lib == nil {
		return err
	}
	lib.SetMode(library.Mode(kept))
	l.n.fetcher.Kick(l.id)
	l.n.announcer.Poke()
	return nil
}

// keep changes what the key ring holds of the library. It returns the machinery,
// nil while joining.
func (l *Library) keep(ctx context.Context, change func(*keyring.Library)) (*library.Library, error) {
	n := l.n
	select {
	case <-n.change:
		defer func() { n.change <- struct{}{} }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	n.mu.Lock()
	keys, lib, gone := l.keys, l.l, l.gone
	n.mu.Unlock()
	if gone {
		return nil, fmt.Errorf("%w: %s", ErrNoLibrary, l.id)
	}
	change(&keys)
	if err := n.ring.Save(keys); err != nil {
		return nil, err
	}
	n.mu.Lock()
	l.keys = keys
	n.mu.Unlock()
	return lib, nil
}

// View returns the filter by which this node's view is narrower than the library;
// the zero filter is none.
func (l *Library) View() Filter {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	f, err := filter.Decode(l.keys.View)
	if err != nil {
		return Filter{}
	}
	return filterOf(f)
}

// SetView narrows the library on this node to the assets that match the filter
// besides the library's own: nothing of the others is learned, fetched or listed
// here. It may be set while the library is being joined, lasts over restarts, and
// the zero filter ends it. What left the view stays in the CAN Service. Errors
// match [ErrFilter].
func (l *Library) SetView(ctx context.Context, f Filter) error {
	n := l.n
	done, err := n.use()
	if err != nil {
		return err
	}
	defer done()
	resolved, _, err := n.resolve(ctx, f)
	if err != nil {
		return err
	}
	enc, err := resolved.Encode()
	if err != nil {
		return err
	}
	lib, err := l.keep(ctx, func(k *keyring.Library) { k.View = enc })
	if err != nil || lib == nil {
		return err
	}
	if err := lib.SetOwnView(ctx, resolved); err != nil {
		return err
	}
	n.sessions.SetView(l.id, filter.View{resolved})
	return nil
}
