// Package control holds a library's control set: what the library says of itself,
// who its members are and how they came in. From it follows who may do what.
//
// A [State] is a pure function of the records that were added, in whatever order:
// it knows no time, and what it once found valid or void stays so. A certificate
// counts when a valid record carries it, and a record counts when the certificate
// it names does; the first certificate of a library, issued by its owner key, is
// where this begins. Records that rest on a certificate not seen yet wait for it.
// Of more records than [Limits] allow it keeps those that follow from the records
// themselves; see [State.Apply].
package control

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"maps"
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
	// ErrFull says that the record has no place among the [Limits.Records] of the set.
	ErrFull = errors.New("control: set is full")
	// ErrShare says that it has none among the [Limits.Share] of a member and those it
	// let in, or the [Limits.Shared] of all who are no admins. It matches [ErrFull].
	ErrShare = fmt.Errorf("%w: the share of members without the admin right is used up; let an admin do it", ErrFull)
)

// State is the control set of one library. It is not safe for concurrent use.
// Records given to it have passed record.Verifier; their bodies are kept.
type State struct {
	library [32]byte
	// valid holds the records that count; order is one in which each stands behind
	// those it rests on.
	valid map[record.ID]*entry
	order []*entry
	// certs holds the certificates that valid records carry.
	certs map[capability.CertID]*cert
	// newest holds the only description kept of each author and certificate.
	newest  map[speaker]record.ID
	waiting waiting
	digest  *[32]byte // of valid; nil when out of date
	shared  int       // records for which no admin answers

	limits Limits
	verify verify // capability.Chain.Verify
}

// entry is a record that counts.
type entry struct {
	record.Record
	id    record.ID
	in    *cert             // the certificate that it carries, if any
	payer capability.CertID // see State.payer

	// Of the last time that choose looked: what the record rests on and is still to come,
	// and whether a group accounts for it.
	needs int
	done  bool
}

// rests returns the certificates that the record rests on, zero where there is none.
func (e *entry) rests() (ids [2]capability.CertID) {
	by := capability.CertID(e.Cert)
	if e.in == nil || e.in.grant.ID != by {
		ids[0] = by
	}
	if e.in != nil && e.in.Parent != by {
		ids[1] = e.in.Parent
	}
	return ids
}

// cert is a verified certificate and the valid records that carry it: several
// members may have admitted the same new one, each with a countersignature of its
// own. Kept is the certificate as it came first. Its admitter counted before it
// did, so that admissions never form a circle, which a later one may.
type cert struct {
	capability.Cert
	grant    capability.Grant
	carriers []record.ID
}

type verify func(capability.Chain, [32]byte, func(capability.CertID) (capability.Grant, error)) (capability.Grant, error)

type speaker struct {
	author [32]byte
	cert   capability.CertID
}

// New returns the empty control set of a library.
func New(library [32]byte, limits Limits) *State {
	return &State{
		library: library,
		valid:   map[record.ID]*entry{},
		certs:   map[capability.CertID]*cert{},
		newest:  map[speaker]record.ID{},
		waiting: newWaiting(),
		limits:  limits.withDefaults(),
		verify:  capability.Chain.Verify,
	}
}

// Library returns the library's id.
func (s *State) Library() [32]byte { return s.library }

// Change is what adding records did to the set.
type Change struct {
	// Added are the records that count now and did not before, each behind those
	// it rests on: those given, and those that had waited for them.
	Added []record.Record
	// Removed are the records that a newer one of the same author made pointless, or
	// that gave way to others in a full set.
	Removed []record.ID
	// Lost says that certificates of members no longer count, since what carried them
	// gave way.
	Lost bool
}

// Add is [State.Apply] for one record and those who need not know what changed.
func (s *State) Add(r record.Record) (changed bool, err error) {
	c, errs := s.Apply(r)
	return len(c.Added) > 0, errs[0]
}

// Apply adds records, each of which has its own error. A record that is in the set,
// waits, or is older than what the set has of the same author changes nothing and is no
// error; neither is one that starts to wait for a certificate. A refusal is final and
// matches [ErrForbidden], [ErrExpired], [ErrInvalid] or [ErrKind]; [ErrFull], which is
// not the record's fault, holds until the set changes. A refused record leaves the
// set as it is.
//
// Sets that were given the same records, in whatever order and until no more of them are
// taken, are the same.
func (s *State) Apply(recs ...record.Record) (Change, []error) {
	var c Change
	errs := make([]error, len(recs))
	for i, r := range recs {
		id := r.ID()
		if _, ok := s.valid[id]; ok || s.waiting.has(id) {
			continue
		}
		errs[i] = s.add(item{id: id, rec: r}, &c)
	}
	if out := s.prune(&c); len(out) > 0 {
		for i, r := range recs {
			if err := out[r.ID()]; err != nil {
				errs[i] = err
			}
		}
	}
	return c, errs
}

// add settles a record and those that have waited for it.
func (s *State) add(it item, c *Change) error {
	in, err := s.settle(it, c)
	if err != nil {
		return err
	}
	for todo := []*cert{in}; len(todo) > 0; todo = todo[1:] {
		if todo[0] == nil {
			continue
		}
		for _, w := range s.waiting.take(todo[0].grant.ID) {
			// One that turns out void is gone, as if it had come later.
			if in, err := s.settle(w, c); err == nil {
				todo = append(todo, in)
			}
		}
	}
	return nil
}

// settle admits a record, lets it wait, or says why not. It returns the certificate
// that the record brings.
func (s *State) settle(it item, c *Change) (*cert, error) {
	in, missing, err := s.judge(it.rec)
	switch {
	case err != nil:
		return nil, err
	case !missing.IsZero():
		s.waiting.put(it, missing)
		return nil, nil
	}
	e := &entry{Record: it.rec, id: it.id, in: in}
	if e.Kind == record.Description {
		who := speaker{e.Author, e.Cert}
		if old, ok := s.newest[who]; ok {
			if !record.Newer(e.Header, s.valid[old].Header) {
				return nil, nil
			}
			s.drop(old, c)
		}
	} else {
		e.payer = s.payer(e.Record, in)
	}
	s.put(e)
	c.Added = append(c.Added, e.Record)
	return in, nil
}

// put makes a record count.
func (s *State) put(e *entry) {
	switch {
	case e.Kind == record.Description:
		s.newest[speaker{e.Author, e.Cert}] = e.id
	case !e.payer.IsZero():
		s.shared++
	}
	if e.in != nil {
		if have := s.certs[e.in.grant.ID]; have != nil {
			have.carriers = append(have.carriers, e.id)
		} else {
			e.in.carriers = []record.ID{e.id}
			s.certs[e.in.grant.ID] = e.in
		}
	}
	s.valid[e.id] = e
	s.order = append(s.order, e)
	s.digest = nil
}

// prune takes out what the set does not keep, and says why of each record. While
// no limit can be reached, whatever the order, it has nothing to look for.
func (s *State) prune(c *Change) map[record.ID]error {
	claims := len(s.valid) - len(s.newest)
	if s.shared <= min(s.limits.Share, s.limits.Shared) && claims <= s.limits.Records {
		return nil
	}
	keep := s.choose()
	if len(keep) == claims {
		return nil
	}
	was := s.order
	s.valid, s.certs, s.newest = map[record.ID]*entry{}, map[capability.CertID]*cert{}, map[speaker]record.ID{}
	s.order, s.shared, s.digest = make([]*entry, 0, len(keep)), 0, nil
	for _, e := range keep {
		s.put(e)
	}
	for _, e := range was {
		if e.Kind == record.Description && s.certs[capability.CertID(e.Cert)] != nil {
			s.put(e)
		}
	}
	out := map[record.ID]error{}
	for _, e := range was {
		if s.valid[e.id] == nil {
			out[e.id] = ErrFull
			if !e.payer.IsZero() {
				out[e.id] = ErrShare
			}
		}
	}
	fresh := make(map[record.ID]bool, len(c.Added))
	c.Added = slices.DeleteFunc(c.Added, func(r record.Record) bool {
		id := r.ID()
		fresh[id] = true
		return out[id] != nil
	})
	for _, e := range was {
		if out[e.id] == nil || fresh[e.id] {
			continue // it is still there, or came and went in one step
		}
		c.Removed = append(c.Removed, e.id)
		if e.in != nil && e.in.Kind == capability.KindMember && s.certs[e.in.grant.ID] == nil {
			c.Lost = true
		}
	}
	return out
}

// drop takes out a description, on which nothing rests.
func (s *State) drop(id record.ID, c *Change) {
	delete(s.valid, id)
	if i := slices.IndexFunc(c.Added, func(r record.Record) bool { return r.ID() == id }); i >= 0 {
		c.Added = slices.Delete(c.Added, i, i+1) // it came and went in one step
	} else {
		c.Removed = append(c.Removed, id)
	}
	if i := slices.IndexFunc(s.order, func(e *entry) bool { return e.id == id }); i >= 0 {
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
	if e := s.valid[id]; e != nil {
		return e.Record, true
	}
	return record.Record{}, false
}

// Len returns the number of records that count.
func (s *State) Len() int { return len(s.valid) }

// Waiting returns the number of records that wait for a certificate.
func (s *State) Waiting() int { return s.waiting.len() }

// Records yields the records that count, each behind those it rests on: added in
// this order, none has to wait. The set must not be changed meanwhile.
func (s *State) Records() iter.Seq[record.Record] {
	return func(yield func(record.Record) bool) {
		for _, e := range s.order {
			if !yield(e.Record) {
				return
			}
		}
	}
}

// Digest returns a hash of the ids of the records that count, equal for equal
// sets.
func (s *State) Digest() [32]byte {
	if s.digest == nil {
		ids := slices.SortedFunc(maps.Keys(s.valid), record.ID.Compare)
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
