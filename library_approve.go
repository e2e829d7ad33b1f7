package cansync

import (
	"context"
	"iter"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/keyring"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/replica"
)

// PublishMode says what of the local CAN Service is announced.
type PublishMode string

// The modes.
const (
	// PublishAuto announces every asset that matches the filter, except those that
	// the host declined. It is the default.
	PublishAuto PublishMode = "auto"
	// PublishApprove announces none that the host did not approve. Whoever can
	// reach the CAN Service can put an asset there that matches a filter, a web page
	// in the user's browser too; where that matters, this mode is the answer.
	PublishApprove PublishMode = "approve"
)

// PublishMode returns what of the local CAN Service is announced in the library.
func (l *Library) PublishMode() PublishMode {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	if l.keys.Approve {
		return PublishApprove
	}
	return PublishAuto
}

// SetPublishMode changes what of the local CAN Service is announced in the
// library by this node. It may be set while the library is being joined, and lasts
// over restarts. What was announced stays so. In approve mode, edits of assets
// that are in the library are still published. Errors match [ErrConfig].
func (l *Library) SetPublishMode(m PublishMode) error {
	if !m.valid() {
		return badPublish(m)
	}
	done, err := l.n.use()
	if err != nil {
		return err
	}
	defer done()
	lib, err := l.keep(l.n.ctx, func(k *keyring.Library) { k.Approve = m == PublishApprove })
	if err != nil || lib == nil {
		return err
	}
	if err := l.n.announcer.SetGate(l.id, l.n.gateFor(lib, m == PublishApprove)); err != nil {
		return err
	}
	return l.n.announcer.Offer(l.id)
}

// gateFor returns what decides about announcing an asset.
func (n *Node) gateFor(lib *library.Library, approve bool) func(can.Digest, can.Metadata) bool {
	return func(d can.Digest, _ can.Metadata) bool {
		a, err := lib.Approval(n.ctx, d)
		if !approve {
			return err == nil && a != replica.Declined
		}
		if err == nil && a == replica.Unseen {
			if err = lib.SetApproval(n.ctx, replica.Pending, d); err == nil {
				n.events.emit(Event{Kind: EventPending, Library: lib.ID(), Asset: d})
			}
		}
		return err == nil && a == replica.Approved
	}
}

// Pending yields the local assets that wait for [Library.Approve] or
// [Library.Decline], ordered by digest. It ends with the first error.
func (l *Library) Pending(ctx context.Context) iter.Seq2[can.Digest, error] {
	return listing(ctx, l, func(ctx context.Context, lib *library.Library) iter.Seq2[can.Digest, error] {
		return lib.Approvals(ctx, replica.Pending)
	})
}

// Approve lets assets be announced, now or when they come into the local CAN
// Service, as long as they match the filter then.
func (l *Library) Approve(ctx context.Context, digests ...can.Digest) error {
	return l.decide(ctx, replica.Approved, digests)
}

// Decline keeps assets from being announced, in either mode. What was announced before stays in
// the library; see [Library.Remove].
func (l *Library) Decline(ctx context.Context, digests ...can.Digest) error {
	return l.decide(ctx, replica.Declined, digests)
}

func (l *Library) decide(ctx context.Context, a replica.Approval, digests []can.Digest) error {
	lib, done, err := l.member()
	if err != nil {
		return err
	}
	defer done()
	if err := lib.SetApproval(ctx, a, digests...); err != nil {
		return err
	}
	if a != replica.Approved {
		return nil
	}
	return l.n.announcer.Offer(l.id)
}
