package announce

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/filter"
)

func TestAnnouncesWhatIsThereAndWhatComes(t *testing.T) {
	for _, rule := range []cantest.HashRule{cantest.HashContent, cantest.HashTimestamp, cantest.HashRandom} {
		t.Run(rule.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t, cantest.Options{Rule: rule})
				l := w.library(filter.Filter{})
				w.many(0, 1200)
				w.start()
				settle()
				require.EqualValues(t, 1200, l.Counts().Live)
				require.Equal(t, 1200, w.reads())
				at := time.Now()
				_, d := w.add("news", can.Metadata{Description: "hot"})
				synctest.Wait()
				require.Zero(t, time.Since(at), "the event suffices")
				require.Equal(t, "hot", w.entry(l, d).Body.Description)
				w.restart()
				settle()
				require.Equal(t, 1201, w.reads(), "nothing is read again")
				require.Equal(t, 1201, w.count(Announced))
				second := w.library(filter.Filter{Tags: []string{"t1"}})
				settle()
				require.EqualValues(t, 400, second.Counts().Live)
				require.Equal(t, 1201, w.reads())
				require.Zero(t, w.count(Failed))
				w.close()
			})
		})
	}
}
