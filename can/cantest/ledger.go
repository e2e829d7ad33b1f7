package cantest

import (
	"maps"
	"slices"
	"time"

	"github.com/cansync/cansync/can"
)

// Route names a call of the contract.
type Route string

// The routes. RouteEvent is not a call but one event about to be delivered.
const (
	RouteIngest  Route = "ingest"
	RouteList    Route = "list"
	RouteChanges Route = "changes"
	RouteAsset   Route = "asset"
	RouteMeta    Route = "meta"
	RouteUpdate  Route = "update"
	RouteTrash   Route = "trash"
	RouteThumb   Route = "thumb"
	RouteSearch  Route = "search"
	RouteEvents  Route = "events"
	RouteEvent   Route = "event"
)

// Received is an ingest whose content arrived in full, whatever was answered.
type Received struct {
	At time.Time
	// Digest is recomputed from the bytes that arrived.
	Digest can.Digest
	Size   int64
	// Handle is the asset that it became, or empty when a fault kept it from
	// being stored.
	Handle string
	// Created is false when the asset was there already.
	Created bool
	// Answered says that the client was told the truth about it.
	Answered bool
}

type ledger struct {
	received []Received
	calls    map[Route]int
	assets   map[string]int // reads of content per handle
}

func newLedger() ledger { return ledger{calls: map[Route]int{}, assets: map[string]int{}} }

// Ledger returns all ingests that arrived in full, in order.
func (s *Service) Ledger() []Received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.ledger.received)
}

// Posts returns how often each content arrived in an ingest.
func (s *Service) Posts() map[can.Digest]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[can.Digest]int, len(s.ledger.received))
	for _, r := range s.ledger.received {
		out[r.Digest]++
	}
	return out
}

// Calls returns the number of calls per route, failed ones included.
func (s *Service) Calls() map[Route]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.ledger.calls)
}

// Writes returns the number of calls that could change the service.
func (s *Service) Writes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ledger.calls[RouteIngest] + s.ledger.calls[RouteUpdate] + s.ledger.calls[RouteTrash]
}

// Reads returns how often the content of an asset was asked for.
func (s *Service) Reads(handle string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ledger.assets[handle]
}

func (s *Service) record(r Received) {
	r.At = s.opts.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ledger.received = append(s.ledger.received, r)
}

func (s *Service) exists(handle string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.assets[handle]
	return ok
}
