package cantest

import (
	"bytes"
	"io"
	"maps"

	"github.com/cansync/cansync/can"
)

// Add stores content behind the client's back, as another program on the same
// machine would. It is not an ingest in the ledger.
func (s *Service) Add(b []byte, m can.Metadata) can.Asset { return s.AddAt(b, m, 0) }

// AddAt is Add with an ingest time in Unix milliseconds, whatever the service's
// features; 0 is now.
func (s *Service) AddAt(b []byte, m can.Metadata, timestamp int64) can.Asset {
	c := bytes.Clone(b)
	return s.AddFunc(func() io.ReadSeeker { return bytes.NewReader(c) }, m, timestamp)
}

// AddFunc stores an asset whose content open yields each time it is read; see
// [Generated]. open must yield the same bytes each time and must not fail. The
// content is read once to hash it.
func (s *Service) AddFunc(open func() io.ReadSeeker, m can.Metadata, timestamp int64) can.Asset {
	hashing := s.opts
	hashing.DiscardContent, hashing.MaxSize, hashing.Lacks = true, 0, 0
	got, err := s.receiveWith(hashing, open(), timestamp)
	if err != nil {
		panic("cantest: content given to AddFunc fails: " + err.Error())
	}
	got.content = open
	return s.store(got, m)
}

// Get returns an asset, trashed or not.
func (s *Service) Get(handle string) (can.Asset, bool) {
	e, ok := s.get(handle)
	return e.asset, ok
}

// Content returns the bytes of an asset.
func (s *Service) Content(handle string) ([]byte, bool) {
	e, ok := s.get(handle)
	if !ok {
		return nil, false
	}
	r := s.open(e)
	if r == nil {
		return nil, false
	}
	b, err := io.ReadAll(r)
	return b, err == nil
}

// Digests returns the digests of the live assets with the number of assets that
// have this content; more than one is a duplicate.
func (s *Service) Digests() map[can.Digest]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.live)
}

// Holdings returns the live assets by the digest of their content, the oldest
// first. Unlike List it counts as no call, and no fault applies.
func (s *Service) Holdings() map[can.Digest][]can.Asset {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[can.Digest][]can.Asset, len(s.live))
	s.listing.Scan(func(e *entry) bool {
		out[e.digest] = append(out[e.digest], clone(e.asset))
		return true
	})
	return out
}

// Duplicates returns the digests that more than one live asset has.
func (s *Service) Duplicates() map[can.Digest]int {
	out := s.Digests()
	maps.DeleteFunc(out, func(_ can.Digest, n int) bool { return n < 2 })
	return out
}

// Len returns the number of live assets.
func (s *Service) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listing.Len()
}

// Edit changes metadata behind the client's back; it reports whether the asset
// is there.
func (s *Service) Edit(handle string, up can.Update) bool {
	_, ok := s.update(handle, up)
	return ok
}

// TrashNow soft-deletes an asset behind the client's back; it reports whether the
// asset is there.
func (s *Service) TrashNow(handle string) bool { return s.trash(handle) }

// Delete removes an asset without a trace: no event, no change, as if it had
// never been. It reports whether the asset was there.
func (s *Service) Delete(handle string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.assets[handle]
	if !ok {
		return false
	}
	if !e.asset.Trashed {
		s.unlist(e)
	}
	s.changes.Delete(e)
	delete(s.assets, handle)
	return true
}

// Corrupt replaces the content of an asset while its handle and size stay as
// they are, as a failing disk does. It reports whether the asset is there.
func (s *Service) Corrupt(handle string, b []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.assets[handle]
	if ok {
		e.content = literal(bytes.Clone(b))
	}
	return ok
}
