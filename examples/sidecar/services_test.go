package main

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestOtherServices walks through with CAN Services that hash timestamp and
// content, that offer only ingest, list and asset bytes, and both: the contents
// end the same, and then nothing is ingested any more.
func TestOtherServices(t *testing.T) {
	t.Parallel() // most of it is waiting for scans
	for name, c := range map[string][2]flavour{
		"timestamp":             {stamped, stamped},
		"minimal":               {{true, "content"}, {true, "content"}},
		"minimal and timestamp": {{true, "timestamp"}, {true, "timestamp"}},
		"different":             {usual, {true, "timestamp"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			otherServices(t, c[0], c[1])
		})
	}
}

func otherServices(t *testing.T, of, with flavour) {
	ca, cb, a, b := pair(t, of, with)
	fields := map[string]string{
		"mime_type": "image/jpeg", "human_file_name": "photo.jpg", "human_readable_path": "/pictures/2026", "application": "camera",
		"user": "ann", "tags": "beach,summer", "description": "At the \"sea\", with ümläuts",
	}
	ca.ingest("text stays here", map[string]string{"mime_type": "text/plain"})
	for _, s := range []*service{ca, cb} { // neither needs the other's
		s.ingest("both have it", fields)
	}
	id := share(t, a, b, `{"mime_prefix":"image/"}`)
	ca.ingest("of a", fields)
	cb.ingest("of b", fields)
	for range 2 { // by the rule of the service, one asset or two
		ca.ingest("twice", fields)
	}
	ca.ingest("", fields)
	want := slices.Sorted(maps.Keys(once("both have it", "of a", "of b", "twice", "")))
	for _, m := range []struct {
		can  *service
		side *sidecar
		more []string // contents that stay
	}{{ca, a, []string{"text stays here"}}, {cb, b, nil}} {
		until(t, "everything is there", func() bool {
			l := m.side.library(id)
			return l.State == "synced" && l.Synced == int64(len(want))
		})
		got := m.can.contents()
		for _, text := range m.more {
			require.Contains(t, got, sum([]byte(text)))
			delete(got, sum([]byte(text)))
		}
		require.Equal(t, want, slices.Sorted(maps.Keys(got)))
	}
	atRest(t, []*sidecar{a, b}, ca, cb)
	require.Equal(t, once("of b"), ca.posted())
	require.Equal(t, once("of a", "twice", ""), cb.posted())
	atA, atB := ca.contents(), cb.contents()
	for _, content := range []string{"of a", "of b"} {
		x, y := atA[sum([]byte(content))], atB[sum([]byte(content))]
		require.Len(t, x, 1)
		require.Len(t, y, 1)
		if of.minimal || with.minimal { // these make timestamps and hashes of their own, and leave out what is false
			for _, own := range []string{"hash", "timestamp", "is_corrupted", "is_trashed"} {
				delete(x[0], own)
				delete(y[0], own)
			}
		}
		require.Equal(t, []any{"beach", "summer"}, x[0]["tags"])
		require.Equal(t, x[0], y[0])
	}
}
