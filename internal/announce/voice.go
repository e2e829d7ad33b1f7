package announce

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"sync"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/wire"
)

// voice is a library in which the node speaks.
type voice struct {
	id     [32]byte
	lib    *library.Library
	ctx    context.Context // ends with Remove
	cancel context.CancelFunc
	wg     sync.WaitGroup
	uses   sync.WaitGroup

	// reported are the metadata that were reported not to fit, of the desk.
	reported map[can.Digest]inventory.Fingerprint

	mu     sync.Mutex
	gate   func(can.Digest, can.Metadata) bool
	loaded bool
	// caught is the state of the library in which every asset of the service was
	// offered to it: the zero value when some was not.
	caught state
	// misses counts what the library was not offered because it could not speak.
	misses uint64
	// unheard says that an edit was found while the library could not speak: it is
	// news still, which only a scan finds again.
	unheard bool
	// running is the pass that offers everything, if there is one.
	running *pass
	held    int // removals on hold
	removed int // removals published since the last full scan
	// triedAt is when the last pass began, in the state triedState.
	triedAt    time.Time
	triedState state
}

// state is what an offer of all assets depends on: the description in force, the
// node's own view, the membership, and whether the node says anything.
type state struct {
	description record.ID
	view        [32]byte // the SHA-256 of the encoded filter, zero for all
	grant       capability.CertID
	announces   bool
}

func (s state) isZero() bool { return s == state{} }

func (s state) encode() []byte {
	if s.isZero() {
		return []byte{1}
	}
	return wire.AppendBool(slices.Concat([]byte{1}, s.description[:], s.view[:], s.grant[:]), s.announces)
}

func decodeState(b []byte) (s state, err error) {
	r := wire.NewReader(b)
	if v := r.U8(); r.Err() == nil && v != 1 {
		r.Fail("state of version %d", v)
	}
	if r.Err() == nil && r.Len() > 0 {
		s = state{description: r.B32(), view: r.B32(), grant: r.B32(), announces: r.Bool()}
		if r.Err() == nil && s.isZero() {
			r.Fail("a state of nothing")
		}
	}
	if err := r.End(); err != nil {
		return state{}, err
	}
	return s, nil
}

// pass is one offer of all assets to a library.
type pass struct {
	state  state
	filter filter.View // in force in that state
	misses uint64
}

func newVoice(ctx context.Context, lib *library.Library) *voice {
	v := &voice{id: lib.ID(), lib: lib}
	v.ctx, v.cancel = context.WithCancel(ctx)
	return v
}

func (v *voice) short() string      { return hex.EncodeToString(v.id[:4]) }
func caughtMark(id [32]byte) string { return "announce.caught." + hex.EncodeToString(id[:]) }
func heldMark(id [32]byte) string   { return "announce.held." + hex.EncodeToString(id[:]) }

// may reports whether the node may and wants to say something.
func (v *voice) may() bool { return v.lib.Announces() && v.lib.May(capability.Write) }

func (v *voice) current() state {
	s := state{description: v.lib.DescriptionID(), grant: v.lib.Grant().ID, announces: v.lib.Announces()}
	if own := v.lib.OwnView(); !own.IsZero() {
		s.view[0] = 1 // should it not encode, it is at least not the zero value
		if b, err := own.Encode(); err == nil {
			s.view = sha256.Sum256(b)
		}
	}
	return s
}

func (v *voice) isLoaded() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.loaded
}

func (v *voice) isHeld() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.held > 0
}

// load reads what is kept about the library, which counts if it is in the index.
func (v *voice) load(ctx context.Context, inv *inventory.Inventory, indexed bool) error {
	if v.isLoaded() {
		return nil
	}
	b, err := inv.Mark(ctx, caughtMark(v.id))
	if err != nil {
		return err
	}
	var caught state
	if b != nil && indexed {
		if caught, err = decodeState(b); err != nil {
			caught = state{} // offer everything again
		}
	}
	if b, err = inv.Mark(ctx, heldMark(v.id)); err != nil {
		return err
	}
	held := 0
	if b != nil {
		if held, err = decodeHeld(b); err != nil {
			held = 1 // rather ask once too often
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.loaded {
		v.held, v.loaded = held, true
		if v.misses == 0 {
			v.caught = caught
		}
	}
	return nil
}

func encodeHeld(n int) []byte { return wire.AppendU32([]byte{1}, uint32(min(n, 1<<31-1))) }

func decodeHeld(b []byte) (int, error) {
	r := wire.NewReader(b)
	if v := r.U8(); r.Err() == nil && v != 1 {
		r.Fail("hold of version %d", v)
	}
	n := r.U32()
	if n > 1<<31-1 {
		r.Fail("%d removals", n)
	}
	return int(n), r.End()
}

// active reports whether the library can be spoken in: it has met its peers, says
// what it takes, and was not paused or removed.
func (v *voice) active() bool {
	select {
	case <-v.lib.Met():
	default:
		return false
	}
	return v.ctx.Err() == nil && v.isLoaded() && !v.lib.Paused() && v.lib.DescriptionID() != record.ID{}
}

// behind reports whether a pass has to be made that is not under way.
func (v *voice) behind() bool {
	if !v.active() {
		return false
	}
	now := v.current()
	v.mu.Lock()
	behind := v.caught != now && (v.running == nil || v.running.state != now || v.running.misses != v.misses)
	v.mu.Unlock()
	return behind && !v.lib.Refiltering()
}

// waited reports, once, whether edits wait for a library that can speak now.
func (v *voice) waited() bool {
	if !v.active() {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	was := v.unheard
	v.unheard = false
	return was
}

func (v *voice) wait() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.unheard = true
}

// begin begins a pass, unless none is needed.
func (v *voice) begin() *pass {
	if !v.active() {
		return nil
	}
	now := v.current()
	if v.lib.Refiltering() {
		return nil // the state is ahead of the filter by which it would be decided
	}
	f := v.lib.Filter()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.caught == now {
		return nil
	}
	v.running = &pass{now, f, v.misses}
	return v.running
}

func (v *voice) end(p *pass) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.running == p {
		v.running = nil
	}
}

// pending reports whether not everything was offered yet, so that what is new to
// the node need not be new in the service.
func (v *voice) pending() bool {
	now := v.current()
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.caught != now
}

// miss notes durably that the library was not offered something.
func (v *voice) miss(ctx context.Context, inv *inventory.Inventory) error {
	v.mu.Lock()
	v.misses++
	was := v.caught
	known := v.loaded
	v.mu.Unlock()
	if known && was.isZero() {
		return nil
	}
	if err := inv.SetMark(ctx, caughtMark(v.id), state{}.encode()); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.caught = state{}
	return nil
}

// sameView is Equal, and quick for what a library returned twice.
func sameView(a, b filter.View) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) || a.Equal(b)
}

// decided notes by which filter something was decided: a pass of another filter has
// not offered it.
func (v *voice) decided(f filter.View) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.running != nil && !sameView(v.running.filter, f) {
		v.misses++
	}
}

// reached reports whether a pass that came to its end offered everything.
func (v *voice) reached(p *pass) bool {
	now := v.current()
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.running == p && v.misses == p.misses && now == p.state
}

func (v *voice) lets(d can.Digest, m can.Metadata) bool {
	v.mu.Lock()
	gate := v.gate
	v.mu.Unlock()
	return gate == nil || gate(d, m)
}

// missNow makes the next pass necessary without the store, which failed, or for a
// library that is being closed.
func (v *voice) missNow() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.misses++
	v.caught = state{}
}

// newWindow begins to count removals anew, after a full scan.
func (v *voice) newWindow() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.removed = 0
}

// tried and mayTry space passes that come to nothing.
func (v *voice) tried(now time.Time) {
	s := v.current()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.triedAt, v.triedState = now, s
}

func (v *voice) mayTry(now time.Time) bool {
	s := v.current()
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.triedState != s || now.Sub(v.triedAt) >= scanRetry
}

// maxReported bounds the reports that are remembered; beyond, they begin anew.
const maxReported = 4096

// reportOnce reports whether an asset's metadata were not yet reported not to fit:
// a pass meets them each time. It runs on the desk.
func (v *voice) reportOnce(d can.Digest, fp inventory.Fingerprint) bool {
	if was, ok := v.reported[d]; ok && was == fp {
		return false
	}
	if v.reported == nil || len(v.reported) >= maxReported {
		v.reported = make(map[can.Digest]inventory.Fingerprint)
	}
	v.reported[d] = fp
	return true
}
