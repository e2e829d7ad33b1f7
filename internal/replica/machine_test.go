package replica_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/capability"
	"github.com/cansync/cansync/internal/control"
	"github.com/cansync/cansync/internal/filter"
	"github.com/cansync/cansync/internal/record"
	"github.com/cansync/cansync/internal/replica"
	"github.com/cansync/cansync/internal/tier"
	"github.com/cansync/cansync/store/memory"
	"github.com/cansync/cansync/transport"
)

// truth is what all members together said, the slow and obvious way: the newest
// record of each author about each asset, and the newest description.
type truth struct {
	model
	description record.Record
	filter      filter.Filter
}

func (m *truth) describe(r record.Record, f filter.Filter) {
	if m.description.Kind == 0 || record.Newer(r.Header, m.description.Header) {
		m.description, m.filter = r, f
	}
}

// members are the live records that a member with the view of its own has.
func (m *truth) members(own filter.Filter) map[can.Digest]record.ID {
	v, out := filter.View{m.filter, own}, map[can.Digest]record.ID{}
	for d := range m.model {
		live := m.live(d)
		if live.Kind == record.Tombstone {
			continue
		}
		if b, err := record.DecodeAsset(live.Body); err == nil && v.Match(d, b.Metadata()) {
			out[d] = live.ID()
		}
	}
	return out
}

var filters = []filter.Filter{{}, {MIMEPrefix: "image/"}, {MIMEPrefix: "text/"}, {Tags: []string{"red"}}}

// faults counts what happened to the runs, lest they show nothing.
type faults struct{ cut, apart, restarts, views, filters, deleted int }

// run is one library in the hands of a few members.
type run struct {
	truth
	now    time.Time
	peers  []*member
	groups []int
	seen   *faults
}

func newRun(t *rapid.T, w *world, v *record.Verifier, seen *faults) *run {
	m := &run{truth: truth{model: model{}, filter: filter.Filter{MIMEPrefix: "image/"}}, now: start, seen: seen}
	for i := range rapid.IntRange(3, 5).Draw(t, "peers") {
		skew := time.Duration(rapid.IntRange(-60, 60).Draw(t, "skew")) * time.Second
		p := &member{w: w, who: i, store: memory.New(), check: v, now: func() time.Time { return m.now.Add(skew) }}
		p.open(t)
		_, err := p.r.Apply(context.Background(), w.control, transport.PeerID{})
		check(t, err)
		m.peers = append(m.peers, p)
	}
	m.groups = make([]int, len(m.peers))
	for _, r := range w.control {
		if r.Kind == record.Description {
			m.describe(r, m.filter)
		}
	}
	return m
}

func (m *run) peer(t *rapid.T) *member { return rapid.SampledFrom(m.peers).Draw(t, "peer") }

func (m *run) apart(a, b *member) bool { return m.groups[a.who] != m.groups[b.who] }

// write publishes what the user of a member did to an asset.
func (m *run) write(t *rapid.T, p *member, remove bool) {
	ctx := context.Background()
	d := digest(rapid.IntRange(0, 7).Draw(t, "asset"))
	e, err := p.r.Entry(ctx, d)
	check(t, err)
	draft := record.Removal(0, p.w.keys.ID, d, p.w.authors[p.who].cert)
	if remove {
		if !e.Known() || e.Tombstone() {
			return
		}
		m.seen.deleted++
	} else {
		body := record.AssetBody{
			Size: uint64(rapid.IntRange(0, 9).Draw(t, "size")), Root: [32]byte{1},
			MIMEType: rapid.SampledFrom([]string{"image/png", "text/plain"}).Draw(t, "type"),
			Tags:     []string{rapid.SampledFrom([]string{"blue", "red"}).Draw(t, "tag")},
		}
		kind := record.Announce
		if e.Known() {
			kind = record.Edit
		}
		draft, err = record.Asset(kind, 0, p.w.keys.ID, d, p.w.authors[p.who].cert, body)
		check(t, err)
	}
	rs, err := p.r.Publish(ctx, p.sign, []record.Draft{draft})
	check(t, err)
	require.Len(t, rs, 1)
	m.add(rs[0])
	e, err = p.r.Entry(ctx, d)
	check(t, err)
	require.Equal(t, rs[0].ID(), e.ID(), "what a member says last is what it reads")
}

func (m *run) setFilter(t *rapid.T) {
	p := m.peers[rapid.IntRange(0, 1).Draw(t, "admin")]
	f := rapid.SampledFrom(filters).Draw(t, "filter")
	d, err := control.NewDescription(0, p.w.keys.ID, p.w.authors[p.who].cert, control.Description{Name: "l", Filter: f})
	check(t, err)
	rs, err := p.r.Publish(context.Background(), p.sign, []record.Draft{d})
	check(t, err)
	m.describe(rs[0], f)
	m.seen.filters++
}

// setView changes a member's view. The first member sees everything, or nobody would
// keep what lies outside all views.
func (m *run) setView(t *rapid.T) {
	p := m.peers[rapid.IntRange(1, len(m.peers)-1).Draw(t, "peer")]
	f := rapid.SampledFrom(filters).Draw(t, "view")
	check(t, p.r.SetOwnView(context.Background(), f))
	p.own = f
	m.seen.views++
}

func (m *run) restart(t require.TestingT, p *member) {
	ctx := context.Background()
	counts := p.r.Counts()
	snap, err := p.r.Snapshot(ctx, false, nil)
	check(t, err)
	check(t, p.r.Close())
	p.open(t)
	again, err := p.r.Snapshot(ctx, false, nil)
	check(t, err)
	require.Equal(t, counts, p.r.Counts())
	require.Equal(t, snap.Digest(), again.Digest())
	m.seen.restarts++
}

func (m *run) sync(t *rapid.T) {
	a, b := m.peer(t), m.peer(t)
	if a == b {
		return
	}
	if m.apart(a, b) {
		m.seen.apart++
		return
	}
	budget := rapid.SampledFrom([]int{-1, -1, 0, 1, 3}).Draw(t, "budget")
	if _, cut := meet(t, a, b, budget); cut {
		m.seen.cut++
	} else {
		m.settle(t, a, b)
	}
}

// settle checks that a whole meeting left nothing to say.
func (m *run) settle(t require.TestingT, a, b *member) {
	tr, _ := meet(t, a, b, -1)
	require.True(t, tr.equal)
	require.Zero(t, tr.records)
	require.Zero(t, tr.offers)
	require.Equal(t, 2, tr.rounds, "one for each set")
	v := replica.NewSight(a.view(), b.view()).Link()
	require.Equal(t, a.sees(t, v), b.sees(t, v), "equal sets, the same state")
}

// heal lets all meet, and checks that each has what the truth says.
func (m *run) heal(t require.TestingT) {
	clear(m.groups)
	for range 2 {
		for _, p := range m.peers[1:] {
			meet(t, p, m.peers[0], -1)
		}
	}
	for _, p := range m.peers[1:] {
		m.settle(t, p, m.peers[0])
	}
	for _, p := range m.peers {
		have := map[can.Digest]record.ID{}
		for e, err := range p.r.Entries(context.Background()) {
			check(t, err)
			if e.Member {
				have[e.Asset] = e.ID()
			}
		}
		require.Equal(t, m.members(p.own), have, "peer %d", p.who)
	}
}

// whatever members do, and whoever meets whom when, all end with the truth.
func TestMembersEndWithTheTruth(t *testing.T) {
	w := newWorld(t, capability.AllRights, capability.Read|capability.Write, capability.Read|capability.Write, capability.Read|capability.Write)
	v := record.NewVerifier(0)
	var seen faults
	tier.Steps(t, 60)
	tier.Check(t, 500, 20_000, func(t *rapid.T) {
		m := newRun(t, w, v, &seen)
		turn := 0
		t.Repeat(map[string]func(*rapid.T){
			"add":    func(t *rapid.T) { m.write(t, m.peer(t), false) },
			"edit":   func(t *rapid.T) { m.write(t, m.peer(t), false) },
			"delete": func(t *rapid.T) { m.write(t, m.peer(t), true) },
			"filter": m.setFilter,
			"view":   m.setView,
			"partition": func(t *rapid.T) {
				for i := range m.groups {
					m.groups[i] = rapid.IntRange(0, 1).Draw(t, "group")
				}
			},
			"together": func(*rapid.T) { clear(m.groups) },
			"sync":     m.sync,
			"meet":     m.sync,
			"restart":  func(t *rapid.T) { m.restart(t, m.peer(t)) },
			"heal": func(t *rapid.T) {
				if rapid.IntRange(0, 5).Draw(t, "all") == 0 {
					m.heal(t)
				}
			},
			"": func(t *rapid.T) {
				m.now = m.now.Add(time.Second)
				turn++
				p, d := m.peers[turn%len(m.peers)], digest(turn%8)
				e, err := p.r.Entry(context.Background(), d)
				check(t, err)
				require.False(t, e.Known() && record.Newer(e.Live.Header, m.live(d).Header), "nobody said that")
			},
		})
		m.heal(t)
		for _, p := range m.peers {
			check(t, p.r.SetOwnView(context.Background(), filter.Filter{}))
			p.own = filter.Filter{}
		}
		m.heal(t)
		for _, p := range m.peers {
			agree(t, m.model, filter.View{m.filter}, p.r)
			check(t, p.r.Close())
		}
	})
	t.Logf("%+v", seen)
	for name, n := range map[string]int{
		"cut sessions": seen.cut, "refused meetings": seen.apart, "restarts": seen.restarts,
		"views": seen.views, "filters": seen.filters, "removals": seen.deleted,
	} {
		require.Positive(t, n, name)
	}
}
