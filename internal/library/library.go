// Package library is a library as the node is a member of it: its records, the
// node's membership, and what the node says in it.
package library

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/keyring"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/internal/session"
	"github.com/cansync/cansync/transport"
)

// ErrKeys says that a library's stored keys do not fit together.
var ErrKeys = errors.New("library: stored keys are not usable")

// Library is safe for concurrent use.
type Library struct {
	*replica.Replica
	id      [32]byte
	device  capability.Device
	author  capability.SigningKey
	bundle  capability.Bundle
	grant   capability.Grant
	lasting capability.Secret
	now     func() time.Time
	rand    io.Reader
	present func(context.Context, can.Digest) (bool, error)

	mu     sync.Mutex
	epochs []keyring.Epoch // the newest last
	met    bool            // the assets were reconciled with a peer, or there is none to wait for
	metC   chan struct{}
	mode   Mode
}

// Options are what a library is opened with.
type Options struct {
	Keys    keyring.Library
	Device  capability.Device
	Replica replica.Options // Library and ReconcileKey are filled in
	Rand    io.Reader
	// Met says that the node need not reconcile before it announces.
	Met bool
	// Present reports whether the node's CAN Service holds a content; nil means
	// that it holds none.
	Present func(context.Context, can.Digest) (bool, error)
}

// Open opens a library of which the node holds the keys.
func Open(ctx context.Context, o Options) (*Library, error) {
	b, err := capability.DecodeBundle(o.Keys.Bundle)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeys, err)
	}
	g, err := b.Verify(o.Keys.ID)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrKeys, err)
	case g.Peer() != o.Device.PeerID():
		return nil, fmt.Errorf("%w: the membership belongs to another device key", ErrKeys)
	case len(o.Keys.Epochs) == 0 || o.Keys.Lasting.IsZero():
		return nil, fmt.Errorf("%w: no secrets", ErrKeys)
	}
	o.Replica.Library = o.Keys.ID
	o.Replica.ReconcileKey = o.Keys.Lasting.ReconcileKey()
	rep, err := replica.Open(ctx, o.Replica)
	if err != nil {
		return nil, err
	}
	l := &Library{
		Replica: rep, id: o.Keys.ID, device: o.Device, author: o.Device.Author(o.Keys.ID), bundle: b, grant: g,
		lasting: o.Keys.Lasting, epochs: o.Keys.Epochs, now: o.Replica.Now, rand: o.Rand, present: o.Present,
		met: o.Met, metC: make(chan struct{}), mode: Mode(o.Keys.Mode),
	}
	if l.met {
		close(l.metC)
	}
	return l, nil
}

// Create makes the keys of a new library.
func Create(name string, device capability.Device, rand io.Reader) (keyring.Library, error) {
	owner, err := capability.NewSigningKey(rand)
	if err != nil {
		return keyring.Library{}, err
	}
	keys, err := capability.NewEpochKeys(rand)
	if err != nil {
		return keyring.Library{}, err
	}
	id := capability.LibraryID(owner.Public())
	root, err := capability.NewRoot(owner, device.Member(id), rand)
	if err != nil {
		return keyring.Library{}, err
	}
	return keyring.Library{
		ID: id, State: keyring.Active, Name: name, Owner: owner, Lasting: keys.Lasting,
		Epochs: []keyring.Epoch{{Number: keys.Epoch, Secret: keys.Secret}},
		Bundle: capability.Bundle{Chain: capability.Chain{root}}.Encode(), Cert: root.ID(),
	}, nil
}

// Describe publishes the first records of a new library: the owner's membership
// and the description.
func (l *Library) Describe(ctx context.Context, d control.Description) error {
	member, err := control.NewMember(0, l.bundle.Chain.Last())
	if err != nil {
		return err
	}
	desc, err := control.NewDescription(0, l.id, l.grant.ID, d)
	if err != nil {
		return err
	}
	for _, draft := range []record.Draft{member, desc} {
		if err := l.Say(ctx, draft); err != nil {
			return err
		}
	}
	return nil
}

// Say signs drafts and publishes them. Their clocks and certificates are filled
// in. Errors match control.ErrForbidden where the membership lacks the right.
func (l *Library) Say(ctx context.Context, drafts ...record.Draft) error {
	for i := range drafts {
		drafts[i].Cert = l.grant.ID
	}
	_, err := l.Publish(ctx, func(stamped []record.Draft) ([]record.Record, error) {
		return record.SignWith(l.author, stamped)
	}, drafts)
	return err
}

// Announcement makes the draft that announces an asset, or replaces what is known
// of it. Errors match record.ErrTooLarge where the metadata does not fit.
func (l *Library) Announcement(kind record.Kind, d can.Digest, body record.AssetBody) (record.Draft, error) {
	return record.Asset(kind, 0, l.id, d, l.grant.ID, body)
}

// Removal makes the draft of an asset's tombstone.
func (l *Library) Removal(d can.Digest) record.Draft {
	return record.Removal(0, l.id, d, l.grant.ID)
}

// ID returns the library's id.
func (l *Library) ID() [32]byte { return l.id }

// Grant returns what the node's membership allows.
func (l *Library) Grant() capability.Grant { return l.grant }

// May reports whether the node's membership includes the rights and has not ended.
func (l *Library) May(r capability.Rights) bool {
	return l.grant.Rights.Has(r) && l.grant.ValidAt(l.now(), 0)
}

// Description returns what the library says of itself, false while that is not
// known.
func (l *Library) Description() (d control.Description, ok bool) {
	l.Control(func(s *control.State) { d, _, ok = s.Description() })
	return d, ok
}

// Shares reports whether the library holds an asset, also one that only the node's
// own view leaves out: the node goes on serving what it has of those.
func (l *Library) Shares(e replica.Entry) bool {
	if !e.Known() || !e.Live.HasBody() {
		return false
	}
	desc, ok := l.Description()
	if !ok {
		return e.Member // nobody said yet what belongs to it
	}
	return desc.Filter.Match(e.Asset, e.Body.Metadata())
}

// DescriptionID returns the id of the description in force.
func (l *Library) DescriptionID() (id record.ID) {
	l.Control(func(s *control.State) { _, id, _ = s.Description() })
	return id
}

// Met is closed when the node may announce: the assets were reconciled with a
// peer, or there is nobody to reconcile with first.
func (l *Library) Met() <-chan struct{} { return l.metC }

// Described reports whether the node may announce and knows what the library is:
// before, an empty queue says nothing.
func (l *Library) Described() bool {
	l.mu.Lock()
	met := l.met
	l.mu.Unlock()
	_, ok := l.Description()
	return met && ok
}

func (l *Library) meet() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.met {
		l.met = true
		close(l.metC)
	}
}

func (l *Library) epochKeys() capability.EpochKeys {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.epochs[len(l.epochs)-1]
	return capability.EpochKeys{Epoch: e.Number, Secret: e.Secret, Lasting: l.lasting}
}

// Members returns the members, as the control set knows them.
func (l *Library) Members() (ms []control.Member) {
	l.Control(func(s *control.State) { ms = s.Members() })
	return ms
}

// Session returns what the session manager needs of the library.
func (l *Library) Session(onRound func(transport.PeerID)) *session.Library {
	return &session.Library{
		ID: l.id, Replica: l.Replica, Bundle: l.bundle, Seed: l.seed(),
		Secrets: func() []capability.Secret {
			l.mu.Lock()
			defer l.mu.Unlock()
			var out []capability.Secret
			for i := len(l.epochs) - 1; i >= 0 && len(out) < 2; i-- {
				out = append(out, l.epochs[i].Secret)
			}
			return out
		},
		Meet:    l.meetingKeys,
		Invites: l.inviteSecrets,
		Admit:   l.admit,
		Members: func() []transport.PeerID {
			ms, now := l.Members(), l.now().Add(-capability.SessionTolerance).Unix()
			out := make([]transport.PeerID, 0, len(ms))
			if len(ms) == 0 { // the control set has yet to come
				return l.admitters()
			}
			for _, m := range ms {
				if m.GrantExp == 0 || m.GrantExp >= now {
					out = append(out, m.Device)
				}
			}
			return out
		},
		Have: func(ctx context.Context, d can.Digest) (bool, error) {
			e, err := l.Entry(ctx, d)
			if err != nil || l.present == nil || !l.Shares(e) {
				return false, err
			}
			return l.present(ctx, d)
		},
		Author: l.announcer,
		OnRound: func(p transport.PeerID) {
			l.meet()
			if onRound != nil {
				onRound(p)
			}
		},
	}
}

// announcer returns the device whose record of an asset is live, zero when it is not
// known, and whether the asset is in the library.
func (l *Library) announcer(ctx context.Context, d can.Digest) (id transport.PeerID, in bool, err error) {
	e, err := l.Entry(ctx, d)
	if err != nil || !e.Member {
		return id, false, err
	}
	l.Control(func(s *control.State) {
		if c, err := s.Grant(capability.CertID(e.Live.Cert)); err == nil {
			id = c.Peer()
		}
	})
	return id, true, nil
}

// seed keys the members' choice of neighbours. The lasting secret stays the same
// when the epoch changes, and so do the neighbours.
func (l *Library) seed() (seed [16]byte) {
	key := l.lasting.ReconcileKey()
	sum := sha256.Sum256(append([]byte("cansync neighbours 1\n"), key[:]...))
	copy(seed[:], sum[:])
	return seed
}

// admitters returns the members named in the node's own certificates: those who
// invited and admitted it, and on whom they rest.
func (l *Library) admitters() (out []transport.PeerID) {
	for _, certs := range [][]capability.Cert{l.bundle.Chain, l.bundle.Support} {
		for _, c := range certs {
			if c.Kind == capability.KindMember {
				out = append(out, transport.PeerID(c.Subject))
			}
		}
	}
	return out
}

// meetingKeys returns the rendezvous keys of today for the epoch and the open
// invites, then those of yesterday and tomorrow.
func (l *Library) meetingKeys(now time.Time) [][32]byte {
	k := l.epochKeys()
	w := capability.RendezvousWindow(k.Secret, k.Epoch, now)
	keys := [][32]byte{w[1]}
	for _, s := range l.inviteSecrets(now) {
		iw := capability.RendezvousWindow(s, 0, now)
		keys = append(keys, iw[1])
	}
	return append(keys, w[0], w[2])
}

func (l *Library) openInvites(now time.Time) (inv []control.Invite) {
	l.Control(func(s *control.State) { inv = s.OpenInvites(now.Unix()) })
	return inv
}

func (l *Library) inviteSecrets(now time.Time) []capability.Secret {
	if !l.May(capability.Invite) {
		return nil // it could not admit anyone
	}
	inv := l.openInvites(now)
	out := make([]capability.Secret, 0, len(inv))
	for _, i := range inv {
		out = append(out, i.Secret)
	}
	return out
}

// Invite makes an invite, makes it known to the members, and returns the ticket.
func (l *Library) Invite(ctx context.Context, o capability.InviteOptions, peers []transport.PeerInfo) (capability.Ticket, error) {
	d, ok := l.Description()
	if !ok {
		return capability.Ticket{}, fmt.Errorf("%w: description", replica.ErrNoRecord)
	}
	key, err := capability.NewSigningKey(l.rand)
	if err != nil {
		return capability.Ticket{}, err
	}
	secret, err := capability.NewSecret(l.rand)
	if err != nil {
		return capability.Ticket{}, err
	}
	cert, err := capability.NewInvite(l.bundle.Chain, l.device.Key(), key.Public(), o, l.rand)
	if err != nil {
		if errors.Is(err, capability.ErrRights) {
			err = fmt.Errorf("%w: %w", control.ErrForbidden, err)
		}
		return capability.Ticket{}, err
	}
	f, err := d.Filter.Encode()
	if err != nil {
		return capability.Ticket{}, err
	}
	t := capability.Ticket{
		Invite: capability.Bundle{Chain: l.bundle.Chain.With(cert), Support: l.bundle.Support},
		Key:    key, Secret: secret, Name: d.Name, Filter: f, Peers: peers,
	}
	if _, err := t.ExportSecret(); err != nil {
		return capability.Ticket{}, err
	}
	draft, err := control.NewInvite(0, cert, secret)
	if err != nil {
		return capability.Ticket{}, err
	}
	return t, l.Say(ctx, draft)
}

// admit answers a request to join: it stores the membership before it hands it
// out, and hands a stored one out again.
func (l *Library) admit(ctx context.Context, q capability.JoinRequest, peer transport.PeerID, binding [32]byte) capability.JoinReply {
	now := l.now()
	invite := q.Invite.Chain.Last()
	var existing *capability.Cert
	open := false
	l.Control(func(s *control.State) {
		for _, i := range s.OpenInvites(now.Unix()) {
			open = open || i.ID == invite.ID()
		}
		if ch, err := s.Chain(q.Member.ID()); err == nil {
			c := ch.Last()
			existing = &c
		}
	})
	if !open && existing == nil {
		return capability.JoinReply{Refusal: capability.RefusedExpired}
	}
	chain, sealed, err := capability.Admit(q, capability.Admission{
		Library: l.id, Peer: peer, Binding: binding, Now: now, Self: l.grant, Device: l.device,
		Keys: l.epochKeys(), Existing: existing,
	})
	if err != nil {
		var r capability.Refusal
		if !errors.As(err, &r) {
			r = capability.RefusedBusy
		}
		return capability.JoinReply{Refusal: r}
	}
	if existing == nil {
		draft, err := control.NewMember(0, chain.Last())
		if err == nil {
			err = l.Say(ctx, draft)
		}
		if err != nil {
			return capability.JoinReply{Refusal: capability.RefusedBusy}
		}
	}
	var bundle capability.Bundle
	l.Control(func(s *control.State) { bundle, err = capability.NewBundle(chain, s.Chain) })
	if err != nil {
		return capability.JoinReply{Refusal: capability.RefusedBusy}
	}
	return capability.JoinReply{Member: bundle, Sealed: sealed}
}
