package service

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
	"time"
)

// admin lets a request through that carries the admin token.
func (s *Service) admin(h handler) handler {
	want := sha256.Sum256([]byte(s.cfg.AdminToken))
	return func(w http.ResponseWriter, r *http.Request) error {
		if s.cfg.AdminToken == "" {
			return &requestError{status: http.StatusForbidden, msg: "admin routes are off; set admin_token in the configuration"}
		}
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		got := sha256.Sum256([]byte(token))
		if !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			return &requestError{status: http.StatusUnauthorized, msg: "want the admin token: Authorization: Bearer …"}
		}
		// These take as long as they take.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
		return h(w, r)
	}
}

// handleVerify verifies all content at full speed and answers what it found.
func (s *Service) handleVerify(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	rep, err := s.verify(ctx, nil)
	if err != nil {
		return err
	}
	return answer(w, rep)
}

// handleRebuild builds the index anew and answers what it found.
func (s *Service) handleRebuild(w http.ResponseWriter, _ *http.Request) error {
	rep, err := s.rebuild()
	if err != nil {
		return err
	}
	return answer(w, rep)
}
