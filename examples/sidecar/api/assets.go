package api

import (
	"bytes"
	"net/http"
	"net/url"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
)

// The sizes of a page of assets.
const (
	defaultPage = 100
	maxPage     = 1000
)

func (h *Handler) assets(r *http.Request, body []byte) (any, error) {
	q, err := query(r, "limit", "after", "state")
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
	state := cansync.AssetState(q.Get("state"))
	switch state {
	case "", cansync.Wanted, cansync.Partial, cansync.Verified, cansync.Ingesting, cansync.Have, cansync.TrashedHere:
	default:
		return nil, failf(http.StatusBadRequest, "parameter \"state\": want one of wanted, partial, verified, ingesting, have, trashed_here")
	}
	l, err := h.lookup(r)
	if err != nil {
		return nil, err
	}
	out := assetsView{Items: []assetView{}}
	var last can.Digest
	for a, err := range l.Assets(r.Context()) {
		if err != nil {
			return nil, err
		}
		if bytes.Compare(a.Digest[:], after[:]) <= 0 || state != "" && a.State != state {
			continue
		}
		if len(out.Items) == limit { // there is at least one more
			out.Next = text(last.String())
			break
		}
		out.Items = append(out.Items, assetViewOf(a))
		last = a.Digest
	}
	return out, nil
}

// afterParam reads where the page before ended; zero is the beginning.
func afterParam(q url.Values) (after can.Digest, err error) {
	if s := q.Get("after"); s != "" {
		if after, err = can.ParseDigest(s); err != nil {
			return after, failf(http.StatusBadRequest, "parameter \"after\": want the digest in \"next\" of the page before")
		}
	}
	return after, nil
}

// digest returns the digest that the path names.
func digest(r *http.Request) (can.Digest, error) {
	d, err := can.ParseDigest(r.PathValue("digest"))
	if err != nil {
		return d, failf(http.StatusNotFound, "no such asset: its digest is 64 lower-case hexadecimal digits; GET /libraries/{id}/assets lists those there are")
	}
	return d, nil
}

func (h *Handler) asset(r *http.Request, body []byte) (any, error) {
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
	a, err := l.Asset(r.Context(), d)
	if err != nil {
		return nil, err
	}
	return assetViewOf(a), nil
}

func (h *Handler) removeAsset(r *http.Request, body []byte) (any, error) {
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
	if err := l.Remove(r.Context(), d); err != nil {
		return nil, err
	}
	return removedView{Library: l.ID().String(), Digest: d.String()}, nil
}
