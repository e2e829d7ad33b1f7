package session

import (
	"bytes"
	"crypto/rand"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/overlay"
	"github.com/cansync/cansync/internal/reconcile"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/store/memory"
	"github.com/cansync/cansync/transport"
)

// written keeps what a link writes.
type written struct {
	transport.Stream
	buf bytes.Buffer
}

func (w *written) Write(b []byte) (int, error)      { return w.buf.Write(b) }
func (w *written) SetWriteDeadline(time.Time) error { return nil }

// records returns the asset records among the frames.
func (w *written) records(t *testing.T) (out []record.Record) {
	fr := wire.NewFrameReader(&w.buf, 0)
	for w.buf.Len() > 0 {
		typ, b, err := fr.Read()
		require.NoError(t, err)
		if typ == frameRecords {
			_, recs, err := decodeRecords(b)
			require.NoError(t, err)
			out = append(out, recs...)
		}
	}
	return out
}

// keeper is a replica with an author.
type keeper struct {
	*replica.Replica
	t    *testing.T
	key  capability.SigningKey
	cert capability.CertID
}

func newKeeper(t *testing.T) *keeper { return newKeeperOn(t, func(*replica.Options) {}) }

func newKeeperOn(t *testing.T, set func(*replica.Options)) *keeper {
	dev, err := capability.NewDevice(rand.Reader)
	require.NoError(t, err)
	owner, err := capability.NewSigningKey(rand.Reader)
	require.NoError(t, err)
	id := capability.LibraryID(owner.Public())
	root, err := capability.NewRoot(owner, dev.Member(id), rand.Reader)
	require.NoError(t, err)
	opts := replica.Options{
		Library: id, Store: memory.New(), Verifier: record.NewVerifier(0), Now: time.Now, Rand: rand.Reader,
	}
	set(&opts)
	r, err := replica.Open(t.Context(), opts)
	require.NoError(t, err)
	k := &keeper{r, t, dev.Author(id), root.ID()}
	member, err := control.NewMember(0, root)
	require.NoError(t, err)
	k.publish(member)
	desc, err := control.NewDescription(0, id, root.ID(), control.Description{Name: "l"})
	require.NoError(t, err)
	k.publish(desc)
	return k
}

func (k *keeper) publish(d record.Draft) record.Record {
	rs, err := k.Publish(k.t.Context(), func(ds []record.Draft) ([]record.Record, error) {
		return record.SignWith(k.key, ds)
	}, []record.Draft{d})
	require.NoError(k.t, err)
	require.Len(k.t, rs, 1)
	return rs[0]
}

func (k *keeper) say(kind record.Kind, asset can.Digest, mime string) record.Record {
	d, err := record.Asset(kind, 0, k.Library(), asset, k.cert, record.AssetBody{Size: 1, Root: [32]byte{1}, MIMEType: mime})
	require.NoError(k.t, err)
	return k.publish(d)
}

// link returns a link that writes to w.
func (k *keeper) link(w *written) *link {
	return &link{lib: &Library{Replica: k.Replica}, stream: w, out: newOutbox(), again: make(chan struct{}, 1), seen: overlay.NewSeen(64, [16]byte{})}
}

// What a peer asked for may have left its view before it is sent: it gets the header.
func TestMetadataOutsideAViewIsNotSent(t *testing.T) {
	ctx := t.Context()
	k := newKeeper(t)
	image, text := can.Digest{1}, can.Digest{2}
	first := k.say(record.Announce, image, "image/png")
	was := k.say(record.Announce, text, "image/png")
	snap, err := k.Snapshot(ctx, false, filter.View{{MIMEPrefix: "image/"}})
	require.NoError(t, err)
	require.Equal(t, 2, snap.Len(), "a round begins with both")

	w := &written{}
	l := k.link(w)
	view, err := filter.View{{MIMEPrefix: "image/"}}.Encode()
	require.NoError(t, err)
	require.NoError(t, l.learnView(view))
	bodies := func(recs []record.Record) map[can.Digest]bool {
		out := map[can.Digest]bool{}
		for _, r := range recs {
			require.NoError(t, r.Validate())
			out[can.Digest(r.Subject)] = r.HasBody()
		}
		return out
	}
	ids := []reconcile.ID{reconcile.ID(first.ID()), reconcile.ID(was.ID())}
	require.NoError(t, l.serve(ctx, order{ids: ids}))
	require.Equal(t, map[can.Digest]bool{image: true, text: true}, bodies(w.records(t)))

	// An author's newest record replaces those before, so that the text is asked for
	// by its own id, as it is when it came into the view and left it again.
	now := k.say(record.Edit, text, "text/plain")
	ids = append(ids, reconcile.ID(now.ID()))
	require.NoError(t, l.serve(ctx, order{ids: ids}))
	require.Equal(t, map[can.Digest]bool{image: true, text: false}, bodies(w.records(t)))
	require.NoError(t, l.serve(ctx, order{all: true}))
	require.Equal(t, map[can.Digest]bool{image: true}, bodies(w.records(t)))
	require.NoError(t, l.serve(ctx, order{hand: true, ids: ids}))
	require.Empty(t, w.records(t), "what is owed goes to those who see everything")
	// The peer still holds the image that the text was.
	require.NoError(t, l.correct(ctx, []record.Record{was}, nil))
	_, push := l.out.urgent()
	require.Len(t, push, 1)
	require.Equal(t, now.ID(), push[0].ID())
	require.False(t, push[0].HasBody())
	require.NoError(t, k.Close())
}

// A peer that has not told its view is sent no metadata.
func TestNothingIsPushedBeforeTheViewIsTold(t *testing.T) {
	k := newKeeper(t)
	l := k.link(&written{})
	var last replica.Applied
	k.Observe(func(ap replica.Applied) { last = ap })
	k.say(record.Announce, can.Digest{3}, "image/png")
	require.Len(t, last.Records, 1)
	l.push(last)
	_, push := l.out.urgent()
	require.Empty(t, push)
	require.NoError(t, l.learnView([]byte{0, 0}))
	l.push(last)
	_, push = l.out.urgent()
	require.Len(t, push, 1)
	require.NoError(t, k.Close())
}
