package session

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/transport"
)

const (
	helloWait  = 10 * time.Second
	helloFrame = 64 << 10 // the largest is a join reply: a bundle and sealed keys
	// maxKnown bounds the secrets that a hello is answered under, each of which costs
	// some two microseconds whoever asks. Epochs come first; of more invites than
	// there is room for, each hello knows others.
	maxKnown = 448
)

// handshake is one hello stream up to the point where both sides know which
// libraries they share.
type handshake struct {
	stream transport.Stream
	frames *wire.FrameReader
	peer   transport.PeerID
	bind   [32]byte
	proven map[uint16]bool // handles for which the peer showed a proof
	// held are the promises of room made on the way.
	held []func()
}

// release gives back what was promised on the way.
func (h *handshake) release() {
	for _, f := range h.held {
		f()
	}
	h.held = nil
}

func newHandshake(s transport.Stream) *handshake {
	return &handshake{stream: s, frames: wire.NewFrameReader(s, helloFrame), peer: s.Peer(), proven: make(map[uint16]bool)}
}

func (h *handshake) expect(want uint8) ([]byte, error) {
	typ, body, err := h.frames.Read()
	if err != nil {
		return nil, err
	}
	if typ != want {
		return nil, fmt.Errorf("%w: frame %d where %d was due", errPeer, typ, want)
	}
	return body, nil
}

// sessionID names the session to both sides and to nobody else.
func sessionID(bind [32]byte) (id [16]byte) {
	copy(id[:], bind[:])
	return id
}

// joinOutcome is what became of a ticket on one hello.
type joinOutcome struct {
	joining *Joining
	grant   capability.Grant
	keys    capability.EpochKeys
	bundle  capability.Bundle
	err     error
}

// open runs the hello as the opener. libs and joins are the libraries not yet
// shared with the peer and the tickets to be redeemed. It returns the libraries
// that both sides accept, and what became of the tickets that the peer knew.
func (m *Manager) open(h *handshake, libs []*Library, joins []*Joining) (map[uint16]shared, []joinOutcome, error) {
	secrets, owner := secretsOf(libs)
	for _, j := range joins {
		secrets = append(secrets, j.Ticket.Secret)
	}
	o, first, err := capability.NewOpener(capability.Channel{Self: m.cfg.Transport.ID(), Peer: h.peer}, secrets, m.cfg.Rand)
	if err != nil {
		return nil, nil, err
	}
	if err := wire.WriteFrame(h.stream, frameHello, first); err != nil {
		return nil, nil, err
	}
	msg, err := h.expect(frameHello)
	if err != nil {
		return nil, nil, err
	}
	tags, err := o.Tags(msg)
	if err != nil {
		return nil, nil, err
	}
	h.bind = o.Binding()
	if err := wire.WriteFrame(h.stream, frameTags, tags); err != nil {
		return nil, nil, err
	}
	if msg, err = h.expect(frameTags); err != nil {
		return nil, nil, err
	}
	matches, err := o.Finish(msg)
	if err != nil {
		return nil, nil, err
	}
	known := make(map[uint16]*Library)
	requests := make(map[uint16]joinRequest)
	seen := make(map[*Library]bool)
	for _, match := range matches {
		if match.Secret >= len(owner) {
			j := joins[match.Secret-len(owner)]
			q, err := capability.NewJoinRequest(j.Ticket, m.cfg.Device, h.bind)
			if err != nil {
				return nil, nil, err
			}
			requests[match.Handle] = joinRequest{j, q}
			body := append(wire.AppendU16(nil, match.Handle), q.Encode()...)
			if err := wire.WriteFrame(h.stream, frameJoin, body); err != nil {
				return nil, nil, err
			}
			continue
		}
		lib := owner[match.Secret]
		if seen[lib] {
			continue // matched by an older secret too
		}
		seen[lib] = true
		known[match.Handle] = lib
		if err := wire.WriteFrame(h.stream, frameProof, capability.Credential{Handle: match.Handle, Bundle: lib.Bundle}.Encode()); err != nil {
			return nil, nil, err
		}
	}
	if err := wire.WriteFrame(h.stream, frameReady, nil); err != nil {
		return nil, nil, err
	}
	grants, outcomes, theirs, err := m.readProofs(h, known, requests)
	if err != nil {
		return nil, nil, err
	}
	both := make(map[uint16]shared)
	var accepted []byte
	for handle, g := range grants {
		if theirs[handle] {
			both[handle] = shared{known[handle], g}
			accepted = wire.AppendU16(accepted, handle)
		}
	}
	return both, outcomes, wire.WriteFrame(h.stream, frameReady, accepted)
}

type joinRequest struct {
	joining *Joining
	request capability.JoinRequest
}

// readProofs reads the peer's certificates and replies until it is ready, and
// which handles it accepts.
func (m *Manager) readProofs(h *handshake, known map[uint16]*Library, requests map[uint16]joinRequest) (map[uint16]capability.Grant, []joinOutcome, map[uint16]bool, error) {
	grants := make(map[uint16]capability.Grant)
	var outcomes []joinOutcome
	for range 2*capability.MaxTags + 1 {
		typ, body, err := h.frames.Read()
		if err != nil {
			return nil, nil, nil, err
		}
		switch typ {
		case frameProof:
			c, err := capability.DecodeCredential(body)
			if err != nil {
				return nil, nil, nil, err
			}
			if err := m.shown(h, known, grants, c); err != nil {
				return nil, nil, nil, err
			}
		case frameReply:
			rd := wire.NewReader(body)
			handle := rd.U16()
			q, ok := requests[handle]
			delete(requests, handle) // each is answered once
			reply, err := capability.DecodeJoinReply(rd.Rest())
			if err != nil {
				return nil, nil, nil, err
			}
			if !ok {
				return nil, nil, nil, fmt.Errorf("%w: reply to no request", errPeer)
			}
			g, keys, err := reply.Open(q.request, m.cfg.Device)
			outcomes = append(outcomes, joinOutcome{q.joining, g, keys, reply.Member, err})
		case frameReady:
			accepted, err := decodeHandles(body)
			return grants, outcomes, accepted, err
		default:
			return nil, nil, nil, fmt.Errorf("%w: frame %d within a hello", errPeer, typ)
		}
	}
	return nil, nil, nil, fmt.Errorf("%w: hello without end", errPeer)
}

func decodeHandles(b []byte) (map[uint16]bool, error) {
	rd := wire.NewReader(b)
	out := make(map[uint16]bool)
	for rd.Err() == nil && rd.Len() > 0 && len(out) <= capability.MaxTags {
		out[rd.U16()] = true
	}
	return out, rd.End()
}

// answer runs the hello as the responder. A library in which there is no room for
// the peer is left out, as if it were not there.
func (m *Manager) answer(h *handshake) (map[uint16]shared, error) {
	libs, open := m.libraries(), m.roomy(h.peer)
	secrets, owner := secretsOf(open)
	members := len(secrets)
	now := m.cfg.Now()
	for _, at := range rand.Perm(len(libs)) {
		for _, s := range libs[at].Invites(now) {
			if len(secrets) >= maxKnown {
				break
			}
			secrets = append(secrets, s)
			owner = append(owner, libs[at])
		}
	}
	r, err := capability.NewResponder(capability.Channel{Self: m.cfg.Transport.ID(), Peer: h.peer}, secrets, m.cfg.Rand)
	if err != nil {
		return nil, err
	}
	msg, err := h.expect(frameHello)
	if err != nil {
		return nil, err
	}
	if msg, err = r.Nonce(msg); err != nil {
		return nil, err
	}
	h.bind = r.Binding()
	if err := wire.WriteFrame(h.stream, frameHello, msg); err != nil {
		return nil, err
	}
	if msg, err = h.expect(frameTags); err != nil {
		return nil, err
	}
	msg, matches, err := r.Answer(msg)
	if err != nil {
		return nil, err
	}
	if err := wire.WriteFrame(h.stream, frameTags, msg); err != nil {
		return nil, err
	}
	known := make(map[uint16]*Library)
	invited := make(map[uint16]*Library)
	for _, match := range matches {
		if match.Secret < members {
			known[match.Handle] = owner[match.Secret]
		} else {
			invited[match.Handle] = owner[match.Secret]
		}
	}
	grants, err := m.readShown(h, known, invited)
	if err != nil {
		return nil, err
	}
	var accepted []byte
	for handle := range grants {
		release, ok := m.reserve(known[handle], h.peer)
		if !ok { // others were quicker
			delete(grants, handle)
			continue
		}
		h.held = append(h.held, release)
		accepted = wire.AppendU16(accepted, handle)
		c := capability.Credential{Handle: handle, Bundle: known[handle].Bundle}
		if err := wire.WriteFrame(h.stream, frameProof, c.Encode()); err != nil {
			return nil, err
		}
	}
	if err := wire.WriteFrame(h.stream, frameReady, accepted); err != nil {
		return nil, err
	}
	if msg, err = h.expect(frameReady); err != nil {
		return nil, err
	}
	theirs, err := decodeHandles(msg)
	if err != nil {
		return nil, err
	}
	both := make(map[uint16]shared)
	for handle, g := range grants {
		if theirs[handle] {
			both[handle] = shared{known[handle], g}
		}
	}
	return both, nil
}

// readShown reads the opener's certificates and requests until it is ready, and
// answers the requests.
func (m *Manager) readShown(h *handshake, known, invited map[uint16]*Library) (map[uint16]capability.Grant, error) {
	grants := make(map[uint16]capability.Grant)
	asked := make(map[uint16]bool)
	for range 2*capability.MaxTags + 1 {
		typ, body, err := h.frames.Read()
		if err != nil {
			return nil, err
		}
		switch typ {
		case frameProof:
			c, err := capability.DecodeCredential(body)
			if err != nil {
				return nil, err
			}
			if err := m.shown(h, known, grants, c); err != nil {
				return nil, err
			}
		case frameJoin:
			rd := wire.NewReader(body)
			handle := rd.U16()
			q, err := capability.DecodeJoinRequest(rd.Rest())
			if err != nil {
				return nil, err
			}
			lib := invited[handle]
			if lib == nil || asked[handle] {
				return nil, fmt.Errorf("%w: join under no invite", errPeer)
			}
			asked[handle] = true
			reply := lib.Admit(m.ctx, q, h.peer, h.bind)
			if err := wire.WriteFrame(h.stream, frameReply, append(wire.AppendU16(nil, handle), reply.Encode()...)); err != nil {
				return nil, err
			}
		case frameReady:
			return grants, nil
		default:
			return nil, fmt.Errorf("%w: frame %d within a hello", errPeer, typ)
		}
	}
	return nil, fmt.Errorf("%w: hello without end", errPeer)
}

// shown takes the proof for a handle. To verify one costs some milliseconds, so that
// each handle has one.
func (m *Manager) shown(h *handshake, known map[uint16]*Library, grants map[uint16]capability.Grant, c capability.Credential) error {
	if h.proven[c.Handle] {
		return fmt.Errorf("%w: two proofs for one handle", errPeer)
	}
	lib := known[c.Handle]
	if lib == nil {
		return nil
	}
	h.proven[c.Handle] = true
	g, err := m.accept(lib, c.Bundle, h.peer)
	if err != nil {
		m.log.Warn("peer's membership refused", "peer", h.peer.Short(), "error", err)
		return nil
	}
	grants[c.Handle] = g
	return nil
}

// accept verifies a peer's membership.
func (m *Manager) accept(lib *Library, b capability.Bundle, peer transport.PeerID) (capability.Grant, error) {
	g, err := b.VerifyPeer(lib.ID, peer, m.cfg.Now())
	if err != nil {
		return capability.Grant{}, err
	}
	if !g.Rights.Has(capability.Read) {
		return capability.Grant{}, capability.ErrRights
	}
	return g, nil
}

// secretsOf returns the secrets by which members know each other, and whose each
// is.
func secretsOf(libs []*Library) (secrets []capability.Secret, owner []*Library) {
	for _, lib := range libs {
		for _, s := range lib.Secrets() {
			secrets = append(secrets, s)
			owner = append(owner, lib)
		}
	}
	return secrets, owner
}

// hush turns the errors of a stream that simply ended into nil.
func hush(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, transport.ErrReset) || errors.Is(err, transport.ErrClosed) {
		return nil
	}
	return err
}
