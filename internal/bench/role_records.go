package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/keyring"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/internal/session"
	"github.com/cansync/cansync/store/badger"
	"github.com/cansync/cansync/transport"
	"github.com/cansync/cansync/transport/libp2p"
)

// recordsSetup is the setup of the role "records": a device that is a member of
// one library, with a database and libp2p, but without a CAN Service. It replicates
// records and no contents.
type recordsSetup struct{ Dir string }

type recordsNode struct {
	log      *slog.Logger
	device   capability.Device
	store    *badger.Store
	tr       transport.Transport
	sessions *session.Manager
	verifier *record.Verifier
	keys     keyring.Library
	lib      *library.Library
}

func openRecords(_ context.Context, log *slog.Logger, s recordsSetup) (*role, error) {
	n := &recordsNode{log: log, verifier: record.NewVerifier(0)}
	if err := n.open(s.Dir); err != nil {
		return nil, errors.Join(err, n.close())
	}
	return &role{
		methods: map[string]func(context.Context, json.RawMessage) (any, error){
			"idle":   method(func(context.Context, none) (none, error) { return none{}, nil }),
			"create": method(n.create),
			"load":   method(n.load),
			"join":   method(n.join),
			"reopen": method(n.reopen),
		},
		close: n.close,
	}, nil
}

func (n *recordsNode) open(dir string) (err error) {
	ring, err := keyring.Memory(rand.Reader)
	if err != nil {
		return err
	}
	n.device = ring.Device()
	if n.store, err = badger.Open(filepath.Join(dir, "db"), badger.Options{}); err != nil {
		return err
	}
	seed := n.device.Seed()
	n.tr, err = libp2p.New(lanConfig(seed))
	if err != nil {
		return err
	}
	n.sessions = session.New(session.Config{
		Transport: n.tr, Device: n.device, Store: n.store, Now: time.Now, Rand: rand.Reader, Logger: n.log,
		OnPeer: func([32]byte, transport.PeerID, bool) {},
	})
	return nil
}

func (n *recordsNode) close() error {
	var errs []error
	if n.sessions != nil {
		errs = append(errs, n.sessions.Close())
	}
	if n.lib != nil {
		errs = append(errs, n.lib.Close())
	}
	if n.tr != nil {
		errs = append(errs, n.tr.Close())
	}
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	return errors.Join(errs...)
}

func (n *recordsNode) openLibrary(ctx context.Context) (err error) {
	n.lib, err = library.Open(ctx, library.Options{
		Keys: n.keys, Device: n.device, Rand: rand.Reader, Met: true,
		Replica: replica.Options{Store: n.store, Verifier: n.verifier, Now: time.Now, Rand: rand.Reader, Logger: n.log},
	})
	return err
}

// create makes the library and returns a ticket for it.
func (n *recordsNode) create(ctx context.Context, _ none) (string, error) {
	keys, err := library.Create("bench", n.device, rand.Reader)
	if err != nil {
		return "", err
	}
	n.keys = keys
	if err := n.openLibrary(ctx); err != nil {
		return "", err
	}
	if err := n.lib.Describe(ctx, control.Description{Name: "bench"}); err != nil {
		return "", err
	}
	n.sessions.Add(n.lib.Session(nil))
	t, err := n.lib.Invite(ctx, capability.InviteOptions{
		Rights: capability.Read | capability.Write | capability.Invite, RedeemBy: time.Now().Add(24 * time.Hour),
	}, []transport.PeerInfo{{ID: n.tr.ID(), Addrs: n.tr.Addrs()}})
	if err != nil {
		return "", err
	}
	return t.ExportSecret()
}

// loaded is how a library was filled.
type loaded struct {
	Took  time.Duration
	Bytes int64 // of all records as they are sent
}

// load publishes records of assets that do not exist.
func (n *recordsNode) load(ctx context.Context, count int) (l loaded, err error) {
	n.lib.Observe(func(ap replica.Applied) {
		for i := range ap.Records {
			l.Bytes += int64(ap.Records[i].Size())
		}
	})
	began := time.Now()
	drafts := make([]record.Draft, 0, 8*record.MaxBatch)
	for i := range count {
		d, err := n.lib.Announcement(record.Announce, sha256.Sum256(fmt.Append(nil, "asset ", i)), benchBody(i))
		if err != nil {
			return l, err
		}
		if drafts = append(drafts, d); len(drafts) == cap(drafts) || i == count-1 {
			if err := n.lib.Say(ctx, drafts...); err != nil {
				return l, err
			}
			drafts = drafts[:0]
		}
	}
	l.Took = time.Since(began)
	return l, nil
}

// benchBody is the metadata of an asset as a camera's import writes it.
func benchBody(i int) record.AssetBody {
	return record.AssetBody{
		Size: 1 << 10, Root: sha256.Sum256(fmt.Append(nil, "root ", i)), Timestamp: 1_750_000_000_000 + int64(i),
		MIMEType: "image/jpeg", Application: "camera-import", User: "anna", Description: fmt.Sprintf("picture %d of the summer", i),
		Tags: []string{"holiday", "sea", fmt.Sprint(2000 + i%25)}, Filename: fmt.Sprintf("IMG_%06d.jpg", i), Path: "/photos/2025/summer",
	}
}

// joinRecords asks a node to join and to wait for so many live records.
type joinRecords struct {
	Ticket string
	Want   int
}

// join returns how long it took from the ticket to the last record being stored.
func (n *recordsNode) join(ctx context.Context, q joinRecords) (time.Duration, error) {
	t, err := capability.ParseTicket(q.Ticket)
	if err != nil {
		return 0, err
	}
	done := make(chan error, 1)
	finish := func(err error) {
		select {
		case done <- err:
		default:
		}
	}
	began := time.Now()
	n.sessions.Join(&session.Joining{
		Ticket: t,
		Joined: func(g capability.Grant, k capability.EpochKeys, b capability.Bundle) error {
			n.keys = keyring.Library{
				ID: t.Library(), State: keyring.Active, Lasting: k.Lasting, Bundle: b.Encode(), Cert: g.ID,
				Epochs: []keyring.Epoch{{Number: k.Epoch, Secret: k.Secret}},
			}
			if err := n.openLibrary(ctx); err != nil {
				finish(err)
				return err
			}
			n.lib.Observe(func(replica.Applied) {
				if n.lib.Counts().Live >= int64(q.Want) {
					finish(nil)
				}
			})
			n.sessions.Add(n.lib.Session(nil))
			return nil
		},
		Refused: finish,
	})
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	select {
	case err = <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	return time.Since(began), err
}

// reopen closes the library, opens it again, and returns how long it took until
// its coded symbols were complete.
func (n *recordsNode) reopen(ctx context.Context, want int) (time.Duration, error) {
	n.sessions.Remove(n.lib.ID())
	if err := n.lib.Close(); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := n.openLibrary(ctx); err != nil {
		return 0, err
	}
	snap, err := n.lib.Snapshot(ctx, false, nil)
	if err != nil {
		return 0, err
	}
	took := time.Since(began)
	if snap.Len() != want {
		return 0, fmt.Errorf("%d ids of %d after opening", snap.Len(), want)
	}
	return took, nil
}

// lanConfig is libp2p on loopback, meeting others only by given addresses.
func lanConfig(seed [32]byte) libp2p.Config {
	return libp2p.Config{
		PrivateKey: ed25519.NewKeyFromSeed(seed[:]), Network: libp2p.LAN, DisableMDNS: true,
		Listen: []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"},
	}
}
