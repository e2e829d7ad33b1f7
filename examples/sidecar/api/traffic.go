package api

import (
	"bytes"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/transport"
)

// Limits of traffic, progress, and what is fetched first.

// limitsView are limits in force, in bytes per second; 0 is none.
type limitsView struct {
	Upload   int64 `json:"upload"`
	Download int64 `json:"download"`
}

func limitsOf(l cansync.Limits) limitsView { return limitsView{l.Upload, l.Download} }

type nodeLimitsView struct {
	limitsView
	// Peers are those that have limits of their own, ordered by id.
	Peers []peerLimitsView `json:"peers"`
}

type peerLimitsView struct {
	ID string `json:"id"`
	limitsView
}

type progressView struct {
	Library    string `json:"library"`
	Assets     int64  `json:"assets"`
	AssetsHere int64  `json:"assets_here"`
	// AssetsTrashed and BytesTrashed are neither here nor on their way.
	AssetsTrashed int64 `json:"assets_trashed_here"`
	Bytes         int64 `json:"bytes"`
	BytesHere     int64 `json:"bytes_here"`
	BytesTrashed  int64 `json:"bytes_trashed_here"`
	Rate          int64 `json:"rate"`
	UploadRate    int64 `json:"upload_rate"`
	// ETASecs is nil when nothing is missing and when it can't be known.
	ETASecs   *int64         `json:"eta_secs"`
	Transfers []transferView `json:"transfers"`
}

type transferView struct {
	Digest    string `json:"digest"`
	Bytes     int64  `json:"bytes"`
	BytesHere int64  `json:"bytes_here"`
	Rate      int64  `json:"rate"`
}

type askedView struct {
	Library string `json:"library"`
	// Digests are those that the library holds, Unknown the others.
	Digests []string `json:"digests"`
	Unknown []string `json:"unknown"`
}

// limitsChange changes limits; a key that is absent leaves its direction as it is.
type limitsChange struct {
	Upload   *int64 `json:"upload"`
	Download *int64 `json:"download"`
}

// check looks at a change; prefix is put before the keys in errors.
func (c limitsChange) check(prefix string) error {
	if c == (limitsChange{}) {
		return failf(http.StatusBadRequest, "nothing to change: give %[1]supload or %[1]sdownload", prefix)
	}
	for _, one := range []struct {
		key string
		n   *int64
	}{{"upload", c.Upload}, {"download", c.Download}} {
		if one.n != nil && *one.n < 0 {
			return failf(http.StatusBadRequest, "%s%s: want a whole number of bytes per second, 0 for no limit", prefix, one.key)
		}
	}
	return nil
}

// onto returns limits with the change made to them.
func (c limitsChange) onto(l cansync.Limits) cansync.Limits {
	if c.Upload != nil {
		l.Upload = *c.Upload
	}
	if c.Download != nil {
		l.Download = *c.Download
	}
	return l
}

// readLimits reads the body of a request that changes limits.
func readLimits(r *http.Request, body []byte) (c limitsChange, err error) {
	if _, err := query(r); err != nil {
		return c, err
	}
	if err := decode(body, &c); err != nil {
		return c, err
	}
	return c, c.check("")
}

func (h *Handler) limits(r *http.Request, body []byte) (any, error) {
	if err := plainRequest(r, body); err != nil {
		return nil, err
	}
	return h.limitsNow(), nil
}

func (h *Handler) limitsNow() nodeLimitsView {
	v := nodeLimitsView{limitsView: limitsOf(h.node.Limits()), Peers: []peerLimitsView{}}
	all := h.node.PeerLimits()
	ids := make([]transport.PeerID, 0, len(all))
	for id := range all {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b transport.PeerID) int { return bytes.Compare(a[:], b[:]) })
	for _, id := range ids {
		v.Peers = append(v.Peers, peerLimitsView{id.String(), limitsOf(all[id])})
	}
	return v
}

func (h *Handler) changeLimits(r *http.Request, body []byte) (any, error) {
	c, err := readLimits(r, body)
	if err != nil {
		return nil, err
	}
	if err := h.node.SetLimits(c.onto(h.node.Limits())); err != nil {
		return nil, err
	}
	return h.limitsNow(), nil
}

// peer returns the peer that the path names. It need not be connected.
func peer(r *http.Request) (transport.PeerID, error) {
	id, err := transport.ParsePeerID(r.PathValue("peer"))
	if err != nil {
		return id, failf(http.StatusNotFound, "no such peer; GET /peers lists those that are connected, GET /libraries/{id}/members those of a library")
	}
	return id, nil
}

func (h *Handler) peerLimits(r *http.Request, body []byte) (any, error) {
	if err := plainRequest(r, body); err != nil {
		return nil, err
	}
	id, err := peer(r)
	if err != nil {
		return nil, err
	}
	return peerLimitsView{id.String(), limitsOf(h.node.PeerLimits()[id])}, nil
}

func (h *Handler) changePeerLimits(r *http.Request, body []byte) (any, error) {
	c, err := readLimits(r, body)
	if err != nil {
		return nil, err
	}
	id, err := peer(r)
	if err != nil {
		return nil, err
	}
	l := c.onto(h.node.PeerLimits()[id])
	if err := h.node.SetPeerLimits(id, l); err != nil {
		return nil, err
	}
	return peerLimitsView{id.String(), limitsOf(h.node.PeerLimits()[id])}, nil
}

func (h *Handler) progress(r *http.Request, body []byte) (any, error) {
	if err := plainRequest(r, body); err != nil {
		return nil, err
	}
	l, err := h.lookup(r)
	if err != nil {
		return nil, err
	}
	p, err := l.Progress(r.Context())
	if err != nil {
		return nil, err
	}
	return progressViewOf(l.ID(), p), nil
}

func progressViewOf(id cansync.LibraryID, p cansync.Progress) progressView {
	v := progressView{
		Library: id.String(), Assets: p.Assets, AssetsHere: p.AssetsDone, AssetsTrashed: p.AssetsTrashed,
		Bytes: p.Bytes, BytesHere: p.BytesDone, BytesTrashed: p.BytesTrashed,
		Rate: p.Rate, UploadRate: p.UploadRate, ETASecs: eta(p.ETA), Transfers: []transferView{},
	}
	for _, t := range p.Transfers {
		v.Transfers = append(v.Transfers, transferView{t.Digest.String(), t.Total, t.Done, t.Rate})
	}
	return v
}

// eta is a duration in seconds, rounded up; nil for 0.
func eta(d time.Duration) *int64 {
	if d <= 0 {
		return nil
	}
	secs := int64((d-1)/time.Second) + 1
	return &secs
}

// fetch fetches assets on demand, whatever the mode but paused.
func (h *Handler) fetch(r *http.Request, body []byte) (any, error) {
	return h.ask(r, body, func(l *cansync.Library, ds []can.Digest) error { return l.Fetch(r.Context(), ds...) })
}

// prioritize puts assets before all others that are fetched anyway.
func (h *Handler) prioritize(r *http.Request, body []byte) (any, error) {
	return h.ask(r, body, func(l *cansync.Library, ds []can.Digest) error {
		switch m := l.Mode(); m {
		case cansync.AnnounceOnly, cansync.RecordsOnly:
			return failf(http.StatusConflict, "the mode %s fetches nothing that could come first; POST the assets to …/fetch", m)
		}
		return l.Prioritize(r.Context(), ds...)
	})
}

// ask does something with the named assets that the library holds, unless it is
// paused.
func (h *Handler) ask(r *http.Request, body []byte, do func(*cansync.Library, []can.Digest) error) (any, error) {
	l, req, ds, err := h.named(r, body)
	if err != nil {
		return nil, err
	}
	out := askedView{Library: l.ID().String(), Digests: []string{}, Unknown: []string{}}
	known := ds[:0]
	for i, d := range ds {
		switch _, err := l.Asset(r.Context(), d); {
		case errors.Is(err, cansync.ErrNoAsset):
			out.Unknown = append(out.Unknown, req.Digests[i])
		case err != nil:
			return nil, err
		default:
			out.Digests = append(out.Digests, req.Digests[i])
			known = append(known, d)
		}
	}
	if len(known) == 0 {
		return nil, failf(http.StatusNotFound, "the library holds none of these assets; GET /libraries/{id}/assets lists those there are")
	}
	if l.Mode() == cansync.Paused {
		return nil, failf(http.StatusConflict, "the library is paused; resume it first, or choose the mode records-only")
	}
	if err := do(l, known); err != nil {
		return nil, err
	}
	return out, nil
}
