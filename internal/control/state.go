// Package control holds a library's control set: what the library says of itself,
// who its members are and how they came in. From it follows who may do what.
//
// A [State] is a pure function of the records that were added, in whatever order:
// it knows no time, and what it once found valid or void stays so. A certificate
// counts when a valid record carries it, and a record counts when the certificate
// it names does; the first certificate of a library, issued by its owner key, is
// where this begins. Records that rest on a certificate not seen yet wait for it.
package control

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/record"
)

// Errors of control sets, to be matched with errors.Is.
var (
	// ErrUnknownCert says that a certificate is not in the set, or not yet. The
	// same question may have another answer later; all other refusals are final.
	ErrUnknownCert = errors.New("control: certificate not known")
	// ErrForbidden says that the author had no right to say this.
	ErrForbidden = errors.New("control: not allowed")
	// ErrExpired says that by the record's own clock the membership or invite had
	// ended before.
	ErrExpired = errors.New("control: expired")
	// ErrInvalid says that a control record does not hold together.
	ErrInvalid = errors.New("control: invalid record")
	// ErrKind says that a record is of a kind that this version does not know, or
	// not of the control set.
	ErrKind = errors.New("control: record kind not supported")
	// ErrFull says that the set has [MaxRecords].
	ErrFull = errors.New("control: set is full")
	// ErrShare says that a member, and those it let in, have used up their
	// [MaxShare], or all who are no admins their [MaxShared]. It matches [ErrFull].
	ErrShare = fmt.Errorf("%w: the share of members without the admin right is used up; let an admin do it", ErrFull)
)

// State is the control set of one library. It is not safe for concurrent use.
// Records given to it have passed record.Verifier; their bodies are kept.
type State struct {
	library [32]byte
	// valid holds the records that count; order is the order in which they came to
	// count, so that each stands behind those it rests on.
	valid map[record.ID]record.Record
	order []record.ID
	// certs holds the certificates that valid records carry.
	certs map[capability.CertID]*cert
	// newest holds the only description kept of each author and certificate.
	newest  map[speaker]record.ID
	waiting waiting
	digest  *[32]byte // of valid; nil when out of date

	// shares counts the records that each sponsor accounts for.
	shares map[capability.CertID]int
	shared int

	limit  int    // MaxRecords
	share  int    // MaxShare
	common int    // MaxShared
	verify verify // capability.Chain.Verify
}

// cert is a verified certificate and the valid records that carry it: several
// members may have admitted the same new one, each with a countersignature of its
// own. Kept is the certificate as it came first. Its admitter counted before it
// did, so that admissions never form a circle, which a later one may.
type cert struct {
	capability.Cert
	grant    capability.Grant
	carriers []record.ID
	// sponsor is who accounts for what this member says: nobody for an admin; else the
	// sponsor of the member that let it in first, or itself if an admin did.
	sponsor capability.CertID
}

type verify func(capability.Chain, [32]byte, func(capability.CertID) (capability.Grant, error)) (capability.Grant, error)

type speaker struct {
	author [32]byte
	cert   capability.CertID
}

// New returns the empty control set of a library.
func New(library [32]byte) *State {
	return &State{
		library: library,
		valid:   map[record.ID]record.Record{},
		certs:   map[capability.CertID]*cert{},
		newest:  map[speaker]record.ID{},
		waiting: newWaiting(),
		shares:  map[capability.CertID]int{},
		limit:   MaxRecords,
		share:   MaxShare,
		common:  MaxShared,
		verify:  capability.Chain.Verify,
	}
}

// Library returns the library's id.
func (s *State) Library() [32]byte { return s.library }

// Change is what adding a record did to the set.
type Change struct {
	// Added are the records that count now and did not before, each behind those
	// it rests on: the record itself, and those that had waited for it.
	Added []record.Record
	// Removed are the records that a newer one of the same author made pointless.
	Removed []record.ID
}

// Add is [State.Apply] for those who need not know what changed.
func (s *State) Add(r record.Record) (changed bool, err error) {
	c, err := s.Apply(r)
	return len(c.Added) > 0, err
}

// Apply adds a record. A record that is in the set, waits, or is older than what
// the set has of the same author changes nothing and is no error; neither is one
// that starts to wait for a certificate. A refusal is final and matches
// [ErrForbidden], [ErrExpired], [ErrInvalid] or [ErrKind]; [ErrFull] is not the
// record's fault. The set is unchanged then.
func (s *State) Apply(r record.Record) (Change, error) {
	id := r.ID()
	if _, ok := s.valid[id]; ok || s.waiting.has(id) {
		return Change{}, nil
	}
	var c Change
	if err := s.settle(item{id: id, rec: r}, &c); err != nil {
		return Change{}, err
	}
	// What waited for a certificate that counts now may make more of them count.
	for i := 0; i < len(c.Added); i++ {
		a := c.Added[i]
		if a.Kind == record.Description {
			continue
		}
		for _, w := range s.waiting.take(a.Subject) {
			// One that turns out void is gone, as if it had come later.
			_ = s.settle(w, &c)
		}
	}
	return c, nil
}

// settle admits a record, lets it wait, or says why not.
func (s *State) settle(it item, c *Change) error {
	in, missing, err := s.judge(it.rec)
	switch {
	case err != nil:
		return err
	case !missing.IsZero():
		s.waiting.put(it, missing)
		return nil
	}
	return s.admit(it, in, c)
}

// admit puts a record that counts into the set.
func (s *State) admit(it item, in *cert, c *Change) error {
	r := it.rec
	if r.Kind == record.Description {
		who := speaker{r.Author, r.Cert}
		if old, ok := s.newest[who]; ok {
			if !record.Newer(r.Header, s.valid[old].Header) {
				return nil
			}
			s.drop(old, c)
		} else if len(s.valid) >= s.limit {
			return ErrFull
		}
		s.newest[who] = it.id
	} else if len(s.valid) >= s.limit {
		return ErrFull
	}
	// Of who speaks; the owner's first device introduces itself.
	if by := s.certs[capability.CertID(r.Cert)]; by != nil && !by.sponsor.IsZero() {
		if s.shares[by.sponsor] >= s.share || s.shared >= s.common {
			return ErrShare
		}
		s.shares[by.sponsor]++
		s.shared++
	}
	if in != nil {
		if have := s.certs[in.grant.ID]; have != nil {
			have.carriers = append(have.carriers, it.id)
		} else {
			in.carriers, in.sponsor = []record.ID{it.id}, s.sponsor(in)
			s.certs[in.grant.ID] = in
		}
	}
	s.valid[it.id] = r
	s.order = append(s.order, it.id)
	s.digest = nil
	c.Added = append(c.Added, r)
	return nil
}

// sponsor returns who accounts for a certificate that begins to count.
func (s *State) sponsor(c *cert) (id capability.CertID) {
	switch by := s.certs[c.Admitter]; {
	case c.grant.Rights.Has(capability.Admin), c.Kind != capability.KindMember:
		return id
	case by != nil && !by.sponsor.IsZero():
		return by.sponsor
	}
	return c.grant.ID
}

// drop takes out a description, on which nothing rests.
func (s *State) drop(id record.ID, c *Change) {
	delete(s.valid, id)
	if i := slices.IndexFunc(c.Added, func(r record.Record) bool { return r.ID() == id }); i >= 0 {
		c.Added = slices.Delete(c.Added, i, i+1) // it came and went in one step
	} else {
		c.Removed = append(c.Removed, id)
	}
	if i := slices.Index(s.order, id); i >= 0 {
		s.order = slices.Delete(s.order, i, i+1)
	}
}

// Has reports whether the record counts.
func (s *State) Has(id record.ID) bool {
	_, ok := s.valid[id]
	return ok
}

// Get returns a record that counts.
func (s *State) Get(id record.ID) (record.Record, bool) {
	r, ok := s.valid[id]
	return r, ok
}

// Len returns the number of records that count.
func (s *State) Len() int { return len(s.valid) }

// Waiting returns the number of records that wait for a certificate.
func (s *State) Waiting() int { return s.waiting.len() }

// Records yields the records that count, each behind those it rests on: added in
// this order, none has to wait. The set must not be changed meanwhile.
func (s *State) Records() iter.Seq[record.Record] {
	return func(yield func(record.Record) bool) {
		for _, id := range s.order {
			if !yield(s.valid[id]) {
				return
			}
		}
	}
}

// Digest returns a hash of the ids of the records that count, equal for equal
// sets.
func (s *State) Digest() [32]byte {
	if s.digest == nil {
		ids := slices.SortedFunc(slices.Values(s.order), record.ID.Compare)
		h := sha256.New()
		h.Write([]byte("cansync/control/v1\x00"))
		for i := range ids {
			h.Write(ids[i][:])
		}
		s.digest = (*[32]byte)(h.Sum(nil))
	}
	return *s.digest
}

// Grant returns what a certificate of the set grants. Time is not considered. The
// error matches [ErrUnknownCert].
func (s *State) Grant(id capability.CertID) (capability.Grant, error) {
	if c := s.certs[id]; c != nil {
		return c.grant, nil
	}
	return capability.Grant{}, fmt.Errorf("%w: %s", ErrUnknownCert, id)
}

// Chain returns the verified chain that ends with a certificate of the set. The
// error matches [ErrUnknownCert].
func (s *State) Chain(id capability.CertID) (capability.Chain, error) {
	var ch capability.Chain
	for c := s.certs[id]; c != nil; c = s.certs[c.Parent] {
		ch = append(ch, c.Cert)
	}
	if len(ch) == 0 {
		return nil, fmt.Errorf("%w: %s", ErrUnknownCert, id)
	}
	slices.Reverse(ch)
	return ch, nil
}
