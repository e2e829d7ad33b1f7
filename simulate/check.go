package simulate

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
)

// Settle ends all faults, starts the peers that are down, and waits until all
// peers whose clocks are to be trusted agree with one another and with what was put
// in; it returns how long that took. It fails the test when it takes longer than
// [Options.Bound].
func (w *World) Settle() time.Duration {
	w.t.Helper()
	w.calm()
	began := time.Now()
	var wrong []string
	if !w.until(w.o.Bound, func() bool { wrong = w.disagreements(); return len(wrong) == 0 }) {
		w.describe()
		require.FailNow(w.t, fmt.Sprintf("seed %d: no agreement within %s (faults: %s):\n%s", w.seed, w.o.Bound, w.counts, clip(wrong)))
	}
	return time.Since(began)
}

// Check fails the test unless
//
//   - every content that was added to the CAN Service of a member, matched the
//     library's filter and was never trashed is in the library and in the CAN
//     Service of every member that fetches: nothing is lost;
//   - no content came into a CAN Service twice through its node, but after it was
//     trashed there;
//   - the library and the services hold nothing that was not added, nothing that
//     never matched the filter, and no metadata that nobody wrote;
//   - every content that a node ingested has the SHA-256 of one that was added, by
//     the bytes that arrived;
//   - the library is the same on all members, and their services have the metadata
//     that it has.
//
// It is meant to be called when things are calm, such as after Settle. Peers whose
// clocks are not to be trusted are held to what they alone answer for.
func (w *World) Check() {
	w.t.Helper()
	wrong := append(w.disagreements(), w.faults()...)
	if len(wrong) > 0 {
		w.describe()
		require.FailNow(w.t, fmt.Sprintf("seed %d (faults: %s):\n%s", w.seed, w.counts, clip(wrong)))
	}
}

// clip joins the first few lines.
func clip(lines []string) string {
	const most = 20
	if len(lines) > most {
		lines = append(slices.Clone(lines[:most]), fmt.Sprintf("and %d more", len(lines)-most))
	}
	return strings.Join(lines, "\n")
}

// entry is what a library says of an asset, comparable.
type entry struct {
	size, timestamp int64
	metadata        string
}

func entryOf(size, timestamp int64, m can.Metadata) entry {
	return entry{size, timestamp, metadataOf(m)}
}

func metadataOf(m can.Metadata) string {
	if len(m.Tags) == 0 {
		m.Tags = nil
	}
	return fmt.Sprintf("%+q", []any{m})
}

// listing is a peer's library as the peer sees it.
type listing struct {
	p      *Peer
	mode   cansync.Mode
	view   cansync.Filter
	assets map[can.Digest]cansync.Asset
}

// disagreements says what keeps the peers from agreeing; what a peer is still at
// counts as one.
func (w *World) disagreements() (wrong []string) {
	say := func(p *Peer, format string, args ...any) {
		wrong = append(wrong, fmt.Sprintf("peer %d ", p.index)+fmt.Sprintf(format, args...))
	}
	// A look at counters is much cheaper than one at everything.
	for _, p := range w.peers {
		if p.node == nil || !p.joined || !p.sane() {
			continue
		}
		l := p.Library()
		if l == nil {
			continue // it left
		}
		s, err := l.Status(w.t.Context())
		switch {
		case err != nil:
			say(p, "has no status: %v", err)
		case s.State == cansync.StateJoining:
			say(p, "is still joining: %v", s.Refused)
		case s.State == cansync.StateHeld:
			say(p, "holds %d removals back", s.Held)
		case s.Pending > 0 && l.Mode() != cansync.AnnounceOnly && l.Mode() != cansync.RecordsOnly && l.Mode() != cansync.Paused:
			say(p, "is at %d assets still: %v", s.Pending, s.Causes)
		}
	}
	if len(wrong) > 0 {
		return wrong
	}
	all := w.listings(say)
	if len(wrong) > 0 || len(all) == 0 {
		return wrong
	}
	held := make(holdings)
	reference := w.compare(all, held, say)
	for _, l := range all {
		if l.mode == cansync.Sync || l.mode == cansync.ReceiveOnly {
			w.present(l, reference, held.of(l.p), say)
		}
	}
	return wrong
}

func (w *World) listings(say func(*Peer, string, ...any)) (all []listing) {
	for _, p := range w.peers {
		l := p.Library()
		if l == nil || !p.sane() {
			continue
		}
		one := listing{p: p, mode: l.Mode(), view: l.View(), assets: make(map[can.Digest]cansync.Asset)}
		for a, err := range l.Assets(w.t.Context()) {
			if err != nil {
				say(p, "can't list: %v", err)
				break
			}
			one.assets[a.Digest] = a
		}
		all = append(all, one)
	}
	return all
}

// compare holds the listings against each other and against what was put in. It
// returns the library as the peers see it that see all of it.
func (w *World) compare(all []listing, held holdings, say func(*Peer, string, ...any)) map[can.Digest]cansync.Asset {
	reference := make(map[can.Digest]cansync.Asset)
	for _, l := range all {
		for d, a := range l.assets {
			if have, ok := reference[d]; !ok {
				reference[d] = a
			} else if e, h := entryOf(a.Size, a.Timestamp, a.Metadata), entryOf(have.Size, have.Timestamp, have.Metadata); e != h {
				say(l.p, "has another version of %s: %v instead of %v", d, e, h)
			}
			known := w.assets[d]
			switch {
			case known == nil:
				say(l.p, "lists %s, which nobody added", d)
			case !known.in:
				say(l.p, "lists %s, which never matched the filter", d)
			case !known.texts[a.Description]:
				say(l.p, "lists %s with the description %q, which nobody wrote", d, a.Description)
			}
		}
	}
	for d := range w.assets {
		if w.announced(d, held) {
			if _, ok := reference[d]; !ok {
				say(w.peers[0], "and all others lost %s", d)
			}
		}
	}
	for _, l := range all {
		for d, a := range reference {
			_, ok := l.assets[d]
			if visible := l.view.IsZero() || l.view.Match(d, a.Metadata); visible != ok {
				say(l.p, "lists %s: %t, should be %t", d, ok, visible)
			}
		}
	}
	return reference
}

// holdings is what the services of peers hold, asked once.
type holdings map[*Peer]map[can.Digest][]can.Asset

func (h holdings) of(p *Peer) map[can.Digest][]can.Asset {
	if _, ok := h[p]; !ok {
		h[p] = p.held()
	}
	return h[p]
}

// announced reports whether a content must be in the library: it always matched the
// filter, nobody trashed it, and a member that announces, with a clock to be
// trusted, has it from its own user.
func (w *World) announced(d can.Digest, held holdings) bool {
	a := w.assets[d]
	if a.out || len(a.trashed) > 0 {
		return false
	}
	for p := range a.authors {
		l := p.Library()
		if l == nil || !p.sane() {
			continue
		}
		if m := l.Mode(); m != cansync.Sync && m != cansync.AnnounceOnly || !l.View().IsZero() {
			continue
		}
		if len(held.of(p)[d]) > 0 {
			return true
		}
	}
	return false
}

// present checks that a peer's service holds what its library lists, as the
// library has it.
func (w *World) present(l listing, reference map[can.Digest]cansync.Asset, held map[can.Digest][]can.Asset, say func(*Peer, string, ...any)) {
	exact := l.p.opts.Lacks&cantest.FeatureUpdate == 0 && len(l.p.opts.Echo) == 0
	for d := range l.assets {
		known := w.assets[d]
		if known == nil || len(known.trashed) > 0 {
			continue
		}
		copies := held[d]
		if len(copies) == 0 {
			say(l.p, "lacks the content %s", d)
			continue
		}
		if want, have := metadataOf(reference[d].Metadata), metadataOf(copies[0].Metadata); exact && len(copies) == 1 && want != have {
			say(l.p, "has the metadata %s for %s instead of %s", have, d, want)
		}
	}
}

// faults says what no peer may do, however things stand.
func (w *World) faults() (wrong []string) {
	say := func(p *Peer, format string, args ...any) {
		wrong = append(wrong, fmt.Sprintf("peer %d ", p.index)+fmt.Sprintf(format, args...))
	}
	for _, p := range w.peers {
		created := make(map[can.Digest]int)
		for _, r := range p.svc.Ledger() {
			known := w.assets[r.Digest]
			switch {
			case known == nil:
				say(p, "ingested %s, which is the content of nothing that was added", r.Digest)
			case !known.in:
				say(p, "ingested %s, which never matched the filter", r.Digest)
			}
			if r.Created && r.Handle != "" {
				created[r.Digest]++
			}
		}
		for d, n := range created {
			if known := w.assets[d]; known != nil && n > 1+w.trashes(known, p) {
				say(p, "ingested %s %d times", d, n)
			}
		}
		for d := range p.held() {
			if w.assets[d] == nil {
				say(p, "holds %s, which nobody added", d)
			}
		}
	}
	return wrong
}

// trashes is how often a content may have left the service of a peer: by hand
// there or, where the policy says so, anywhere.
func (w *World) trashes(a *asset, p *Peer) int {
	if w.o.Policy != cansync.TrashRemoved {
		return a.trashed[p]
	}
	n := 0
	for m := range maps.Values(a.trashed) {
		n += m
	}
	return n
}

// describe logs how the peers are, for a test that failed.
func (w *World) describe() {
	for _, p := range w.peers {
		if p.node == nil {
			w.t.Logf("peer %d (%s): down, %d assets in the service", p.index, p.id, p.svc.Len())
			continue
		}
		st := p.node.Status()
		w.t.Logf("peer %d (%s): rule %s, lacks %b, skew %s, %d assets in the service, %d peers, service: %v", p.index, p.id,
			p.opts.Rule, p.opts.Lacks, time.Duration(p.skew.Load()), p.svc.Len(), st.Peers, st.Service.Err)
		if l := p.Library(); l != nil {
			s, err := l.Status(w.t.Context())
			w.t.Logf("  %+v %v", s, err)
		}
	}
}
