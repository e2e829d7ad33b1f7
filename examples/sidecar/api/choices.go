package api

import (
	"bytes"
	"net/http"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
)

// What a library can be told to do on this node alone: its mode, its view, and
// what is published.

// localChange is the part of a change that concerns this node alone.
type localChange struct {
	mode    *string
	view    *cansync.Filter
	publish *string
}

// check looks at a change before anything is done.
func (c localChange) check() error {
	if m := c.mode; m != nil {
		switch cansync.Mode(*m) {
		case cansync.Sync, cansync.ReceiveOnly, cansync.AnnounceOnly, cansync.RecordsOnly, cansync.Paused:
		default:
			return failf(http.StatusBadRequest, "mode: want one of sync, receive-only, announce-only, records-only, paused")
		}
	}
	if p := c.publish; p != nil && *p != string(cansync.PublishAuto) && *p != string(cansync.PublishApprove) {
		return failf(http.StatusBadRequest, "publish: want \"auto\" or \"approve\"")
	}
	if c.view != nil {
		return noTickets("view", *c.view)
	}
	return nil
}

// apply does it. What restricts comes first, so that a change to several things
// never announces or fetches more in between.
func (c localChange) apply(r *http.Request, l *cansync.Library) error {
	if c.view != nil {
		if err := l.SetView(r.Context(), *c.view); err != nil {
			return err
		}
	}
	if c.publish != nil {
		if err := l.SetPublishMode(cansync.PublishMode(*c.publish)); err != nil {
			return err
		}
	}
	if c.mode != nil {
		return l.SetMode(cansync.Mode(*c.mode))
	}
	return nil
}

// approvals lists the local assets that wait for a decision.
func (h *Handler) approvals(r *http.Request, body []byte) (any, error) {
	q, err := query(r, "limit", "after")
	if err != nil {
		return nil, err
	}
	if err := noBody(body); err != nil {
		return nil, err
	}
	limit, err := intParam(q, "limit", defaultPage, 1, maxPage)
	if err != nil {
		return nil, err
	}
	after, err := afterParam(q)
	if err != nil {
		return nil, err
	}
	l, err := h.lookup(r)
	if err != nil {
		return nil, err
	}
	out := approvalsView{Items: []approvalView{}}
	for d, err := range l.Pending(r.Context()) {
		if err != nil {
			return nil, err
		}
		if bytes.Compare(d[:], after[:]) <= 0 {
			continue
		}
		if n := len(out.Items); n == limit { // there is at least one more
			out.Next = &out.Items[n-1].Digest
			break
		}
		out.Items = append(out.Items, approvalView{Digest: d.String()})
	}
	return out, nil
}

// maxDecisions is how many assets one request can decide about.
const maxDecisions = 1000

type decideRequest struct {
	Digests []string `json:"digests"`
}

// digests reads the digests, in the order given.
func (q decideRequest) digests() ([]can.Digest, error) {
	if n := len(q.Digests); n == 0 || n > maxDecisions {
		return nil, failf(http.StatusBadRequest, "digests: want 1 to %d digests", maxDecisions)
	}
	out := make([]can.Digest, 0, len(q.Digests))
	for i, s := range q.Digests {
		d, err := can.ParseDigest(s)
		if err != nil {
			return nil, failf(http.StatusBadRequest, "digests: number %d is no digest: want 64 lower-case hexadecimal digits", i+1)
		}
		out = append(out, d)
	}
	return out, nil
}

func (h *Handler) approve(r *http.Request, body []byte) (any, error) {
	return h.decide(r, body, func(l *cansync.Library, ds []can.Digest) error { return l.Approve(r.Context(), ds...) })
}

func (h *Handler) decline(r *http.Request, body []byte) (any, error) {
	return h.decide(r, body, func(l *cansync.Library, ds []can.Digest) error { return l.Decline(r.Context(), ds...) })
}

func (h *Handler) decide(r *http.Request, body []byte, do func(*cansync.Library, []can.Digest) error) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	var req decideRequest
	if err := decode(body, &req); err != nil {
		return nil, err
	}
	ds, err := req.digests()
	if err != nil {
		return nil, err
	}
	l, err := h.lookup(r)
	if err != nil {
		return nil, err
	}
	if err := do(l, ds); err != nil {
		return nil, err
	}
	return decidedView{Library: l.ID().String(), Digests: req.Digests}, nil
}

// holders asks the connected members who holds an asset.
func (h *Handler) holders(r *http.Request, body []byte) (any, error) {
	if err := plainRequest(r, body); err != nil {
		return nil, err
	}
	l, err := h.lookup(r)
	if err != nil {
		return nil, err
	}
	d, err := digest(r)
	if err != nil {
		return nil, err
	}
	if _, err := l.Asset(r.Context(), d); err != nil {
		return nil, err
	}
	who, err := l.Holders(r.Context(), d)
	if err != nil {
		return nil, err
	}
	out := []holderView{}
	for _, id := range who[0] {
		out = append(out, holderView{ID: id.String(), Self: id == h.node.PeerID()})
	}
	return out, nil
}
