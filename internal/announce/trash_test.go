package announce

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/inventory"
	"github.com/cansync/cansync/internal/library"
	"github.com/cansync/cansync/internal/replica"
)

func TestTrashRemovesAndUntrashAddsAgain(t *testing.T) {
	for _, lacks := range []cantest.Features{0, cantest.FeatureEvents | cantest.FeatureChanges, cantest.FeatureChangeEvents} {
		t.Run(fmt.Sprint(lacks), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t, cantest.Options{Lacks: lacks})
				l := w.library(filter.Filter{})
				w.many(0, 20)
				as, d := w.add("x", can.Metadata{Description: "one"})
				w.start()
				settle()
				w.svc.TrashNow(as.Handle)
				settle()
				require.True(t, w.entry(l, d).Tombstone())
				require.Equal(t, 1, w.count(Removed))
				w.restart()
				settle()
				require.True(t, w.entry(l, d).Tombstone(), "it stays removed")
				w.add("x", can.Metadata{}) // comes out of the trash
				settle()
				require.True(t, w.entry(l, d).Member)
				require.Equal(t, 22, w.count(Announced))
				require.EqualValues(t, 21, l.Counts().Live)
				require.Equal(t, 1, w.svc.Reads(as.Handle))
				w.close()
			})
		})
	}
}

func TestWhatTheNodeTrashedIsNoRemoval(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, cantest.Options{})
		l := w.library(filter.Filter{})
		w.many(0, 20)
		as, d := w.add("x", can.Metadata{})
		w.start()
		settle()
		item, _, err := w.inv.ByHandle(t.Context(), as.Handle)
		require.NoError(t, err)
		item.Flags |= inventory.TrashedByUs
		require.NoError(t, w.inv.Put(t.Context(), item))
		w.svc.TrashNow(as.Handle)
		settle()
		require.True(t, w.entry(l, d).Member)
		require.Zero(t, w.count(Removed))
		w.close()
	})
}

func TestTombstoneMakesTheLocalCopyTheBaseline(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, cantest.Options{Rule: cantest.HashRandom})
		l := w.library(filter.Filter{})
		as, d := w.add("x", can.Metadata{})
		as2, d2 := w.add("y", can.Metadata{})
		w.start()
		settle()
		require.NoError(t, l.Say(t.Context(), l.Removal(d), l.Removal(d2))) // by somebody
		w.restart()
		settle()
		require.True(t, w.entry(l, d).Tombstone())
		w.svc.Edit(as.Handle, can.Update{Description: set("wanted after all")})
		w.add("y", can.Metadata{}) // a new handle
		settle()
		require.Equal(t, "wanted after all", w.entry(l, d).Body.Description)
		require.True(t, w.entry(l, d2).Member)
		require.NotEmpty(t, as2.Handle)
		w.close()
	})
}

func TestMissingIsWantedAgainAndNotRemoved(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, cantest.Options{})
		l := w.library(filter.Filter{})
		w.many(0, 20)
		as, d := w.add("x", can.Metadata{})
		w.start()
		settle()
		w.svc.Delete(as.Handle)
		settle()
		require.True(t, w.entry(l, d).Member)
		_, queued, err := l.Work(t.Context(), d)
		require.NoError(t, err)
		require.True(t, queued)
		_, present, err := w.inv.Present(t.Context(), d)
		require.NoError(t, err)
		require.False(t, present)
		w.add("x", can.Metadata{})
		settle()
		_, queued, err = l.Work(t.Context(), d)
		require.NoError(t, err)
		require.False(t, queued)
		w.close()
	})
}

func (w *world) trashMany(n int) {
	for i := range n {
		d := w.digest(i)
		require.True(w.t, w.svc.TrashNow(d.String()))
	}
}

func TestBrake(t *testing.T) {
	for name, lacks := range map[string]cantest.Features{"scan": cantest.FeatureEvents | cantest.FeatureChanges, "events": 0} {
		for _, confirm := range []bool{true, false} {
			t.Run(fmt.Sprint(name, confirm), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					w := newWorld(t, cantest.Options{Lacks: lacks})
					l := w.library(filter.Filter{})
					w.many(0, 10)
					w.start()
					settle()
					w.trashMany(6)
					settle()
					removed := w.count(Removed)
					if name == "scan" {
						require.Zero(t, removed)
						require.Equal(t, 6, w.a.Held(l.ID()))
					}
					require.Less(t, removed, 6)
					require.Positive(t, w.a.Held(l.ID()))
					require.Equal(t, w.a.Held(l.ID()), w.held[l.ID()])
					w.restart()
					settle()
					require.Positive(t, w.a.Held(l.ID()), "durable")
					require.EqualValues(t, 10-removed, l.Counts().Live)
					if confirm {
						require.NoError(t, w.a.Confirm(l.ID()))
						require.EqualValues(t, 4, l.Counts().Live)
						require.Equal(t, 6, w.count(Removed))
					} else {
						require.NoError(t, w.a.Dismiss(l.ID()))
						require.EqualValues(t, 10-removed, l.Counts().Live)
						require.EqualValues(t, 6-removed, l.Counts().Queued, "they are wanted again")
					}
					require.Zero(t, w.a.Held(l.ID()))
					before := l.Counts()
					settle()
					require.Equal(t, before, l.Counts())
					w.close()
				})
			})
		}
	}
}

func TestModesAndPause(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, cantest.Options{})
		l := w.library(filter.Filter{})
		w.many(0, 30)
		w.start()
		settle()
		l.SetMode(library.ModePaused)
		as, _ := w.svc.Get(w.digest(0).String())
		w.svc.Edit(as.Handle, can.Update{User: set("u")})
		w.svc.TrashNow(w.digest(1).String())
		w.many(30, 40)
		settle()
		require.EqualValues(t, 30, l.Counts().Live)
		require.Zero(t, w.count(Edited))
		l.SetMode(library.ModeSync)
		w.a.Poke()
		time.Sleep(time.Minute)
		synctest.Wait()
		settle()
		require.EqualValues(t, 39, l.Counts().Live)
		require.Equal(t, "u", w.entry(l, w.digest(0)).Body.User)
		require.True(t, w.entry(l, w.digest(1)).Tombstone())

		l.SetMode(library.ModeReceiveOnly)
		w.many(40, 50)
		w.svc.TrashNow(w.digest(2).String())
		settle()
		require.EqualValues(t, 39, l.Counts().Live)
		local, err := l.Local(t.Context(), w.digest(2))
		require.NoError(t, err)
		require.Equal(t, replica.TrashedHere, local.State)
		l.SetMode(library.ModeSync)
		settle()
		require.EqualValues(t, 49, l.Counts().Live)
		require.Equal(t, 50, w.reads())
		w.close()
	})
}

// What was trashed while the node was off is one look, though the service lists it among
// the changes and the scan misses it: all of it waits, and is counted once.
func TestBrakeHoldsWhatWasTrashedMeanwhile(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, cantest.Options{})
		l := w.library(filter.Filter{})
		w.many(0, 5)
		var handles []string
		for i := range 60 {
			as, _ := w.add(fmt.Sprintf("more %d", i), can.Metadata{})
			handles = append(handles, as.Handle)
		}
		w.start()
		settle()
		require.EqualValues(t, 65, l.Counts().Live)
		require.NoError(t, w.a.Close())
		for _, h := range handles {
			w.svc.TrashNow(h)
		}
		w.start()
		settle()
		require.Zero(t, w.count(Removed))
		require.Equal(t, len(handles), w.a.Held(l.ID()))
		w.restart()
		settle()
		require.Zero(t, w.count(Removed))
		require.Equal(t, len(handles), w.a.Held(l.ID()))
		require.EqualValues(t, 65, l.Counts().Live)
		w.close()
	})
}
