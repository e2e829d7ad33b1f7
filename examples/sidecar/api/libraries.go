package api

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/cansync/cansync"
)

// countTime bounds how long creating a library waits for the CAN Service to list
// what matches.
const countTime = 20 * time.Second

type createRequest struct {
	Name   string         `json:"name"`
	Filter cansync.Filter `json:"filter"`
	localChange
}

func (h *Handler) create(r *http.Request, body []byte) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	var req createRequest
	if err := decode(body, &req); err != nil {
		return nil, err
	}
	// The answer is of use without the count: a service that hangs may not keep the
	// library from being made.
	ctx := r.Context()
	if len(req.Filter.Hashes) == 0 {
		limited, cancel := context.WithTimeout(ctx, countTime)
		defer cancel()
		ctx = limited
	}
	if req.Name == "" {
		return nil, failf(http.StatusBadRequest, "name: a name is required")
	}
	if err := req.check(); err != nil {
		return nil, err
	}
	preview, err := h.preview(ctx, req.Filter)
	if err != nil {
		return nil, err
	}
	lib, err := h.node.CreateLibraryWith(r.Context(), req.Name, preview.Filter, req.choices())
	if err != nil {
		return nil, err
	}
	v, err := viewOf(r.Context(), lib)
	if err != nil {
		return nil, err
	}
	out := createdView{libraryView: v, UnknownHashes: orEmpty(preview.Unknown)}
	if preview.Matches >= 0 {
		out.Matches = &preview.Matches
	}
	return out, nil
}

// preview resolves a filter. The CAN Service is asked for each hash by URL, where
// a ticket has no place.
func (h *Handler) preview(ctx context.Context, f cansync.Filter) (cansync.Preview, error) {
	if err := noTickets("filter", f); err != nil {
		return cansync.Preview{}, err
	}
	return h.node.Preview(ctx, f)
}

// noTickets refuses tickets among the hashes of a filter.
func noTickets(key string, f cansync.Filter) error {
	if slices.ContainsFunc(f.Hashes, ticketLike.MatchString) {
		return failf(http.StatusBadRequest, "%s.hashes: a ticket is no hash; POST it to /join", key)
	}
	return nil
}

func (h *Handler) libraries(r *http.Request, body []byte) (any, error) {
	if err := plainRequest(r, body); err != nil {
		return nil, err
	}
	out := []libraryView{}
	for _, l := range h.node.Libraries() {
		v, err := viewOf(r.Context(), l)
		if gone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// lookup returns the library that the path names.
func (h *Handler) lookup(r *http.Request) (*cansync.Library, error) {
	// What was asked for is not repeated: it might be a ticket in the wrong place.
	none := failf(http.StatusNotFound, "no such library here; GET /libraries lists those there are")
	id, err := cansync.ParseLibraryID(r.PathValue("id"))
	if err != nil {
		return nil, none
	}
	l, err := h.node.Library(id)
	if gone(err) {
		return nil, none
	}
	return l, err
}

func (h *Handler) library(r *http.Request, body []byte) (any, error) {
	if err := plainRequest(r, body); err != nil {
		return nil, err
	}
	l, err := h.lookup(r)
	if err != nil {
		return nil, err
	}
	return viewOf(r.Context(), l)
}

func (h *Handler) leave(r *http.Request, body []byte) (any, error) {
	q, err := query(r, "purge", "confirm")
	if err != nil {
		return nil, err
	}
	if err := noBody(body); err != nil {
		return nil, err
	}
	purge, err := boolParam(q, "purge")
	if err != nil {
		return nil, err
	}
	l, err := h.lookup(r)
	if err != nil {
		return nil, err
	}
	out := leftView{ID: l.ID().String(), Name: l.Name(), Purged: purge}
	// Half a leaving would be worse than one that nobody waits for.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), requestTime)
	defer cancel()
	if err := l.Leave(ctx, cansync.LeaveOptions{Purge: purge, Confirm: q.Get("confirm")}); err != nil {
		return nil, err
	}
	return out, nil
}

type changeRequest struct {
	Filter       *cansync.Filter `json:"filter"`
	DeletePolicy *string         `json:"delete_policy"`
	localChange
}

type changedView struct {
	libraryView
	Matches       *int     `json:"matches,omitempty"`
	UnknownHashes []string `json:"unknown_hashes,omitempty"`
}

func (h *Handler) change(r *http.Request, body []byte) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	var req changeRequest
	if err := decode(body, &req); err != nil {
		return nil, err
	}
	if req == (changeRequest{}) {
		return nil, failf(http.StatusBadRequest, "nothing to change: give filter, delete_policy, mode, view, publish, limits or quota")
	}
	if p := req.DeletePolicy; p != nil && *p != string(cansync.KeepRemoved) && *p != string(cansync.TrashRemoved) {
		return nil, failf(http.StatusBadRequest, "delete_policy: want \"keep\" or \"trash\"")
	}
	if err := req.check(); err != nil {
		return nil, err
	}
	l, err := h.lookup(r)
	if err != nil {
		return nil, err
	}
	var out changedView
	if req.Filter != nil {
		preview, err := h.preview(r.Context(), *req.Filter)
		if err != nil {
			return nil, err
		}
		if err := l.SetFilter(r.Context(), preview.Filter); err != nil {
			return nil, err
		}
		if preview.Matches >= 0 {
			out.Matches = &preview.Matches
		}
		out.UnknownHashes = preview.Unknown
	}
	if req.DeletePolicy != nil {
		if err := l.SetDeletePolicy(r.Context(), cansync.DeletePolicy(*req.DeletePolicy)); err != nil {
			return nil, err
		}
	}
	if err := req.apply(r, l); err != nil {
		return nil, err
	}
	out.libraryView, err = viewOf(r.Context(), l)
	return out, err
}

func (h *Handler) pause(r *http.Request, body []byte) (any, error) {
	return h.order(r, body, (*cansync.Library).Pause)
}

func (h *Handler) resume(r *http.Request, body []byte) (any, error) {
	return h.order(r, body, (*cansync.Library).Resume)
}

func (h *Handler) confirmRemovals(r *http.Request, body []byte) (any, error) {
	return h.order(r, body, (*cansync.Library).ConfirmRemovals)
}

func (h *Handler) dismissRemovals(r *http.Request, body []byte) (any, error) {
	return h.order(r, body, (*cansync.Library).DismissRemovals)
}

// order does one thing with a library and answers with the library.
func (h *Handler) order(r *http.Request, body []byte, do func(*cansync.Library) error) (any, error) {
	if err := plainRequest(r, body); err != nil {
		return nil, err
	}
	l, err := h.lookup(r)
	if err != nil {
		return nil, err
	}
	if err := do(l); err != nil {
		return nil, err
	}
	return viewOf(r.Context(), l)
}

func (h *Handler) members(r *http.Request, body []byte) (any, error) {
	if err := plainRequest(r, body); err != nil {
		return nil, err
	}
	l, err := h.lookup(r)
	if err != nil {
		return nil, err
	}
	members, err := l.Members()
	if err != nil {
		return nil, err
	}
	out := make([]memberView, 0, len(members))
	for _, m := range members {
		out = append(out, memberView{
			ID: m.Peer.String(), Access: accessOf(m.Access, m.Owner), Rights: rightsOf(m.Access), Self: m.Self,
			Connected: m.Connected, Ended: m.Ended, JoinedAt: stamp(m.Joined), ExpiresAt: stamp(m.Until),
		})
	}
	return out, nil
}
