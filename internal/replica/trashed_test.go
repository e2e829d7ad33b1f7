package replica_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/store/memory"
	"github.com/cansync/cansync/transport"
)

// What is trashed here is counted, whatever happens to the assets and in whatever
// order.
func TestWhatIsTrashedHereIsCounted(tb *testing.T) {
	rapid.Check(tb, func(t *rapid.T) {
		ctx := context.Background()
		w := newWorld(tb)
		s := memory.New()
		r := w.open(t, s)
		_, err := r.Apply(ctx, w.control, transport.PeerID{})
		check(t, err)
		clock := record.ClockAt(start)
		say := func(kind record.Kind, asset int) {
			clock++
			rec := w.sign(t, 0, kind, digest(asset), clock, []string{"image/png", "text/plain"}[asset%2], uint64(10+asset))
			_, err := r.Apply(ctx, []record.Record{rec}, transport.PeerID{9})
			check(t, err)
		}
		assets := rapid.IntRange(0, 5)
		for i := range 6 {
			say(record.Announce, i)
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			asset := assets.Draw(t, "asset")
			e, err := r.Entry(ctx, digest(asset))
			check(t, err)
			switch rapid.SampledFrom([]string{"settle", "settle", "settle", "late", "edit", "remove", "enqueue", "filter", "restart"}).Draw(t, "step") {
			case "settle":
				l := replica.Local{Applied: e.ID(), State: rapid.SampledFrom([]replica.State{replica.Have, replica.TrashedHere, replica.TrashedHere, replica.Gone}).Draw(t, "state")}
				if !e.Member {
					l.State = replica.Gone
				}
				_, err = r.Settle(ctx, []replica.Settled{{Asset: digest(asset), Local: l}})
			case "late":
				_, err = r.Settle(ctx, []replica.Settled{{Asset: digest(asset), Local: replica.Local{State: replica.TrashedHere}}})
			case "edit":
				say(record.Edit, asset)
			case "remove":
				say(record.Tombstone, asset)
			case "enqueue":
				err = r.Enqueue(ctx, digest(asset))
			case "filter":
				clock++
				d, derr := control.NewDescription(clock, w.keys.ID, w.keys.Cert, control.Description{Name: "l", Filter: filter.Filter{MIMEPrefix: rapid.SampledFrom([]string{"", "text/", "image/"}).Draw(t, "filter")}})
				check(t, derr)
				rs, derr := record.SignWith(w.authors[0].key, []record.Draft{d})
				check(t, derr)
				_, err = r.Apply(ctx, rs, transport.PeerID{})
			case "restart":
				check(t, r.Close())
				r = w.open(t, s)
			}
			check(t, err)
			var trashed, bytes int64
			for i := range 6 {
				l, err := r.Local(ctx, digest(i))
				check(t, err)
				_, queued, err := r.Work(ctx, digest(i))
				check(t, err)
				if l.State == replica.TrashedHere && !queued {
					trashed++
					bytes += int64(10 + i)
				}
			}
			c := r.Counts()
			require.Equal(t, trashed, c.Trashed)
			require.Equal(t, bytes, c.TrashedBytes)
		}
		check(t, r.Close())
	})
}
