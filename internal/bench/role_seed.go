package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/internal/keyring"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/store/badger"
)

// seeding asks for the data of nodes that have been in step for long: each library
// of the first node gets a record of each asset, the others get them too, and each
// knows the assets as being in its CAN Service. The nodes must not run. Where the
// first one has no library, one is made.
type seeding struct {
	Dirs []string
	filling
}

// openSeed opens the role "seed".
func openSeed(_ context.Context, log *slog.Logger, _ none) (*role, error) {
	return &role{
		methods: map[string]func(context.Context, json.RawMessage) (any, error){
			"seed": method(func(ctx context.Context, s seeding) (none, error) { return none{}, seed(ctx, log, s) }),
		},
		close: func() error { return nil },
	}, nil
}

// seeded is the data of one node.
type seeded struct {
	log   *slog.Logger
	ring  *keyring.Ring
	store *badger.Store
	inv   *inventory.Inventory
}

func openSeeded(log *slog.Logger, dir string) (n *seeded, err error) {
	n = &seeded{log: log}
	if n.ring, err = keyring.Open(dir, rand.Reader); err != nil {
		return nil, err
	}
	if n.store, err = badger.Open(filepath.Join(dir, "db"), badger.Options{Logger: log}); err != nil {
		return nil, errors.Join(err, n.ring.Close())
	}
	n.inv = inventory.New(n.store)
	return n, nil
}

func (n *seeded) close() error { return errors.Join(n.store.Close(), n.ring.Close()) }

func (n *seeded) library(ctx context.Context, keys keyring.Library) (*library.Library, error) {
	return library.Open(ctx, library.Options{
		Keys: keys, Device: n.ring.Device(), Rand: rand.Reader, Met: true,
		Replica: replica.Options{Store: n.store, Verifier: record.NewVerifier(0), Now: time.Now, Rand: rand.Reader, Logger: n.log},
	})
}

// create makes a library of everything, as a node does.
func (n *seeded) create(ctx context.Context) error {
	keys, err := library.Create("bench", n.ring.Device(), rand.Reader)
	if err != nil {
		return err
	}
	l, err := n.library(ctx, keys)
	if err != nil {
		return err
	}
	err = l.Describe(ctx, control.Description{Name: "bench"})
	return errors.Join(err, l.Close(), n.ring.Save(keys))
}

// seedAsset is the n-th asset, as the services of the bench make it.
func seedAsset(n int, size int64) (can.Asset, blob.Summary) {
	content := make([]byte, size)
	_, _ = io.ReadFull(cantest.Generated(uint64(n), size), content) // never fails
	sum := blob.Sum(content)
	return can.Asset{Handle: sum.Digest.String(), Timestamp: benchTimestamp(n), Size: size, Metadata: benchMetadata(n)}, sum
}

const seedBatch = 512

func seed(ctx context.Context, log *slog.Logger, s seeding) (err error) {
	var nodes []*seeded
	defer func() {
		for _, n := range nodes {
			err = errors.Join(err, n.close())
		}
	}()
	for _, dir := range s.Dirs {
		n, err := openSeeded(log, dir)
		if err != nil {
			return err
		}
		nodes = append(nodes, n)
	}
	for at := 0; at < s.Count; at += seedBatch {
		var items []inventory.Item
		for i := at; i < min(at+seedBatch, s.Count); i++ {
			a, sum := seedAsset(s.First+i, s.Size)
			items = append(items, inventory.Item{
				Handle: a.Handle, Digest: sum.Digest, Root: sum.Root, Size: a.Size, Timestamp: a.Timestamp,
				Baseline: inventory.FingerprintOf(a.Metadata),
			})
		}
		for _, n := range nodes {
			if err := n.inv.Put(ctx, items...); err != nil {
				return err
			}
		}
	}
	if len(nodes[0].ring.Libraries()) == 0 {
		if err := nodes[0].create(ctx); err != nil {
			return err
		}
	}
	for _, keys := range nodes[0].ring.Libraries() {
		if err := seedLibrary(ctx, nodes, keys, s.filling); err != nil {
			return err
		}
	}
	return nil
}

// seedLibrary publishes on the first node and hands the records to the others.
func seedLibrary(ctx context.Context, nodes []*seeded, keys keyring.Library, f filling) (err error) {
	from, err := nodes[0].library(ctx, keys)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	var fresh []record.Record
	from.Observe(func(ap replica.Applied) { fresh = append(fresh, ap.Records...) })
	var others []*library.Library
	for _, n := range nodes[1:] {
		k, ok := n.ring.Library(keys.ID)
		if !ok {
			return fmt.Errorf("library %x is not on every node", keys.ID[:4])
		}
		l, err := n.library(ctx, k)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, l.Close()) }()
		others = append(others, l)
	}
	var drafts []record.Draft
	for i := range f.Count {
		a, sum := seedAsset(f.First+i, f.Size)
		d, err := from.Announcement(record.Announce, sum.Digest, record.FromAsset(a, sum.Root, sum.Size))
		if err != nil {
			return err
		}
		if drafts = append(drafts, d); len(drafts) < seedBatch && i < f.Count-1 {
			continue
		}
		if err := from.Say(ctx, drafts...); err != nil {
			return err
		}
		for _, l := range others {
			if err := handOver(ctx, l, fresh, nodes[0]); err != nil {
				return err
			}
		}
		drafts, fresh = drafts[:0], fresh[:0]
	}
	return nil
}

func handOver(ctx context.Context, to *library.Library, recs []record.Record, from *seeded) error {
	res, err := to.Apply(ctx, recs, from.ring.Device().PeerID())
	if err != nil {
		return err
	}
	if res.New != len(recs) {
		return fmt.Errorf("%d records of %d taken: %v", res.New, len(recs), res.Refused)
	}
	done := make([]replica.Settled, 0, len(recs))
	for _, r := range recs {
		done = append(done, replica.Settled{Asset: r.Subject, Local: replica.Local{Applied: r.ID(), State: replica.Have}})
	}
	_, err = to.Settle(ctx, done)
	return err
}
