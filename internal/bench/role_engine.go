package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/libp2p"
)

// engineSetup is the setup of the role "engine": two nodes in one process with CAN
// clients that keep one large asset in memory, and two bare transports beside them.
type engineSetup struct {
	Dir  string
	Size int
}

type engine struct {
	log      *slog.Logger
	dir      string
	data     []byte // the asset
	into     []byte // where it goes
	sum      blob.Summary
	a        *cansync.Node
	lib      *cansync.Library
	from, to transport.Transport
	hashing  bool // of the next raw stream
	runs     int
}

func openEngine(ctx context.Context, log *slog.Logger, s engineSetup) (*role, error) {
	g := &engine{log: log, dir: s.Dir, data: make([]byte, s.Size), into: make([]byte, s.Size)}
	if _, err := io.ReadFull(cantest.Generated(1, int64(s.Size)), g.data); err != nil {
		return nil, err
	}
	g.sum = blob.Sum(g.data)
	err := g.open(ctx)
	if err != nil {
		return nil, errors.Join(err, g.close())
	}
	return &role{
		methods: map[string]func(context.Context, json.RawMessage) (any, error){
			"idle":   method(func(context.Context, none) (none, error) { return none{}, nil }),
			"raw":    method(g.raw),
			"engine": method(g.sync),
		},
		close: g.close,
	}, nil
}

func lanTransport(seed [32]byte) (transport.Transport, error) { return libp2p.New(lanConfig(seed)) }

func (g *engine) node(ctx context.Context, name string, c can.Client) (*cansync.Node, error) {
	return cansync.New(ctx, cansync.Config{CAN: c, DataDir: g.dir + "/" + name, Transport: lanTransport, Logger: g.log})
}

func (g *engine) open(ctx context.Context) (err error) {
	for _, t := range []*transport.Transport{&g.from, &g.to} {
		d, err := capability.NewDevice(randomReader)
		if err != nil {
			return err
		}
		if *t, err = lanTransport(d.Seed()); err != nil {
			return err
		}
	}
	g.from.Handle(rawProto, g.serveRaw)
	from := &largeAsset{data: g.data, small: make(map[string][]byte)}
	for i := range firstAssets {
		if _, err := from.Ingest(ctx, can.Ingest{
			Content: func() (io.ReadCloser, error) { return io.NopCloser(cantest.Generated(uint64(2+i), 100)), nil },
			Size:    100, Timestamp: benchTimestamp(1 + i), Metadata: benchMetadata(1 + i),
		}); err != nil {
			return err
		}
	}
	from.assets = append(from.assets, can.Asset{
		Handle: g.sum.Digest.String(), Timestamp: benchTimestamp(0), Size: int64(len(g.data)), Metadata: benchMetadata(0),
	})
	if g.a, err = g.node(ctx, "a", from); err != nil {
		return err
	}
	if g.lib, err = g.a.CreateLibrary(ctx, "bench", cansync.Filter{}); err != nil {
		return err
	}
	for {
		s, err := g.lib.Status(ctx)
		if err != nil || s.Assets == 1+firstAssets {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (g *engine) close() error {
	var errs []error
	if g.a != nil {
		errs = append(errs, g.a.Close())
	}
	for _, t := range []transport.Transport{g.from, g.to} {
		if t != nil {
			errs = append(errs, t.Close())
		}
	}
	return errors.Join(errs...)
}

// sync lets a new node fetch the asset and returns how long it worked on it, from
// taking it up to its being in the service.
func (g *engine) sync(ctx context.Context, _ none) (_ spell, err error) {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	g.runs++
	name := fmt.Sprintf("b%d", g.runs)
	clear(g.into)
	into := &largeAsset{data: g.into, handle: g.sum.Digest.String(), small: make(map[string][]byte)}
	b, err := g.node(ctx, name, into)
	if err != nil {
		return spell{}, err
	}
	defer func() { err = errors.Join(err, b.Close(), os.RemoveAll(g.dir+"/"+name)) }()
	t, err := g.lib.Invite(ctx, cansync.InviteOptions{})
	if err != nil {
		return spell{}, err
	}
	events := b.Events(ctx)
	before := ownCPU() // joining is little beside the transfer
	if _, err := b.Join(ctx, t); err != nil {
		return spell{}, err
	}
	for ev := range events {
		switch ev.Kind {
		case cansync.EventFailed, cansync.EventRefused:
			return spell{}, fmt.Errorf("%s: %w", ev.Kind, ev.Err)
		case cansync.EventFetched:
			if ev.Asset != g.sum.Digest {
				continue
			}
			if into.opened() > 0 {
				return spell{}, errors.New("the node read the asset back; measured is what it does after its first hundred")
			}
			used := ownCPU() - before
			if !bytes.Equal(g.into, g.data) {
				return spell{}, errors.New("other bytes came than were sent")
			}
			return spell{ev.Duration, used}, nil
		}
	}
	return spell{}, ctx.Err()
}

// firstAssets is how many small assets a node ingests before the large one. A node
// reads the first hundred back in full after each start and few of the later ones;
// only the latter are measured.
const firstAssets = 120

// largeAsset is a CAN client that keeps one large asset in memory that it is given,
// and small ones beside it. Handles are the digests of contents; that of the large
// one is left to the bench, which compares the bytes afterwards.
type largeAsset struct {
	data   []byte
	handle string // of the large one, once it is here

	mu     sync.Mutex
	assets []can.Asset
	small  map[string][]byte // by handle
	opens  int               // of the large one
}

var _ can.Client = (*largeAsset)(nil)

func (o *largeAsset) opened() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.opens
}

// List implements can.Lister.
func (o *largeAsset) List(_ context.Context, opts can.ListOptions) (can.Page, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := slices.Clone(o.assets)
	slices.SortStableFunc(all, func(a, b can.Asset) int {
		c := cmp.Compare(a.Timestamp, b.Timestamp)
		if opts.Order == can.Newest {
			return -c
		}
		return c
	})
	p := can.Page{Total: len(all), Assets: all[min(opts.Offset, len(all)):]}
	if opts.Limit > 0 {
		p.Assets = p.Assets[:min(opts.Limit, len(p.Assets))]
	}
	return p, nil
}

// Open implements can.Opener.
func (o *largeAsset) Open(_ context.Context, handle string, offset, length int64) (io.ReadCloser, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	data, ok := o.small[handle]
	if !ok {
		if !slices.ContainsFunc(o.assets, func(a can.Asset) bool { return a.Handle == handle }) {
			return nil, can.ErrNotFound
		}
		o.opens++
		data = o.data
	}
	end := int64(len(data))
	if offset = min(offset, end); length >= 0 {
		end = min(end, offset+length)
	}
	return io.NopCloser(bytes.NewReader(data[offset:end])), nil
}

// Ingest implements can.Ingester.
func (o *largeAsset) Ingest(_ context.Context, in can.Ingest) (can.Asset, error) {
	r, err := in.Content()
	if err != nil {
		return can.Asset{}, fmt.Errorf("%w: %w", can.ErrContent, err)
	}
	defer func() { _ = r.Close() }()
	into := o.data
	if in.Size != int64(len(o.data)) {
		into = make([]byte, in.Size)
	}
	if _, err := io.ReadFull(r, into); err != nil {
		return can.Asset{}, fmt.Errorf("%w: %w", can.ErrContent, err)
	}
	a := can.Asset{Timestamp: in.Timestamp, Size: in.Size, Metadata: in.Metadata}
	o.mu.Lock()
	defer o.mu.Unlock()
	if a.Handle = o.handle; in.Size != int64(len(o.data)) {
		a.Handle = can.Digest(sha256.Sum256(into)).String()
		o.small[a.Handle] = into
	}
	o.assets = append(o.assets, a)
	return a, nil
}
