package cantest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"mime"
	"path"
	"slices"
	"strconv"
	"sync"

	"github.com/cansync/cansync/can"
	"github.com/tidwall/btree"
)

// Service is an in-memory CAN Service. It is safe for concurrent use. Close
// releases calls that hang in a fault.
type Service struct {
	opts Options
	done chan struct{}

	mu       sync.Mutex
	closed   bool
	down     bool
	assets   map[string]*entry
	listing  *btree.BTreeG[*entry] // by timestamp, then age; without trashed ones
	changes  *btree.BTreeG[*entry] // by last change
	live     map[can.Digest]int
	seq      uint64
	rng      *rand.Rand
	watchers map[*watcher]struct{}
	faults   []*Injected
	ledger   ledger
}

type entry struct {
	asset   can.Asset
	digest  can.Digest
	content content // nil: discarded
	age     uint64  // order of creation
	change  uint64  // order of the last change
}

// New returns an empty service.
func New(opts Options) *Service {
	s := &Service{
		opts: opts.withDefaults(), done: make(chan struct{}),
		assets: map[string]*entry{}, live: map[can.Digest]int{},
		rng:      rand.New(rand.NewPCG(opts.Seed, 0xca7)),
		watchers: map[*watcher]struct{}{},
		ledger:   newLedger(),
	}
	nolocks := btree.Options{NoLocks: true}
	s.listing = btree.NewBTreeGOptions(func(a, b *entry) bool {
		if a.asset.Timestamp != b.asset.Timestamp {
			return a.asset.Timestamp < b.asset.Timestamp
		}
		return a.age < b.age
	}, nolocks)
	s.changes = btree.NewBTreeGOptions(func(a, b *entry) bool { return a.change < b.change }, nolocks)
	for _, f := range opts.Faults {
		s.Inject(f)
	}
	return s
}

// Close releases calls that hang in a fault and ends watches. The assets stay
// readable.
func (s *Service) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
	return nil
}

// SetDown makes the service refuse connections, or takes that back. Watches end.
func (s *Service) SetDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
	if down {
		for w := range s.watchers {
			w.kick()
		}
	}
}

func (s *Service) isDown() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.down
}

func (s *Service) lacks(f Features) bool { return s.opts.Lacks&f != 0 }

func (s *Service) echo(m can.Metadata) can.Metadata {
	m.Tags = slices.Clone(m.Tags)
	for _, f := range s.opts.Echo {
		f(&m)
	}
	if len(m.Tags) == 0 {
		m.Tags = nil
	}
	return m
}

// received is content that was read in full and is not yet stored.
type received struct {
	digest  can.Digest
	handle  string
	ts      int64
	size    int64
	content content
}

// receive reads content to its end. Nothing is stored before [Service.store].
func (s *Service) receive(r io.Reader, ts int64) (received, error) {
	return s.receiveWith(s.opts, r, ts)
}

func (s *Service) receiveWith(opts Options, r io.Reader, ts int64) (received, error) {
	if ts <= 0 || opts.Lacks&FeatureTimestamp != 0 {
		ts = opts.Now().UnixMilli()
	}
	plain, stamped := sha256.New(), sha256.New()
	var buf bytes.Buffer
	sinks := []io.Writer{plain}
	if opts.Rule == HashTimestamp {
		stamped.Write([]byte(strconv.FormatInt(ts, 10)))
		sinks = append(sinks, stamped)
	}
	if !opts.DiscardContent {
		sinks = append(sinks, &buf)
	}
	if opts.MaxSize > 0 {
		r = io.LimitReader(r, opts.MaxSize+1)
	}
	n, err := io.Copy(io.MultiWriter(sinks...), r)
	if err != nil {
		return received{}, err
	}
	if opts.MaxSize > 0 && n > opts.MaxSize {
		return received{}, can.ErrTooLarge
	}
	got := received{digest: can.Digest(plain.Sum(nil)), ts: ts, size: n}
	if !opts.DiscardContent {
		got.content = literal(bytes.Clone(buf.Bytes()))
	}
	switch opts.Rule {
	case HashTimestamp:
		got.handle = hex.EncodeToString(stamped.Sum(nil))
	case HashRandom:
		got.handle = s.randomHandle()
	default:
		got.handle = got.digest.String()
	}
	return got, nil
}

func (s *Service) randomHandle() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b [32]byte
	for i := range b {
		b[i] = byte(s.rng.Uint32())
	}
	return hex.EncodeToString(b[:])
}

// store makes received content an asset, or returns the one that is there under
// its handle, taken out of the trash.
func (s *Service) store(got received, m can.Metadata) can.Asset {
	if m.MIMEType == "" {
		m.MIMEType = mime.TypeByExtension(path.Ext(m.Filename))
		if m.MIMEType == "" {
			m.MIMEType = "application/octet-stream"
		}
	}
	m = s.echo(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	e, there := s.assets[got.handle]
	if !there {
		s.seq++
		e = &entry{
			asset: can.Asset{Handle: got.handle, Timestamp: got.ts, Size: got.size, Metadata: m},
			// A deleted and re-created asset is a new one.
			digest: got.digest, content: got.content, age: s.seq,
		}
		s.assets[got.handle] = e
	}
	if !there || e.asset.Trashed {
		e.asset.Trashed, e.content = false, got.content // the bytes it got, should its own have rotted
		s.listing.Set(e)
		s.live[e.digest]++
		s.touch(e)
		s.publish(can.Event{Kind: can.EventNew, Asset: clone(e.asset)})
	}
	return clone(e.asset)
}

// touch moves e to the end of the changes.
func (s *Service) touch(e *entry) {
	if e.change != 0 {
		s.changes.Delete(e)
	}
	s.seq++
	e.change = s.seq
	s.changes.Set(e)
}

func clone(a can.Asset) can.Asset {
	a.Tags = slices.Clone(a.Tags)
	return a
}

func (s *Service) list(o can.ListOptions) can.Page {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.listing.Len()
	limit := o.Limit
	if limit <= 0 {
		limit = 50
	}
	limit = max(0, min(limit, s.opts.PageCap, n-max(o.Offset, 0)))
	p := can.Page{Total: n}
	if limit > 0 {
		p.Assets = make([]can.Asset, limit)
	}
	for i := range p.Assets {
		at := o.Offset + i
		if o.Order == can.Newest {
			at = n - 1 - at
		}
		e, _ := s.listing.GetAt(at)
		p.Assets[i] = clone(e.asset)
	}
	return p
}

func (s *Service) changesSince(since uint64, limit int) (out []can.Asset, next uint64, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if limit <= 0 || limit > s.opts.PageCap {
		limit = s.opts.PageCap
	}
	next = since
	s.changes.Ascend(&entry{change: since + 1}, func(e *entry) bool {
		if len(out) == limit {
			more = true
			return false
		}
		out = append(out, clone(e.asset))
		next = e.change
		return true
	})
	return out, next, more
}

func (s *Service) get(handle string) (entry, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.assets[handle]
	if !ok {
		return entry{}, false
	}
	c := *e
	c.asset = clone(e.asset)
	return c, true
}

func (s *Service) update(handle string, up can.Update) (can.Asset, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.assets[handle]
	if !ok {
		return can.Asset{}, false
	}
	m := clone(e.asset).Metadata
	for _, f := range []struct{ from, to *string }{
		{up.Application, &m.Application}, {up.User, &m.User}, {up.Description, &m.Description},
		{up.Filename, &m.Filename}, {up.Path, &m.Path},
	} {
		if f.from != nil {
			*f.to = *f.from
		}
	}
	if up.Tags != nil {
		m.Tags = *up.Tags
	}
	e.asset.Metadata = s.echo(m)
	s.touch(e)
	s.publish(can.Event{Kind: can.EventChanged, Asset: clone(e.asset)})
	return clone(e.asset), true
}

func (s *Service) trash(handle string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.assets[handle]
	if !ok {
		return false
	}
	if !e.asset.Trashed {
		s.unlist(e)
		e.asset.Trashed = true
		s.touch(e)
		s.publish(can.Event{Kind: can.EventTrashed, Asset: clone(e.asset)})
	}
	return true
}

func (s *Service) unlist(e *entry) {
	s.listing.Delete(e)
	if s.live[e.digest]--; s.live[e.digest] == 0 {
		delete(s.live, e.digest)
	}
}

// open returns the bytes of an entry from offset.
func (s *Service) open(e entry) io.ReadSeeker {
	if e.content != nil {
		return e.content()
	}
	if s.opts.Reopen != nil {
		return s.opts.Reopen(e.digest, e.asset.Size)
	}
	return nil
}
