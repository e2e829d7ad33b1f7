package announce

import (
	"context"
	"errors"
	"slices"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
)

// maxNotes is how many notes the desk takes at once, and how many may wait.
const maxNotes = 256

type noteKind uint8

const (
	// noteFresh: the content behind a new handle is known.
	noteFresh noteKind = iota + 1
	// noteOffer: a known asset is to be offered to libraries.
	noteOffer
	// noteEdit: the user changed the metadata.
	noteEdit
	// noteBack: the asset was trashed, missing or unreadable and is there again.
	noteBack
	// noteCaught: everything was offered to a library.
	noteCaught
)

// note is something for the desk to decide about.
type note struct {
	kind  noteKind
	asset can.Asset
	item  inventory.Item
	only  []*voice // the libraries concerned, nil for all
	pass  *pass

	keep  bool // not every library could be told: it is still news
	known []inventory.Item
	read  bool // whether known was read
}

// work is the desk.
func (a *Announcer) work() {
	batch := make([]*note, 0, maxNotes)
	for {
		select {
		case <-a.ctx.Done():
			return
		case fn := <-a.desk:
			fn()
			continue
		case n := <-a.notes:
			batch = append(batch[:0], &n)
		}
	more:
		for len(batch) < maxNotes {
			select {
			case n := <-a.notes:
				batch = append(batch, &n)
			default:
				break more
			}
		}
		for rest := batch; len(rest) > 0; {
			rest = a.process(rest)
		}
	}
}

// process deals with the notes up to the second one about the same content, whose
// decision needs what came of the first, and returns the others.
func (a *Announcer) process(batch []*note) (rest []*note) {
	digests := make(map[can.Digest]bool, len(batch))
	for i, n := range batch {
		if n.kind == noteCaught {
			if i == 0 {
				if err := a.catch(n.only[0], n.pass); err != nil && a.ctx.Err() == nil {
					a.log.Warn("store fails, everything is offered again", "library", n.only[0].short(), "error", err)
				}
				return batch[1:]
			}
			batch, rest = batch[:i], batch[i:]
			break
		}
		if digests[n.item.Digest] {
			batch, rest = batch[:i], batch[i:]
			break
		}
		digests[n.item.Digest] = true
	}
	vs, done := a.all()
	defer done()
	filters := make([]filter.View, len(vs))
	for i, v := range vs {
		filters[i] = v.lib.Filter()
	}
	defer func() {
		for _, n := range batch {
			if n.kind == noteFresh || n.kind == noteBack {
				a.free(n.asset.Handle)
				a.rest.drop(n.asset.Handle)
			}
		}
		// A pass of the next filter may have left out what was here. After this, it
		// meets what is known.
		for i, v := range vs {
			if v.active() && !sameView(v.lib.Filter(), filters[i]) {
				a.patiently("store state of library", func() error { return v.miss(a.ctx, a.inv) })
			}
		}
	}()
	if !a.insert(batch) {
		return rest
	}
	for i, v := range vs {
		a.speak(v, filters[i], batch)
	}
	// What is agreed is no news any more, also to libraries that were not told.
	a.patiently("store state of libraries", func() error { return a.strike(vs) })
	a.agree(batch)
	return rest
}

// insert brings new handles into the inventory. A handle that the node's own
// ingest put there meanwhile stays as it is.
func (a *Announcer) insert(batch []*note) bool {
	var fresh []*note
	var items []inventory.Item
	for _, n := range batch {
		if n.kind == noteFresh {
			fresh = append(fresh, n)
		}
	}
	if len(fresh) == 0 {
		return true
	}
	return a.patiently("store assets", func() error {
		items = items[:0]
		for _, n := range fresh {
			if _, ours, err := a.inv.Intent(a.ctx, n.item.Digest); err != nil {
				return err
			} else if ours {
				n.item.Flags |= inventory.Ingested
			}
			items = append(items, n.item)
		}
		known, err := a.inv.Insert(a.ctx, items...)
		if err != nil {
			return err
		}
		for _, k := range known {
			i := slices.IndexFunc(fresh, func(n *note) bool { return n.item.Handle == k.Handle })
			fresh[i].item = k
			fresh[i].kind = noteOffer
			a.free(k.Handle)
			a.rest.drop(k.Handle)
		}
		return nil
	})
}

// agree makes what was decided about the baseline of later looks.
func (a *Announcer) agree(batch []*note) {
	byHandle := make(map[string]*note, len(batch))
	var handles []string
	for _, n := range batch {
		if n.keep || n.kind == noteOffer && n.item.Baseline != (inventory.Fingerprint{}) {
			continue
		}
		byHandle[n.item.Handle] = n
		handles = append(handles, n.item.Handle)
	}
	if len(handles) == 0 {
		return
	}
	a.patiently("store assets", func() error {
		return a.inv.Modify(a.ctx, handles, func(it *inventory.Item) bool {
			n := byHandle[it.Handle]
			fp := inventory.FingerprintOf(n.asset.Metadata)
			if n.kind == noteBack {
				it.Flags &^= inventory.Trashed | inventory.TrashedByUs | inventory.Missing | inventory.Bad
			} else if it.Baseline != n.item.Baseline {
				return false // the node brought something newer into the service
			}
			it.Baseline = fp
			return true
		})
	})
}

// items returns what is known of the note's content.
func (a *Announcer) items(n *note) ([]inventory.Item, error) {
	if n.read {
		return n.known, nil
	}
	items, err := a.inv.ByDigest(a.ctx, n.item.Digest)
	if err != nil {
		return nil, err
	}
	n.known, n.read = items, true
	return items, nil
}

// speech is what is to be said in one library.
type speech struct {
	drafts  []record.Draft
	notes   []*note
	kinds   []EventKind
	settled []replica.Settled
}

// speak decides about the notes in one library and says what is to be said.
func (a *Announcer) speak(v *voice, f filter.View, batch []*note) {
	var s speech
	active := v.active()
	v.decided(f)
	missed := false
	for _, n := range batch {
		if n.only != nil && !slices.Contains(n.only, v) {
			continue
		}
		entry, err := v.lib.Entry(a.ctx, n.item.Digest)
		if err != nil {
			n.keep = true
			a.log.Warn("what the library says can't be read", "library", v.short(), "asset", n.item.Digest, "error", err)
			continue
		}
		body := record.FromAsset(n.asset, n.item.Root, uint64(n.item.Size))
		match := f.Match(n.item.Digest, body.Metadata())
		if !active {
			if n.kind == noteEdit && entry.Known() {
				n.keep = true
				v.wait()
			} else if match || entry.Known() {
				missed = true
			}
			continue
		}
		a.plan(v, n, situation{kind: n.kind, entry: entry, body: body, match: match}, &s)
	}
	if missed {
		a.patiently("store state of library", func() error { return v.miss(a.ctx, a.inv) })
	}
	a.say(v, &s)
}

// plan adds what the note gives rise to.
func (a *Announcer) plan(v *voice, n *note, st situation, s *speech) {
	if !st.entry.Known() && !st.match {
		return // the common case of an asset that is none of the library's business
	}
	d := n.item.Digest
	items, err := a.items(n)
	if err == nil {
		st.local, err = v.lib.Local(a.ctx, d)
	}
	if err != nil {
		n.keep = true
		a.log.Warn("store fails", "op", "read asset", "error", err)
		return
	}
	st.may = v.may()
	st.speaks = speaks(n.item.Handle, items, st.entry)
	st.later = !n.item.Is(inventory.Ingested) && (!v.pending() || newer(n.asset, st.entry))
	if n.kind == noteBack { // only what was taken out of the trash is the user's wish
		st.later = n.item.Is(inventory.Trashed)
	}
	if st.entry.Known() && !st.entry.Tombstone() {
		st.body.Timestamp = st.entry.Body.Timestamp
	}
	verdict := decide(st)
	if verdict == announce || verdict == readd {
		if !v.lets(d, st.body.Metadata()) {
			return
		}
	}
	kind, what := record.Edit, Edited
	switch verdict {
	case nothing:
		return
	case agree:
		s.settled = append(s.settled, replica.Settled{Asset: d, Local: replica.Local{Applied: st.entry.ID(), State: replica.Have}})
		return
	case apply:
		// Not being the live record, what was applied keeps the asset queued.
		s.settled = append(s.settled, replica.Settled{Asset: d, Local: replica.Local{State: replica.Have}})
		return
	case announce:
		kind, what = record.Announce, Announced
	case readd:
		what = Announced
	case edit:
	}
	draft, err := v.lib.Announcement(kind, d, st.body)
	if err != nil {
		if !v.reportOnce(d, inventory.FingerprintOf(n.asset.Metadata)) {
			return
		}
		a.log.Warn("asset can't be announced", "library", v.short(), "asset", d, "error", err)
		a.cfg.OnEvent(Event{Library: v.id, Asset: d, Kind: Failed, Err: err})
		return
	}
	s.drafts, s.notes, s.kinds = append(s.drafts, draft), append(s.notes, n), append(s.kinds, what)
}

// sayBatch is how many drafts are published at once: most often one commit.
const sayBatch = 8 * record.MaxBatch

// say publishes and settles.
func (a *Announcer) say(v *voice, s *speech) {
	for i := 0; i < len(s.drafts); i += sayBatch {
		end := min(i+sayBatch, len(s.drafts))
		err := a.publish(v, s.drafts[i:end])
		for j := i; j < end; j++ {
			ev := Event{Library: v.id, Asset: s.notes[j].item.Digest, Kind: s.kinds[j]}
			if err != nil {
				s.notes[j].keep = s.notes[j].keep || !errors.Is(err, control.ErrForbidden)
				ev.Kind, ev.Err = Failed, err
			}
			if v.ctx.Err() == nil {
				a.cfg.OnEvent(ev)
			}
		}
		if err != nil {
			v.missNow()
		}
	}
	a.settle(v, s.settled)
}

// publish says one batch, and tries again while the store fails.
func (a *Announcer) publish(v *voice, drafts []record.Draft) error {
	var final error
	ok := a.patiently("publish", func() error {
		err := v.lib.Say(v.ctx, slices.Clone(drafts)...)
		if err == nil || v.ctx.Err() != nil || permanent(err) {
			final = err
			return nil
		}
		return err
	})
	if !ok {
		return context.Canceled
	}
	return final
}

// permanent reports whether saying the same again at once can't help.
func permanent(err error) bool {
	for _, s := range [...]error{control.ErrForbidden, record.ErrInvalid, record.ErrTooLarge, replica.ErrClock, replica.ErrClosed} {
		if errors.Is(err, s) {
			return true
		}
	}
	return false
}

// settle records what the node has of assets.
func (a *Announcer) settle(v *voice, settled []replica.Settled) {
	if len(settled) == 0 {
		return
	}
	a.patiently("settle", func() error {
		_, err := v.lib.Settle(v.ctx, settled)
		if err != nil && (v.ctx.Err() != nil || errors.Is(err, replica.ErrClosed)) {
			v.missNow()
			return nil
		}
		return err
	})
}
