package api

import (
	"net/http"
	"time"

	"github.com/cansync/cansync"
)

type inviteRequest struct {
	Access        *string `json:"access"`
	ExpiresInSecs *int64  `json:"expires_in_secs"`
	CanInvite     *bool   `json:"can_invite"`
	MemberForSecs *int64  `json:"member_for_secs"`
}

// options returns what a request asks for. Without an access the ticket lets its
// holder read, write and invite; with one it does not let invite unless told so.
func (q inviteRequest) options(now time.Time) (cansync.InviteOptions, error) {
	var o cansync.InviteOptions
	if q.Access != nil {
		switch *q.Access {
		case "read":
			o.Access = cansync.Read
		case "write":
			o.Access = cansync.Read | cansync.Write
		default:
			return o, failf(http.StatusBadRequest, "access: want \"read\" or \"write\"")
		}
		if q.CanInvite != nil && *q.CanInvite {
			o.Access |= cansync.Invite
		}
	} else if q.CanInvite != nil && !*q.CanInvite {
		o.Access = cansync.Read | cansync.Write
	}
	const most = int64(cansync.MaxInviteValidity / time.Second)
	if n := q.ExpiresInSecs; n != nil {
		if *n < 1 || *n > most {
			return o, failf(http.StatusBadRequest, "expires_in_secs: want a whole number from 1 to %d", most)
		}
		o.ValidFor = time.Duration(*n) * time.Second
	}
	if n := q.MemberForSecs; n != nil {
		if *n < 1 || *n > most {
			return o, failf(http.StatusBadRequest, "member_for_secs: want a whole number from 1 to %d", most)
		}
		o.MemberUntil = now.Add(time.Duration(*n) * time.Second)
	}
	return o, nil
}

func (h *Handler) invite(r *http.Request, body []byte) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	var req inviteRequest
	if len(body) > 0 {
		if err := decode(body, &req); err != nil {
			return nil, err
		}
	}
	now := time.Now()
	o, err := req.options(now)
	if err != nil {
		return nil, err
	}
	l, err := h.lookup(r)
	if err != nil {
		return nil, err
	}
	t, err := l.Invite(r.Context(), o)
	if err != nil {
		return nil, err
	}
	secret, err := t.ExportSecret()
	if err != nil {
		return nil, err
	}
	return inviteView{
		Ticket: secret, Library: l.ID().String(), Name: t.Name(), Access: accessOf(t.Access(), false),
		Rights: rightsOf(t.Access()), ExpiresAt: t.Expires().UTC().Format(time.RFC3339),
		ExpiresInSecs: max(0, int64(t.Expires().Sub(now).Round(time.Second)/time.Second)), MemberUntil: stamp(o.MemberUntil),
	}, nil
}

type joinRequest struct {
	Ticket string `json:"ticket"`
	localChange
}

func (h *Handler) join(r *http.Request, body []byte) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	var req joinRequest
	if err := decode(body, &req); err != nil {
		return nil, err
	}
	if req.Ticket == "" {
		return nil, failf(http.StatusBadRequest, "ticket: a ticket is required")
	}
	if err := req.check(); err != nil {
		return nil, err
	}
	t, err := cansync.ParseTicket(req.Ticket)
	if err != nil {
		return nil, err
	}
	l, err := h.node.JoinWith(r.Context(), t, req.choices())
	if err != nil {
		return nil, err
	}
	return viewOf(r.Context(), l)
}
