package api

import (
	"iter"
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

// page is which part of a list is asked for.
type page struct {
	limit int
	after can.Digest // zero is the beginning
}

// readPage reads the parameters of a list, and those beside them that it takes.
func readPage(r *http.Request, body []byte, more ...string) (p page, q url.Values, err error) {
	if q, err = query(r, append([]string{"limit", "after"}, more...)...); err != nil {
		return p, q, err
	}
	if err := noBody(body); err != nil {
		return p, q, err
	}
	if p.limit, err = intParam(q, "limit", defaultPage, 1, maxPage); err != nil {
		return p, q, err
	}
	if s := q.Get("after"); s != "" {
		if p.after, err = can.ParseDigest(s); err != nil {
			return p, q, failf(http.StatusBadRequest, "parameter \"after\": want the digest in \"next\" of the page before")
		}
	}
	return p, q, nil
}

// fill reads a page off a list of which keep says what belongs to it, and reports
// whether there is more.
func fill[T any](p page, list iter.Seq2[T, error], keep func(T) bool) (items []T, more bool, err error) {
	for v, err := range list {
		switch {
		case err != nil:
			return nil, false, err
		case !keep(v):
		case len(items) == p.limit:
			return items, true, nil
		default:
			items = append(items, v)
		}
	}
	return items, false, nil
}

func (h *Handler) assets(r *http.Request, body []byte) (any, error) {
	p, q, err := readPage(r, body, "state")
	if err != nil {
		return nil, err
	}
	state := cansync.AssetState(q.Get("state"))
	switch state {
	case "", cansync.Wanted, cansync.Partial, cansync.Verified, cansync.Ingesting, cansync.Have, cansync.TrashedHere, cansync.NotWanted:
	default:
		return nil, failf(http.StatusBadRequest, "parameter \"state\": want one of wanted, partial, verified, ingesting, have, trashed_here, not_wanted")
	}
	l, err := h.lookup(r)
	if err != nil {
		return nil, err
	}
	items, more, err := fill(p, l.AssetsAfter(r.Context(), p.after), func(a cansync.Asset) bool { return state == "" || a.State == state })
	if err != nil {
		return nil, err
	}
	out := assetsView{Items: []assetView{}}
	for _, a := range items {
		out.Items = append(out.Items, assetViewOf(a))
	}
	if more {
		out.Next = &out.Items[len(items)-1].Digest
	}
	return out, nil
}

// digest returns the digest that the path names.
func digest(r *http.Request) (can.Digest, error) {
	d, err := can.ParseDigest(r.PathValue("digest"))
	if err != nil {
		return d, failf(http.StatusNotFound, "no such asset: its digest is 64 lower-case hexadecimal digits; GET /libraries/{id}/assets lists those there are")
	}
	return d, nil
}

// known returns the library and the asset of it that the path of a request without
// parameters names.
func (h *Handler) known(r *http.Request, body []byte) (*cansync.Library, cansync.Asset, error) {
	if err := plainRequest(r, body); err != nil {
		return nil, cansync.Asset{}, err
	}
	l, err := h.lookup(r)
	if err != nil {
		return nil, cansync.Asset{}, err
	}
	d, err := digest(r)
	if err != nil {
		return nil, cansync.Asset{}, err
	}
	a, err := l.Asset(r.Context(), d)
	return l, a, err
}

func (h *Handler) asset(r *http.Request, body []byte) (any, error) {
	_, a, err := h.known(r, body)
	if err != nil {
		return nil, err
	}
	return assetViewOf(a), nil
}

func (h *Handler) removeAsset(r *http.Request, body []byte) (any, error) {
	l, a, err := h.known(r, body)
	if err != nil {
		return nil, err
	}
	if err := l.Remove(r.Context(), a.Digest); err != nil {
		return nil, err
	}
	return removedView{Library: l.ID().String(), Digest: a.Digest.String()}, nil
}

// holders asks the connected members who holds an asset.
func (h *Handler) holders(r *http.Request, body []byte) (any, error) {
	l, a, err := h.known(r, body)
	if err != nil {
		return nil, err
	}
	who, err := l.Holders(r.Context(), a.Digest)
	if err != nil {
		return nil, err
	}
	out := []holderView{}
	for _, id := range who[0] {
		out = append(out, holderView{ID: id.String(), Self: id == h.node.PeerID()})
	}
	return out, nil
}
