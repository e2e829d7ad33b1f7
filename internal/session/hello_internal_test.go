package session

import (
	"bytes"
	"crypto/rand"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/transport"
)

// canned is a stream whose peer said everything already.
type canned struct {
	transport.Stream
	io.Reader
	peer transport.PeerID
}

func (c canned) Read(b []byte) (int, error)  { return c.Reader.Read(b) }
func (c canned) Write(b []byte) (int, error) { return len(b), nil }
func (c canned) Peer() transport.PeerID      { return c.peer }

// To verify a proof takes a processor some milliseconds, and a hello has room for
// hundreds.
func TestAHandleHasOneProof(t *testing.T) {
	dev, err := capability.NewDevice(rand.Reader)
	require.NoError(t, err)
	owner, err := capability.NewSigningKey(rand.Reader)
	require.NoError(t, err)
	id := capability.LibraryID(owner.Public())
	root, err := capability.NewRoot(owner, dev.Member(id), rand.Reader)
	require.NoError(t, err)
	good := capability.Bundle{Chain: capability.Chain{root}}
	root.Signature[0]++
	bad := capability.Bundle{Chain: capability.Chain{root}}

	m := &Manager{cfg: Config{Now: time.Now}, log: slog.New(slog.DiscardHandler)}
	known := map[uint16]*Library{3: {ID: id}}
	hear := func(proofs ...capability.Credential) *handshake {
		var b []byte
		for _, c := range proofs {
			b = wire.AppendFrame(b, frameProof, c.Encode())
		}
		b = wire.AppendFrame(b, frameReady, nil)
		return newHandshake(canned{Reader: bytes.NewReader(b), peer: dev.PeerID()})
	}
	read := map[string]func(h *handshake) (int, error){
		"opener": func(h *handshake) (int, error) {
			g, _, _, err := m.readProofs(h, known, nil)
			return len(g), err
		},
		"responder": func(h *handshake) (int, error) {
			g, err := m.readShown(h, known, nil)
			return len(g), err
		},
	}
	for name, read := range read {
		t.Run(name, func(t *testing.T) {
			n, err := read(hear(capability.Credential{Handle: 3, Bundle: good}, capability.Credential{Handle: 4, Bundle: good}))
			require.NoError(t, err)
			require.Equal(t, 1, n)
			n, err = read(hear(capability.Credential{Handle: 3, Bundle: bad}))
			require.NoError(t, err)
			require.Zero(t, n)
			for _, first := range []capability.Bundle{good, bad} {
				_, err = read(hear(capability.Credential{Handle: 3, Bundle: first}, capability.Credential{Handle: 3, Bundle: good}))
				require.ErrorIs(t, err, errPeer)
			}
		})
	}
}
