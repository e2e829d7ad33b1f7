package cansync_test

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/transport/memory"
)

const mib = 1 << 20

// add puts generated content into a machine's service.
func (m *machine) add(seed uint64, size int64) can.Digest {
	b, err := io.ReadAll(cantest.Generated(seed, size))
	require.NoError(m.t, err)
	m.svc.Add(b, can.Metadata{MIMEType: "image/png"})
	return digestOf(b)
}

func (m *machine) progress(id cansync.LibraryID) cansync.Progress {
	p, err := m.lib(id).Progress(m.t.Context())
	require.NoError(m.t, err)
	return p
}

// duo makes two machines with a library and lets them meet.
func duo(t *testing.T, link memory.Link) (net *memory.Network, a, b *machine, id cansync.LibraryID) {
	net = memory.NewNetwork(memory.Options{Link: link})
	a = newMachine(t, net, "a", cantest.Options{})
	b = newMachine(t, net, "b", cantest.Options{Rule: cantest.HashTimestamp})
	id = a.share(cansync.Filter{}, b)
	eventually(t, "they meet", func() bool { return b.lib(id).Access() != 0 && len(peersOf(b, id)) == 1 })
	return net, a, b, id
}

func peersOf(m *machine, id cansync.LibraryID) (out []cansync.Member) {
	ms, err := m.lib(id).Members()
	require.NoError(m.t, err)
	for _, one := range ms {
		if one.Connected && !one.Self {
			out = append(out, one)
		}
	}
	return out
}

func TestLimitsHoldAndCanBeChangedMidWay(t *testing.T) {
	for name, set := range map[string]func(a, b *machine, id cansync.LibraryID, rate int64) error{
		"node down": func(_, b *machine, _ cansync.LibraryID, rate int64) error {
			return b.node.SetLimits(cansync.Limits{Download: rate})
		},
		"node up": func(a, _ *machine, _ cansync.LibraryID, rate int64) error {
			return a.node.SetLimits(cansync.Limits{Upload: rate})
		},
		"library down": func(_, b *machine, id cansync.LibraryID, rate int64) error {
			return b.lib(id).SetLimits(cansync.Limits{Download: rate})
		},
		"library up": func(a, _ *machine, id cansync.LibraryID, rate int64) error {
			return a.lib(id).SetLimits(cansync.Limits{Upload: rate})
		},
		"peer down": func(a, b *machine, _ cansync.LibraryID, rate int64) error {
			return b.node.SetPeerLimits(a.node.PeerID(), cansync.Limits{Download: rate})
		},
		"peer up": func(a, b *machine, _ cansync.LibraryID, rate int64) error {
			return a.node.SetPeerLimits(b.node.PeerID(), cansync.Limits{Upload: rate})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, a, b, id := duo(t, memory.Link{Latency: 5 * time.Millisecond, Bandwidth: 100 * mib})
				require.NoError(t, set(a, b, id, mib))
				d := a.add(1, 40*mib)
				eventually(t, "it began", func() bool { return b.progress(id).BytesDone > mib })
				over := func(rate int64, d time.Duration) {
					time.Sleep(2 * time.Second) // what was let through before is used up
					from := b.progress(id).BytesDone
					time.Sleep(d)
					require.InEpsilon(t, float64(rate)*d.Seconds(), b.progress(id).BytesDone-from, 0.1)
				}
				over(mib, 6*time.Second)
				p := b.progress(id)
				require.Len(t, p.Transfers, 1)
				require.Equal(t, d, p.Transfers[0].Digest)
				require.InEpsilon(t, mib, p.Rate, 0.15)
				require.InEpsilon(t, mib, p.Transfers[0].Rate, 0.15)
				require.InEpsilon(t, float64(p.Bytes-p.BytesDone)/mib, p.ETA.Seconds(), 0.15)
				require.InEpsilon(t, mib, a.progress(id).UploadRate, 0.15)
				require.NoError(t, set(a, b, id, 2*mib))
				over(2*mib, 5*time.Second)
				require.NoError(t, set(a, b, id, 0))
				begun := time.Now()
				eventually(t, "the rest flies", func() bool { return b.svc.Len() == 1 })
				require.Less(t, time.Since(begun), 2*time.Second)
				time.Sleep(10 * time.Second)
				p = b.progress(id)
				require.Equal(t, cansync.Progress{Assets: 1, AssetsDone: 1, Bytes: 40 * mib, BytesDone: 40 * mib}, p)
				a.close()
				b.close()
			})
		})
	}
}

func TestLimitsOfSmallAssetsHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b, id := duo(t, memory.Link{Latency: 5 * time.Millisecond})
		require.NoError(t, b.lib(id).SetLimits(cansync.Limits{Download: 100_000}))
		for i := range 400 {
			a.add(uint64(i), 10_000)
		}
		eventually(t, "it began", func() bool { return b.svc.Len() > 10 })
		from := b.svc.Len()
		time.Sleep(20 * time.Second)
		require.InDelta(t, 200, b.svc.Len()-from, 20)
		b.stop() // the library's limits last
		b.start()
		require.Equal(t, cansync.Limits{Download: 100_000}, b.lib(id).Limits())
		eventually(t, "all came", func() bool { return b.svc.Len() == 400 })
		a.close()
		b.close()
	})
}

// Of all that has not begun, what is asked for begins first. Under a limit no
// virtual time passes between the look and the asking, so that nothing begins
// there.
func TestWhatIsPrioritizedArrivesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b, id := duo(t, memory.Link{Latency: time.Millisecond})
		require.NoError(t, b.lib(id).SetMode(cansync.RecordsOnly))
		require.NoError(t, b.node.SetLimits(cansync.Limits{Download: mib}))
		var large []can.Digest
		for i := range 24 {
			large = append(large, a.add(uint64(i), 4*mib))
		}
		eventually(t, "they are known", func() bool { return b.progress(id).Assets == 24 })
		require.NoError(t, b.lib(id).SetMode(cansync.Sync))
		begun := make(map[can.Digest]bool)
		look := func() (fresh []can.Digest) {
			synctest.Wait()
			for _, tr := range b.progress(id).Transfers {
				if !begun[tr.Digest] {
					begun[tr.Digest] = true
					fresh = append(fresh, tr.Digest)
				}
			}
			return fresh
		}
		require.NotEmpty(t, look())
		rounds := 0
		for len(begun) < 20 {
			var asked can.Digest // one that has not begun, anywhere in the order of digests
			for _, d := range large {
				if !begun[d] {
					asked = d
				}
			}
			require.NoError(t, b.lib(id).Prioritize(t.Context(), asked))
			fresh := look()
			for len(fresh) == 0 {
				time.Sleep(10 * time.Millisecond)
				fresh = look()
			}
			require.Contains(t, fresh, asked, "another began before it")
			rounds++
		}
		require.GreaterOrEqual(t, rounds, 4)
		require.NoError(t, b.node.SetLimits(cansync.Limits{}))
		eventually(t, "all came", func() bool { return b.svc.Len() == 24 })
		a.close()
		b.close()
	})
}

func TestFetchOnDemandInARecordsOnlyLibrary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b, id := duo(t, memory.Link{})
		require.NoError(t, b.lib(id).SetMode(cansync.RecordsOnly))
		x, y, z := a.add(1, 3*mib), a.add(2, 1000), a.add(3, 2000)
		eventually(t, "they are known", func() bool { return b.progress(id).Assets == 3 })
		require.NoError(t, b.lib(id).Prioritize(t.Context(), z))
		time.Sleep(time.Hour)
		require.Zero(t, b.svc.Len())
		require.NoError(t, b.lib(id).Fetch(t.Context(), x, y, can.Digest{1}))
		require.NoError(t, b.lib(id).WaitHolders(t.Context(), 2, x, y))
		time.Sleep(time.Hour)
		require.Equal(t, 2, b.svc.Len())
		require.ErrorIs(t, b.lib(id).Fetch(t.Context(), make([]can.Digest, cansync.MaxAsked+1)...), cansync.ErrTooMany)
		a.close()
		b.close()
	})
}

func TestAQuotaStopsAndGoesOnWhenRaised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, a, b, id := duo(t, memory.Link{})
		require.NoError(t, b.lib(id).SetQuota(2*mib))
		b.add(99, mib/2) // what the node announces itself counts, too
		eventually(t, "a has it", func() bool { return a.svc.Len() == 1 })
		var all []can.Digest
		for i := range 6 {
			all = append(all, a.add(uint64(i), mib/2))
		}
		eventually(t, "three fit", func() bool { return b.svc.Len() == 4 })
		time.Sleep(time.Hour)
		require.Equal(t, 4, b.svc.Len())
		s, err := b.lib(id).Status(t.Context())
		require.NoError(t, err)
		require.Equal(t, cansync.StateWaiting, s.State)
		require.Equal(t, map[cansync.Cause]int64{cansync.NoSpace: 3}, s.Causes)
		seen := 0
		for _, d := range all {
			one, err := b.lib(id).Asset(t.Context(), d)
			require.NoError(t, err)
			if one.Cause == cansync.NoSpace {
				require.Contains(t, one.Detail, "quota")
				seen++
			}
		}
		require.Equal(t, 3, seen)
		require.EqualValues(t, 2*mib, b.progress(id).BytesDone)
		b.stop()
		b.start()
		require.EqualValues(t, 2*mib, b.lib(id).Quota())
		time.Sleep(time.Hour)
		require.Equal(t, 4, b.svc.Len())
		require.NoError(t, b.lib(id).SetQuota(3*mib))
		eventually(t, "two more fit", func() bool { return b.svc.Len() == 6 })
		require.NoError(t, b.lib(id).SetQuota(0))
		eventually(t, "the rest comes", func() bool { return b.svc.Len() == 7 })
		atRest(t, net, a, b)
		require.ErrorIs(t, b.lib(id).SetQuota(-1), cansync.ErrConfig)
		a.close()
		b.close()
	})
}

func TestProgressEventsComeWhileBytesMoveOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b, id := duo(t, memory.Link{Latency: time.Millisecond})
		require.NoError(t, b.node.SetLimits(cansync.Limits{Download: mib}))
		var got []cansync.Event
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			for e := range b.node.Events(ctx) {
				if e.Kind == cansync.EventProgress {
					got = append(got, e)
				}
			}
		}()
		d := a.add(1, 10*mib)
		eventually(t, "it came", func() bool { return b.svc.Len() == 1 })
		synctest.Wait()
		before := b.node.LastEvent()
		time.Sleep(4 * time.Minute)
		require.Equal(t, before, b.node.LastEvent())
		cancel()
		<-done
		require.InDelta(t, 20, len(got), 4, "two a second for ten seconds")
		for i, e := range got {
			require.Equal(t, id, e.Library)
			require.Equal(t, d, e.Asset)
			require.EqualValues(t, 10*mib, e.Total)
			if i > 0 {
				require.GreaterOrEqual(t, e.Size, got[i-1].Size)
				require.GreaterOrEqual(t, e.Time.Sub(got[i-1].Time), 500*time.Millisecond)
			}
		}
		require.Greater(t, got[len(got)-1].Size, int64(8*mib))
		require.InEpsilon(t, mib, got[len(got)-1].Rate, 0.15)
		// They are not kept.
		for e := range b.node.EventsAfter(t.Context(), 0) {
			require.NotEqual(t, cansync.EventProgress, e.Kind)
			if e.Seq == before {
				break
			}
		}
		a.close()
		b.close()
	})
}

// Progress never says that more is here than is: what comes between two looks at
// the queue counts as missing.
func TestProgressNeverRunsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b, id := duo(t, memory.Link{Latency: 3 * time.Millisecond})
		require.NoError(t, b.node.SetLimits(cansync.Limits{Download: mib / 2}))
		sizes := map[can.Digest]int64{}
		var sum int64
		add := func(size int64) {
			sizes[a.add(uint64(len(sizes)), size)] = size
			sum += size
		}
		looks, moved := 0, 0
		for step := 0; len(sizes) < 60 || b.svc.Len() < 60; step++ {
			require.Less(t, step, 10_000)
			if step%20 == 0 && len(sizes) < 60 { // while the ones before are on their way
				add(int64(1000 + step*10))
				add(int64(200_000 + step*300))
			}
			time.Sleep(17 * time.Millisecond)
			synctest.Wait()
			p := b.progress(id)
			var here int64
			for d := range b.svc.Digests() {
				here += sizes[d]
			}
			for _, tr := range p.Transfers {
				here += tr.Done
			}
			require.LessOrEqual(t, p.BytesDone, here)
			require.LessOrEqual(t, p.AssetsDone, int64(b.svc.Len()))
			if looks++; p.BytesDone > 0 && p.BytesDone < p.Bytes {
				moved++
			}
		}
		require.Greater(t, moved, looks/2)
		time.Sleep(2 * time.Second)
		require.Equal(t, sum, b.progress(id).BytesDone)
		a.close()
		b.close()
	})
}
