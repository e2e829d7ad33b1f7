package inventory

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/kv"
	"github.com/cansync/cansync/internal/wire"
	"github.com/cansync/cansync/store/memory"
	"github.com/cansync/cansync/store/storetest"
)

func FuzzDecodeItem(f *testing.F) {
	f.Add([]byte{})
	f.Add(Item{}.encode())
	f.Add(Item{Digest: can.Digest{1}, Root: [32]byte{2}, Size: 3, Timestamp: 4, Baseline: Fingerprint{5}, Flags: Trashed | Bad}.encode())
	f.Add(append(Item{}.encode(), 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := decodeItem("h", b)
		if err != nil {
			require.ErrorIs(t, err, wire.ErrMalformed)
			return
		}
		require.Equal(t, b, i.encode())
		require.Equal(t, "h", i.Handle)
	})
}

func FuzzDecodeIntent(f *testing.F) {
	f.Add([]byte{})
	f.Add(Intent{Size: 1, Begun: 2, Timestamp: 3, Ambiguous: true}.encode())
	f.Add([]byte{1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := decodeIntent(can.Digest{1}, b)
		if err != nil {
			require.ErrorIs(t, err, wire.ErrMalformed)
			return
		}
		require.Equal(t, b, in.encode())
	})
}

func FuzzDecodeHandles(f *testing.F) {
	f.Add([]byte{})
	f.Add(encodeHandles([]string{"a", "bc"}))
	f.Add([]byte{0xff, 0xff, 'a'})
	f.Fuzz(func(t *testing.T, b []byte) {
		hs, err := decodeHandles(b)
		if err != nil {
			require.ErrorIs(t, err, wire.ErrMalformed)
			return
		}
		require.Equal(t, string(b), string(encodeHandles(hs)))
	})
}

// TestAgainstAModel does random things to an inventory and to a plain map.
func TestAgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ctx := t.Context()
		s := memory.New()
		defer func() { require.NoError(t, s.Close()) }()
		v := New(s)
		model := map[string]Item{}
		order := map[can.Digest][]string{} // handles in the order in which they became known
		link := func(i Item) {
			if old, ok := model[i.Handle]; ok && old.Digest != i.Digest {
				order[old.Digest] = slices.DeleteFunc(order[old.Digest], func(h string) bool { return h == i.Handle })
			}
			if !slices.Contains(order[i.Digest], i.Handle) {
				order[i.Digest] = append(order[i.Digest], i.Handle)
			}
			model[i.Handle] = i
		}
		handle := rapid.StringN(1, 2, -1).Filter(func(s string) bool { return s != "" })
		item := rapid.Custom(func(t *rapid.T) Item {
			return Item{
				Handle: rapid.SampledFrom([]string{"a", "b", "c/d", "é", "\x00"}).Draw(t, "handle"),
				Digest: can.Digest{rapid.ByteRange(1, 3).Draw(t, "digest")},
				Size:   rapid.Int64Range(0, 9).Draw(t, "size"),
				Flags:  Flags(rapid.ByteRange(0, 31).Draw(t, "flags")),
			}
		})
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				items := rapid.SliceOfN(item, 0, 4).Draw(t, "items")
				require.NoError(t, v.Put(ctx, items...))
				for _, i := range items {
					link(i)
				}
			},
			"insert": func(t *rapid.T) {
				items := rapid.SliceOfN(item, 0, 4).Draw(t, "items")
				known, err := v.Insert(ctx, items...)
				require.NoError(t, err)
				var want []Item
				for _, i := range items {
					if old, ok := model[i.Handle]; ok {
						want = append(want, old)
					} else {
						link(i)
					}
				}
				require.Equal(t, want, known)
			},
			"modify": func(t *rapid.T) {
				hs := []string{"a", "b", handle.Draw(t, "handle")}
				flags := Flags(rapid.ByteRange(0, 31).Draw(t, "flags"))
				require.NoError(t, v.Modify(ctx, hs, func(i *Item) bool { i.Flags = flags; return i.Size%2 == 0 }))
				for _, h := range hs {
					if i, ok := model[h]; ok && i.Size%2 == 0 {
						i.Flags = flags
						model[h] = i
					}
				}
			},
			"forget": func(t *rapid.T) {
				h := item.Draw(t, "item").Handle
				require.NoError(t, v.Forget(ctx, h))
				if i, ok := model[h]; ok {
					order[i.Digest] = slices.DeleteFunc(order[i.Digest], func(x string) bool { return x == h })
					delete(model, h)
				}
			},
			"": func(t *rapid.T) {
				got := map[string]Item{}
				for i, err := range v.Items(ctx) {
					require.NoError(t, err)
					got[i.Handle] = i
					one, ok, err := v.ByHandle(ctx, i.Handle)
					require.NoError(t, err)
					require.True(t, ok)
					require.Equal(t, i, one)
				}
				require.True(t, maps.Equal(model, got), "want %v, got %v", model, got)
				for d := range byte(4) {
					d := can.Digest{d}
					var want []Item
					for _, present := range []bool{true, false} {
						for _, h := range order[d] {
							if model[h].Present() == present {
								want = append(want, model[h])
							}
						}
					}
					items, err := v.ByDigest(ctx, d)
					require.NoError(t, err)
					require.Equal(t, fmt.Sprint(want), fmt.Sprint(items))
					first, ok, err := v.Present(ctx, d)
					require.NoError(t, err)
					require.Equal(t, len(want) > 0 && want[0].Present(), ok)
					if ok {
						require.Equal(t, want[0], first)
					}
				}
			},
		})
	})
}

func TestIntentsGoWithTheirItems(t *testing.T) {
	ctx := t.Context()
	s := memory.New()
	v := New(s)
	in := Intent{Digest: can.Digest{1}, Size: 5, Begun: 6, Timestamp: 7, Ambiguous: true}
	require.NoError(t, v.Begin(ctx, in))
	require.NoError(t, v.Begin(ctx, Intent{Digest: can.Digest{2}}))
	got, ok, err := v.Intent(ctx, in.Digest)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, in, got)
	n := 0
	for _, err := range v.Intents(ctx) {
		require.NoError(t, err)
		n++
	}
	require.Equal(t, 2, n)
	require.NoError(t, v.Put(ctx, Item{Handle: "h", Digest: in.Digest}))
	_, ok, err = v.Intent(ctx, in.Digest)
	require.NoError(t, err)
	require.False(t, ok)
	require.NoError(t, v.Abandon(ctx, can.Digest{2}))
	for range v.Intents(ctx) {
		t.Fatal("none is left")
	}
	for _, h := range []string{"", string(make([]byte, maxHandle+1))} {
		_, _, err = v.ByHandle(ctx, h)
		require.ErrorIs(t, err, ErrHandle)
		require.ErrorIs(t, v.Put(ctx, Item{Handle: h}), ErrHandle)
	}
	require.NoError(t, s.Close())
}

func TestHandlesOfOneContentAreBounded(t *testing.T) {
	v := New(memory.New())
	for i := range maxHandles + 10 {
		require.NoError(t, v.Put(t.Context(), Item{Handle: fmt.Sprint(i), Digest: can.Digest{1}}))
	}
	items, err := v.ByDigest(t.Context(), can.Digest{1})
	require.NoError(t, err)
	require.Len(t, items, maxHandles)
	_, ok, err := v.ByHandle(t.Context(), fmt.Sprint(maxHandles+9))
	require.NoError(t, err)
	require.True(t, ok)
}

func TestMarks(t *testing.T) {
	v := New(memory.New())
	b, err := v.Mark(t.Context(), "m")
	require.NoError(t, err)
	require.Nil(t, b)
	require.NoError(t, v.SetMark(t.Context(), "m", []byte{1}))
	b, err = v.Mark(t.Context(), "m")
	require.NoError(t, err)
	require.Equal(t, []byte{1}, b)
}

// TestStoreFailures: items are stored all or none.
func TestStoreFailures(t *testing.T) {
	failed := 0
	for n := 1; n <= 12; n++ {
		mem, boom := memory.New(), errors.New("boom")
		f := storetest.NewFaulty(mem)
		f.FailWrite(n, boom)
		err := New(f).Put(t.Context(), Item{Handle: "a", Digest: can.Digest{1}}, Item{Handle: "b", Digest: can.Digest{1}})
		items, derr := New(mem).ByDigest(t.Context(), can.Digest{1})
		require.NoError(t, derr)
		if f.Faults() == 0 {
			require.NoError(t, err)
			require.Len(t, items, 2)
			continue
		}
		failed++
		require.ErrorIs(t, err, boom)
		require.Empty(t, items)
	}
	require.Positive(t, failed)
}

func TestDamagedValuesAreErrors(t *testing.T) {
	s := memory.New()
	v := New(s)
	require.NoError(t, s.Put(t.Context(), handleKey("h"), []byte{9}))
	require.NoError(t, s.Put(t.Context(), digestKey(can.Digest{1}), []byte{9}))
	require.NoError(t, s.Put(t.Context(), intentKey(can.Digest{1}), []byte{9}))
	require.NoError(t, s.Put(t.Context(), kv.Key("n", "h", "!"), nil))
	_, _, err := v.ByHandle(t.Context(), "h")
	require.ErrorIs(t, err, wire.ErrMalformed)
	_, err = v.ByDigest(t.Context(), can.Digest{1})
	require.ErrorIs(t, err, wire.ErrMalformed)
	_, _, err = v.Intent(t.Context(), can.Digest{1})
	require.ErrorIs(t, err, wire.ErrMalformed)
	for _, err := range v.Items(t.Context()) {
		require.Error(t, err)
	}
	for _, err := range v.Intents(t.Context()) {
		require.Error(t, err)
	}
}

func TestFingerprintsTellMetadataApart(t *testing.T) {
	seen := map[Fingerprint]can.Metadata{}
	for _, m := range []can.Metadata{
		{}, {MIMEType: "a"}, {Application: "a"}, {User: "a"}, {Description: "a"}, {Filename: "a"}, {Path: "a"},
		{Tags: []string{"a"}}, {Tags: []string{"a", "b"}}, {Tags: []string{"b", "a"}}, {Tags: []string{"ab"}}, {Tags: []string{""}},
	} {
		fp := FingerprintOf(m)
		require.NotContains(t, seen, fp)
		require.NotZero(t, fp)
		seen[fp] = m
	}
}

// Fingerprints are kept in the store, so that they may not change.
func TestFingerprintsStay(t *testing.T) {
	require.Equal(t, "9d908ecfb6b256def8b49a7c504e6c88", fmt.Sprintf("%x", FingerprintOf(can.Metadata{})))
	require.Equal(t, "a5722380b921620520ceb9b07f98d83b", fmt.Sprintf("%x", FingerprintOf(can.Metadata{
		MIMEType: "image/jpeg", Application: "app", User: "anna", Description: strings.Repeat("d", 600), Filename: "f.jpg", Path: "/a/b",
		Tags: []string{"x", "y,z"},
	})))
}
