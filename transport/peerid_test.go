package transport_test

import (
	"crypto/ed25519"
	"encoding/json"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cansync/cansync/transport"
)

// TestPeerIDIsLibp2ps compares the text with the one of libp2p.
func TestPeerIDIsLibp2ps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.SliceOfN(rapid.Byte(), ed25519.SeedSize, ed25519.SeedSize).Draw(t, "seed")
		pub := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
		key, err := crypto.UnmarshalEd25519PublicKey(pub)
		require.NoError(t, err)
		want, err := peer.IDFromPublicKey(key)
		require.NoError(t, err)
		id := transport.PeerID(pub)
		require.Equal(t, want.String(), id.String())
		got, err := transport.ParsePeerID(want.String())
		require.NoError(t, err)
		require.Equal(t, id, got)
		require.True(t, strings.HasSuffix(id.String(), id.Short()))
		require.Len(t, id.Short(), 8)
		text, err := json.Marshal(map[transport.PeerID]transport.PeerID{id: id})
		require.NoError(t, err)
		var back map[transport.PeerID]transport.PeerID
		require.NoError(t, json.Unmarshal(text, &back))
		require.Equal(t, id, back[id])
	})
}

func TestPeerIDRefuses(t *testing.T) {
	require.True(t, transport.PeerID{}.IsZero())
	good := transport.PeerID{1}.String()
	for _, s := range []string{
		"", "x", good[1:], good + "1", good[:len(good)-1] + "0", strings.Repeat("1", 64), strings.Repeat("2", 10_000),
		"QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", // the hash of an RSA key
	} {
		_, err := transport.ParsePeerID(s)
		require.ErrorIs(t, err, transport.ErrPeerID, "%q", s)
		p := transport.PeerID{7}
		require.ErrorIs(t, p.UnmarshalText([]byte(s)), transport.ErrPeerID)
		require.Equal(t, transport.PeerID{7}, p, "left alone")
	}
}

func FuzzParsePeerID(f *testing.F) {
	f.Add(transport.PeerID{}.String())
	f.Add(transport.PeerID{1, 2, 3}.String())
	f.Add("12D3KooW")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := transport.ParsePeerID(s)
		if err == nil && p.String() != s {
			t.Fatalf("%q parses as %q", s, p)
		}
	})
}
