package api

import (
	"bytes"
	"net/http"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
)

// What a library can be told to do on this node alone: its mode, its view, what is
// published, and how much traffic it may cause.

// localChange is the part of a request that concerns this node alone. A key that is
// absent changes nothing.
type localChange struct {
	Mode    *string         `json:"mode"`
	View    *cansync.Filter `json:"view"`
	Publish *string         `json:"publish"`
	Limits  *limitsChange   `json:"limits"`
	Quota   *int64          `json:"quota"`
}

// check looks at a change before anything is done.
func (c localChange) check() error {
	if m := c.Mode; m != nil {
		switch cansync.Mode(*m) {
		case cansync.Sync, cansync.ReceiveOnly, cansync.AnnounceOnly, cansync.RecordsOnly, cansync.Paused:
		default:
			return failf(http.StatusBadRequest, "mode: want one of sync, receive-only, announce-only, records-only, paused")
		}
	}
	if p := c.Publish; p != nil && *p != string(cansync.PublishAuto) && *p != string(cansync.PublishApprove) {
		return failf(http.StatusBadRequest, "publish: want \"auto\" or \"approve\"")
	}
	if c.Limits != nil {
		if err := c.Limits.check("limits."); err != nil {
			return err
		}
	}
	if c.Quota != nil && *c.Quota < 0 {
		return failf(http.StatusBadRequest, "quota: want a whole number of bytes, 0 for no quota")
	}
	if c.View != nil {
		return noTickets("view", *c.View)
	}
	return nil
}

// choices are those for a library that is made or joined.
func (c localChange) choices() (out cansync.Choices) {
	if c.Mode != nil {
		out.Mode = cansync.Mode(*c.Mode)
	}
	if c.View != nil {
		out.View = *c.View
	}
	if c.Publish != nil {
		out.Publish = cansync.PublishMode(*c.Publish)
	}
	if c.Limits != nil {
		out.Limits = c.Limits.onto(out.Limits)
	}
	if c.Quota != nil {
		out.Quota = *c.Quota
	}
	return out
}

// apply does it. What restricts comes first, so that a change to several things
// never announces or fetches more in between.
func (c localChange) apply(r *http.Request, l *cansync.Library) error {
	if c.View != nil {
		if err := l.SetView(r.Context(), *c.View); err != nil {
			return err
		}
	}
	if c.Publish != nil {
		if err := l.SetPublishMode(cansync.PublishMode(*c.Publish)); err != nil {
			return err
		}
	}
	if c.Limits != nil {
		if err := l.SetLimits(c.Limits.onto(l.Limits())); err != nil {
			return err
		}
	}
	if c.Quota != nil {
		if err := l.SetQuota(*c.Quota); err != nil {
			return err
		}
	}
	if c.Mode != nil {
		return l.SetMode(cansync.Mode(*c.Mode))
	}
	return nil
}

// approvals lists the local assets that wait for a decision.
func (h *Handler) approvals(r *http.Request, body []byte) (any, error) {
	p, _, err := readPage(r, body)
	if err != nil {
		return nil, err
	}
	l, err := h.lookup(r)
	if err != nil {
		return nil, err
	}
	items, more, err := fill(p, l.Pending(r.Context()), func(d can.Digest) bool { return bytes.Compare(d[:], p.after[:]) > 0 })
	if err != nil {
		return nil, err
	}
	out := approvalsView{Items: []approvalView{}}
	for _, d := range items {
		out.Items = append(out.Items, approvalView{d.String()})
	}
	if more {
		out.Next = &out.Items[len(items)-1].Digest
	}
	return out, nil
}

// maxNamed is how many assets one request can name.
const maxNamed = 1000

// namedRequest names assets.
type namedRequest struct {
	Digests []string `json:"digests"`
}

// digests reads the digests, in the order given.
func (q namedRequest) digests() ([]can.Digest, error) {
	if n := len(q.Digests); n == 0 || n > maxNamed {
		return nil, failf(http.StatusBadRequest, "digests: want 1 to %d digests", maxNamed)
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
	l, req, ds, err := h.named(r, body)
	if err != nil {
		return nil, err
	}
	if err := do(l, ds); err != nil {
		return nil, err
	}
	return decidedView{Library: l.ID().String(), Digests: req.Digests}, nil
}

// named reads a request about assets of a library.
func (h *Handler) named(r *http.Request, body []byte) (l *cansync.Library, req namedRequest, ds []can.Digest, err error) {
	if _, err = query(r); err != nil {
		return nil, req, nil, err
	}
	if err = decode(body, &req); err != nil {
		return nil, req, nil, err
	}
	if ds, err = req.digests(); err != nil {
		return nil, req, nil, err
	}
	l, err = h.lookup(r)
	return l, req, ds, err
}
