package simulate

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
)

// The checks find what they are for: each case breaks one promise behind the
// world's back.
func TestChecksFindWhatIsWrong(t *testing.T) {
	var d can.Digest
	ingest := func(w *World, p *Peer, text string) {
		_, err := p.svc.Ingest(w.t.Context(), can.Ingest{
			Size: int64(len(text)), Content: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader([]byte(text))), nil },
		})
		require.NoError(w.t, err)
	}
	for name, c := range map[string]struct {
		spoil func(w *World)
		want  string // one of several
	}{
		"lost content": {func(w *World) {
			h, _ := w.peers[1].Find(d)
			require.True(w.t, w.peers[1].svc.Delete(h.Handle))
		}, "lacks the content"},
		"lost record": {func(w *World) {
			// As if it had been there all the time.
			lost := w.asset(can.Digest{1})
			lost.authors[w.peers[0]], lost.in = true, true
			w.assets[d], w.assets[can.Digest{1}] = lost, w.assets[d]
			w.assets[can.Digest{1}].texts["other"] = true
		}, "which nobody wrote"},
		"unexpected": {func(w *World) { delete(w.assets, d) }, "which nobody added"},
		"outside the filter": {func(w *World) {
			w.assets[d].in, w.assets[d].out = false, true
		}, "never matched the filter"},
		"twice":      {func(w *World) { ingest(w, w.peers[1], "the content") }, "2 times"},
		"unverified": {func(w *World) { ingest(w, w.peers[1], "other content") }, "the content of nothing that was added"},
		"other metadata": {func(w *World) {
			h, _ := w.peers[1].Find(d)
			text := "another"
			require.True(w.t, w.peers[1].svc.Edit(h.Handle, can.Update{Description: &text}))
		}, "has the metadata|with the description \"another\", which nobody wrote"}, // by whether the node heard of it
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{Peers: 2, Faults: []Fault{}}
			o.Service = mixless
			Run(t, o, func(w *World) {
				d = w.peers[0].Add([]byte("the content"), can.Metadata{MIMEType: "image/png", Description: "x"})
				w.Settle()
				w.Sleep(time.Minute)
				w.Check()
				c.spoil(w)
				wrong := strings.Join(append(w.disagreements(), w.faults()...), "\n")
				require.True(w.t, slices.ContainsFunc(strings.Split(c.want, "|"), func(want string) bool {
					return strings.Contains(wrong, want)
				}), "%q has none of %q", wrong, c.want)
			})
		})
	}
}

func TestReplayNamesTheTest(t *testing.T) {
	require.Equal(t, "go test -run '^TestX$/^a_b$' . -simulate.seed 17", replay("TestX/a_b", 17))
}

// mixless makes services that tell two ingests of one content apart.
func mixless(_ int, o *cantest.Options) { o.Rule, o.Lacks = cantest.HashRandom, 0 }
