package library_test

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
	smemory "github.com/cansync/cansync/store/memory"
)

// More members than records may wait for a certificate: the order in which a store
// lists them must not matter.
func TestManyMembersSurviveARestart(t *testing.T) {
	device, err := capability.NewDevice(rand.Reader)
	require.NoError(t, err)
	store := smemory.New()
	keys, err := library.Create("photos", device, rand.Reader)
	require.NoError(t, err)
	open := func() *library.Library {
		lib, err := library.Open(t.Context(), library.Options{
			Keys: keys, Device: device, Rand: rand.Reader,
			Replica: replica.Options{Store: store, Verifier: record.NewVerifier(0), Now: time.Now, Rand: rand.Reader},
		})
		require.NoError(t, err)
		return lib
	}
	lib := open()
	require.NoError(t, lib.Describe(t.Context(), control.Description{Name: "photos", Filter: filter.Filter{}}))
	tk, err := lib.Invite(t.Context(), capability.InviteOptions{Rights: capability.Read, RedeemBy: time.Now().Add(time.Hour)}, nil)
	require.NoError(t, err)
	const members = 2 * control.MaxWaiting
	s := lib.Session(nil)
	for i := range members {
		d, err := capability.NewDevice(rand.Reader)
		require.NoError(t, err)
		bind := [32]byte{byte(i), byte(i >> 8)}
		q, err := capability.NewJoinRequest(tk, d, bind)
		require.NoError(t, err)
		require.Zero(t, s.Admit(t.Context(), q, d.PeerID(), bind).Refusal)
	}
	require.Equal(t, members+1, len(lib.Members()))
	require.NoError(t, lib.Close())
	lib = open()
	require.Equal(t, members+1, len(lib.Members()))
	require.NoError(t, lib.Close())
	require.NoError(t, store.Close())
}
