package simulate

import (
	"crypto/sha256"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
)

// asset is what the world knows of a content that was added.
type asset struct {
	authors map[*Peer]bool // whose services it was added to
	texts   map[string]bool
	trashed map[*Peer]int // how often it was trashed by hand
	// Whether some version of its metadata matched the library's filter, and
	// whether some did not.
	in, out bool
}

func (w *World) asset(d can.Digest) *asset {
	a := w.assets[d]
	if a == nil {
		a = &asset{authors: make(map[*Peer]bool), texts: make(map[string]bool), trashed: make(map[*Peer]int)}
		w.assets[d] = a
		w.order = append(w.order, d)
	}
	return a
}

func (a *asset) version(w *World, d can.Digest, m can.Metadata) {
	a.texts[m.Description] = true
	if w.o.Filter.Match(d, m) {
		a.in = true
	} else {
		a.out = true
	}
}

// Add stores content in the peer's CAN Service, as its user would. The service must
// keep the metadata as given.
func (p *Peer) Add(content []byte, m can.Metadata) can.Digest {
	d := can.Digest(sha256.Sum256(content))
	a := p.w.asset(d)
	a.authors[p] = true
	a.version(p.w, d, m)
	p.svc.Add(content, m)
	return d
}

// Edit changes the metadata of a content in the peer's CAN Service, as its user
// would; it reports whether the service holds it.
func (p *Peer) Edit(d can.Digest, up can.Update) bool {
	held, ok := p.Find(d)
	if !ok || !p.svc.Edit(held.Handle, up) {
		return false
	}
	held, ok = p.svc.Get(held.Handle)
	require.True(p.w.t, ok)
	p.w.asset(d).version(p.w, d, held.Metadata)
	return true
}

// Trash soft-deletes a content in the peer's CAN Service, as its user would; it
// reports whether the service held it.
func (p *Peer) Trash(d can.Digest) bool {
	held, ok := p.Find(d)
	if !ok || !p.svc.TrashNow(held.Handle) {
		return false
	}
	p.w.asset(d).trashed[p]++
	return true
}

// Find returns the live asset of the peer's CAN Service with the content.
func (p *Peer) Find(d can.Digest) (can.Asset, bool) {
	held := p.held()[d]
	if len(held) == 0 {
		return can.Asset{}, false
	}
	return held[0], true
}

// held returns what the peer's CAN Service holds, whatever its faults.
func (p *Peer) held() map[can.Digest][]can.Asset { return p.svc.Holdings() }
