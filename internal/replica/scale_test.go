package replica_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/tier"
	"github.com/cansync/cansync/store/badger"
	"github.com/cansync/cansync/transport"
)

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// two members with many records find in one round trip for each set, and with a
// few hundred bytes, that nothing differs, find one new record in two, and keep
// little of the records in memory.
func TestManyRecords(t *testing.T) {
	ctx := context.Background()
	n := tier.Of(100_000, 1_000_000)
	w := newWorld(t)
	before := heap()
	var peers []*member
	for range 2 {
		s, err := badger.Open(t.TempDir(), badger.Options{})
		check(t, err)
		t.Cleanup(func() { check(t, s.Close()) })
		p := &member{w: w, store: s, check: record.NewVerifier(0), now: func() time.Time { return start }}
		p.open(t)
		_, err = p.r.Apply(ctx, w.control, transport.PeerID{})
		check(t, err)
		peers = append(peers, p)
	}
	a, b := peers[0], peers[1]
	publish := func(p *member, from, to int) {
		var drafts []record.Draft
		for i := from; i < to; i++ {
			d, err := record.Asset(record.Announce, 0, w.keys.ID, sha256.Sum256(fmt.Append(nil, i)), w.keys.Cert,
				record.AssetBody{Size: 1, Root: [32]byte{1}, MIMEType: "image/png", Filename: fmt.Sprintf("file %d.png", i)})
			check(t, err)
			drafts = append(drafts, d)
		}
		_, err := p.r.Publish(ctx, p.sign, drafts)
		check(t, err)
	}
	for i := 0; i < n; i += 10_000 {
		publish(a, i, min(n, i+10_000))
	}
	first, _ := meet(t, a, b, -1)
	require.EqualValues(t, n, b.r.Counts().Live)
	require.EqualValues(t, n, a.r.Counts().Live)

	idle, _ := meet(t, b, a, -1)
	t.Logf("the first meeting of %d records: %+v; another without a change: %+v", n, first, idle)
	require.True(t, idle.equal)
	require.Equal(t, 2, idle.rounds, "one for each set")
	require.LessOrEqual(t, idle.bytes, 4<<10)

	publish(a, n, n+1)
	one, _ := meet(t, b, a, -1)
	t.Logf("with one change: %+v", one)
	require.Equal(t, 1, one.records)
	require.LessOrEqual(t, one.rounds, 3)
	require.LessOrEqual(t, one.bytes, 4<<10)

	for _, p := range peers {
		check(t, p.r.Close())
		p.open(t)
		<-p.r.Ready()
	}
	grown := (heap() - before) / int64(len(peers))
	t.Logf("%d KiB of heap for each", grown>>10)
	// 300 MiB of a process leave this much to the live heap, as the collector lets it
	// double.
	require.LessOrEqual(t, grown, int64(150<<20))
	again, _ := meet(t, a, b, -1)
	require.True(t, again.equal)
	for _, p := range peers {
		check(t, p.r.Close())
	}
}
