package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
	"github.com/cansync/cansync/internal/reconcile"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == childArg {
		os.Exit(childMain(os.Args[2:]))
	}
	os.Exit(m.Run())
}

func TestMiddles(t *testing.T) {
	require.Zero(t, median[int](nil))
	require.Equal(t, 2, median([]int{3, 1, 2}))
	require.Equal(t, 2, median([]int{4, 3, 1, 2}))
	ds := make([]time.Duration, 100)
	for i := range ds {
		ds[i] = time.Duration(100 - i)
	}
	require.EqualValues(t, 50, quantile(ds, 0.5))
	require.EqualValues(t, 99, quantile(ds, 0.99))
	require.EqualValues(t, 100, quantile(ds, 1))
	require.EqualValues(t, 1, quantile(ds, 0))
	require.Equal(t, []string{"0", "999", "1,000", "-12,345,678"}, []string{group(0), group(999), group(1000), group(-12_345_678)})
	runs := []synced{{took: 3, extra: 30}, {took: 1, extra: 10}, {took: 2, extra: 20}}
	require.EqualValues(t, 20, middle(runs).extra)
}

func TestArguments(t *testing.T) {
	o, err := parse([]string{"p5", "-quick", "P7B", "-runs", "7"})
	require.NoError(t, err)
	require.Equal(t, []string{"P5", "P7b"}, o.names)
	require.True(t, o.quick)
	require.Equal(t, 7, o.runs)
	_, err = parse([]string{"P99"})
	require.ErrorContains(t, err, "P99")
	_, err = run(t.Context(), []string{"-nonsense"}, io.Discard)
	require.Error(t, err)
	var out bytes.Buffer
	_, err = run(t.Context(), []string{"-list"}, &out)
	require.NoError(t, err)
	require.Equal(t, len(budgets()), bytes.Count(out.Bytes(), []byte("\n")))
}

// A budget that falls short is counted, and makes -strict fail.
func TestVerdicts(t *testing.T) {
	var out bytes.Buffer
	e := &env{w: &out, budget: "P0"}
	e.report(result{name: "a", figure: "1", limit: "≤ 2", holds: true})
	e.report(result{name: "b", figure: "3", baseline: "4", ratio: 0.75, limit: "≤ 2"})
	require.Equal(t, "P0   a: 1 | budget ≤ 2 | holds\nP0   b: 3 | baseline 4 | ratio 0.75 | budget ≤ 2 | falls short\n", out.String())
	require.Equal(t, 1, e.short)
	require.Equal(t, 2, e.lines)
}

func TestReconcileOnceCountsEveryDifference(t *testing.T) {
	base, err := reconcile.Build(benchKey, 0, randomIDs(1, 5000))
	require.NoError(t, err)
	for _, d := range []int{0, 1, 7, 100} {
		x, y, err := differing(base, d, 99)
		require.NoError(t, err)
		ex, err := reconcileOnce(x.Snapshot(), y.Snapshot())
		require.NoError(t, err)
		require.Equal(t, d, ex.missing+ex.surplus)
		require.Positive(t, ex.bytes)
		require.Zero(t, ex.scans)
	}
}

// What the seeds write must be what the services hold, or a node would take every
// asset for a new one.
func TestSeedsAreTheServicesAssets(t *testing.T) {
	r := &serviceRole{mem: cantest.New(cantest.Options{})}
	defer func() { require.NoError(t, r.mem.Close()) }()
	_, err := r.fill(t.Context(), filling{First: 5, Count: 3, Size: oldAssetSize})
	require.NoError(t, err)
	p, err := r.mem.List(t.Context(), can.ListOptions{Order: can.Oldest})
	require.NoError(t, err)
	require.Len(t, p.Assets, 3)
	for i, got := range p.Assets {
		want, _ := seedAsset(5+i, oldAssetSize)
		require.Equal(t, want, got)
	}
}

// The plain copy that others are measured against copies everything, metadata too.
func TestPlainCopyCopiesEverything(t *testing.T) {
	e := &env{w: io.Discard, root: t.TempDir(), options: options{}}
	var err error
	e.exe, err = os.Executable()
	require.NoError(t, err)
	require.NoError(t, e.scoped(t.Context(), func(ctx context.Context, e *env) error {
		from, fromURL, err := e.startService(ctx, "from", true)
		require.NoError(t, err)
		_, toURL, err := e.startService(ctx, "to", true)
		require.NoError(t, err)
		require.NoError(t, from.call(ctx, "fill", filling{Count: 30, Size: 3000}, nil))
		cp, err := e.spawn("copy", "copy", none{})
		require.NoError(t, err)
		m, err := measure(cp)
		require.NoError(t, err)
		var took time.Duration
		require.NoError(t, cp.call(ctx, "copy", copying{From: fromURL, To: toURL}, &took))
		require.Positive(t, took)
		use, err := m.end()
		require.NoError(t, err)
		require.Positive(t, use[0].peak)
		require.Error(t, cp.call(ctx, "nonsense", none{}, nil))
		var pages []can.Page
		for _, u := range []string{fromURL, toURL} {
			c, err := can.NewHTTPClient(u, can.HTTPOptions{})
			require.NoError(t, err)
			p, err := c.List(ctx, can.ListOptions{Limit: 100, Order: can.Oldest})
			require.NoError(t, err)
			require.NoError(t, c.Close())
			pages = append(pages, p)
		}
		require.Len(t, pages[0].Assets, 30)
		require.Equal(t, pages[0], pages[1])
		return nil
	}))
}
