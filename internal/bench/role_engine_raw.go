package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"time"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/blob"
	"github.com/cansync/cansync/transport"
)

var randomReader = rand.Reader

const (
	rawProto = "/cansync-bench/raw/1"
	rawPiece = 256 << 10
)

// pieces calls fn for each piece of the data, in order, until it fails.
func pieces(data []byte, fn func(at int, piece []byte) error) error {
	for at := 0; at < len(data); at += rawPiece {
		if err := fn(at, data[at:min(at+rawPiece, len(data))]); err != nil {
			return err
		}
	}
	return nil
}

func (g *engine) check(at int, piece []byte) error {
	return blob.CheckGroups(g.sum.Outboard, g.sum.Root, uint64(len(g.data)), uint64(at/blob.GroupSize), piece)
}

// serveRaw writes the asset to a stream, and where hashing is asked for holds each
// piece against the BLAKE3 tree before it leaves, one goroutine ahead of the one
// that writes.
func (g *engine) serveRaw(st transport.Stream) {
	defer func() { _ = st.Close() }()
	if _, err := io.ReadFull(st, make([]byte, 1)); err != nil {
		return
	}
	checked := make(chan []byte, 8)
	go func() {
		defer close(checked)
		_ = pieces(g.data, func(at int, piece []byte) error {
			if g.hashing {
				if err := g.check(at, piece); err != nil {
					return err
				}
			}
			checked <- piece
			return nil
		})
	}()
	var err error
	for piece := range checked {
		if err == nil {
			_, err = st.Write(piece)
		}
	}
}

// raw receives the asset over a bare stream and returns how long it took. With
// hashing both ends do what the engine's do: BLAKE3 by group where it leaves, and
// BLAKE3 by group and SHA-256 of the whole where it arrives, beside the reading.
func (g *engine) raw(ctx context.Context, hashing bool) (spell, error) {
	g.hashing = hashing
	clear(g.into)
	st, err := g.to.Open(ctx, transport.PeerInfo{ID: g.from.ID(), Addrs: g.from.Addrs()}, rawProto, transport.OpenOptions{Bulk: true})
	if err != nil {
		return spell{}, err
	}
	defer func() { _ = st.Reset() }()
	arrived, summed := make(chan int, len(g.into)/rawPiece+1), make(chan int, len(g.into)/rawPiece+1)
	grouped, whole := make(chan error, 1), make(chan error, 1)
	piece := func(at int) []byte { return g.into[at:min(at+rawPiece, len(g.into))] }
	go func() {
		var err error
		for at := range arrived {
			if err == nil {
				err = g.check(at, piece(at))
			}
		}
		grouped <- err
	}()
	go func() {
		h := sha256.New()
		for at := range summed {
			h.Write(piece(at))
		}
		if hashing && can.Digest(h.Sum(nil)) != g.sum.Digest {
			whole <- errors.New("other bytes came than were sent")
			return
		}
		whole <- nil
	}()
	began, before := time.Now(), ownCPU()
	if _, err = st.Write([]byte{1}); err == nil {
		err = pieces(g.into, func(at int, p []byte) error {
			if _, err := io.ReadFull(st, p); err != nil {
				return err
			}
			if hashing {
				arrived <- at
				summed <- at
			}
			return nil
		})
	}
	close(arrived)
	close(summed)
	err = errors.Join(err, <-grouped, <-whole)
	return spell{time.Since(began), ownCPU() - before}, err
}
