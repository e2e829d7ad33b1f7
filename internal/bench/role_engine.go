package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
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
// clients that keep one asset in memory, and two bare transports beside them.
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
	g.a, err = g.node(ctx, "a", &oneAsset{data: g.data, handle: g.sum.Digest.String(), asset: &can.Asset{
		Handle: g.sum.Digest.String(), Timestamp: benchTimestamp(0), Size: int64(len(g.data)), Metadata: benchMetadata(0),
	}})
	if err != nil {
		return err
	}
	if g.lib, err = g.a.CreateLibrary(ctx, "bench", cansync.Filter{}); err != nil {
		return err
	}
	for {
		s, err := g.lib.Status(ctx)
		if err != nil || s.Assets == 1 {
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
func (g *engine) sync(ctx context.Context, _ none) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	g.runs++
	name := fmt.Sprintf("b%d", g.runs)
	clear(g.into)
	b, err := g.node(ctx, name, &oneAsset{data: g.into, handle: g.sum.Digest.String()})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, b.Close(), os.RemoveAll(g.dir+"/"+name)) }()
	t, err := g.lib.Invite(ctx, cansync.InviteOptions{})
	if err != nil {
		return 0, err
	}
	events := b.Events(ctx)
	if _, err := b.Join(ctx, t); err != nil {
		return 0, err
	}
	for ev := range events {
		switch ev.Kind {
		case cansync.EventFailed, cansync.EventRefused:
			return 0, fmt.Errorf("%s: %w", ev.Kind, ev.Err)
		case cansync.EventFetched:
			if !bytes.Equal(g.into, g.data) {
				return 0, errors.New("other bytes came than were sent")
			}
			return ev.Duration, nil
		}
	}
	return 0, ctx.Err()
}

// oneAsset is a CAN client that keeps at most one asset, in memory that it is given.
type oneAsset struct {
	data   []byte
	handle string // of whatever is ingested; the bench compares the bytes afterwards

	mu    sync.Mutex
	asset *can.Asset
}

var _ can.Client = (*oneAsset)(nil)

func (o *oneAsset) get() *can.Asset {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.asset
}

// List implements can.Lister.
func (o *oneAsset) List(_ context.Context, opts can.ListOptions) (can.Page, error) {
	a := o.get()
	if a == nil {
		return can.Page{}, nil
	}
	p := can.Page{Total: 1}
	if opts.Offset == 0 {
		p.Assets = []can.Asset{*a}
	}
	return p, nil
}

// Open implements can.Opener.
func (o *oneAsset) Open(_ context.Context, handle string, offset, length int64) (io.ReadCloser, error) {
	if a := o.get(); a == nil || a.Handle != handle {
		return nil, can.ErrNotFound
	}
	end := int64(len(o.data))
	if offset = min(offset, end); length >= 0 {
		end = min(end, offset+length)
	}
	return io.NopCloser(bytes.NewReader(o.data[offset:end])), nil
}

// Ingest implements can.Ingester.
func (o *oneAsset) Ingest(_ context.Context, in can.Ingest) (can.Asset, error) {
	if in.Size != int64(len(o.data)) {
		return can.Asset{}, can.ErrTooLarge
	}
	r, err := in.Content()
	if err != nil {
		return can.Asset{}, fmt.Errorf("%w: %w", can.ErrContent, err)
	}
	defer func() { _ = r.Close() }()
	if _, err := io.ReadFull(r, o.data); err != nil {
		return can.Asset{}, fmt.Errorf("%w: %w", can.ErrContent, err)
	}
	a := can.Asset{Handle: o.handle, Timestamp: in.Timestamp, Size: in.Size, Metadata: in.Metadata}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asset = &a
	return a, nil
}
