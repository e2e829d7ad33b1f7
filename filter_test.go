package cansync_test

import (
	"crypto/sha256"
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cansync/cansync"
	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
)

// says reads a filter key by key, the way its documentation does.
func says(f cansync.Filter, d can.Digest, m can.Metadata) bool {
	application := f.Application == "" || m.Application == f.Application
	user := f.User == "" || m.User == f.User
	mime := strings.HasPrefix(strings.ToLower(m.MIMEType), strings.ToLower(f.MIMEPrefix))
	tags := len(f.Tags) == 0
	for _, want := range f.Tags {
		for _, has := range m.Tags {
			tags = tags || want == has
		}
	}
	hashes := len(f.Hashes) == 0
	for _, h := range f.Hashes {
		hashes = hashes || h == d.String()
	}
	return application && user && mime && tags && hashes
}

// The alphabets are small, so that what is drawn meets often.
var (
	anyText = rapid.SampledFrom([]string{"", "a", "A", "aa", "b", "ä", " a"})
	anyTag  = rapid.SampledFrom([]string{"x", "X", "xy", "y", "grün"})
	anyMIME = rapid.SampledFrom([]string{"", "image/png", "Image/JPEG", "image", "text/plain; charset=utf-8", "text/", "image/"})
	anyHash = rapid.Map(rapid.ByteRange(0, 3), func(b byte) can.Digest { return sha256.Sum256([]byte{b}) })
)

func anyFilter(t *rapid.T) cansync.Filter {
	f := cansync.Filter{
		Application: anyText.Draw(t, "application"), User: anyText.Draw(t, "user"), MIMEPrefix: anyMIME.Draw(t, "prefix"),
		Tags: rapid.SliceOfN(anyTag, 0, 3).Draw(t, "tags"),
	}
	for _, d := range rapid.SliceOfN(anyHash, 0, 2).Draw(t, "hashes") {
		f.Hashes = append(f.Hashes, d.String())
	}
	return f
}

func anyMetadata(t *rapid.T) can.Metadata {
	return can.Metadata{
		Application: anyText.Draw(t, "application"), User: anyText.Draw(t, "user"), MIMEType: anyMIME.Draw(t, "MIME"),
		Tags: rapid.SliceOfN(anyTag, 0, 3).Draw(t, "tags"),
	}
}

// agree changes metadata so that some keys of the filter, or all, are satisfied.
func agree(t *rapid.T, f cansync.Filter, m *can.Metadata) {
	all := rapid.Bool().Draw(t, "agrees in all")
	for _, key := range []struct {
		name string
		set  func()
	}{
		{"application", func() { m.Application = f.Application }},
		{"user", func() { m.User = f.User }},
		{"prefix", func() { m.MIMEType = strings.ToUpper(f.MIMEPrefix) + "x" }},
		{"tags", func() { m.Tags = append(m.Tags, f.Tags...) }},
	} {
		if all || rapid.Bool().Draw(t, "agrees in "+key.name) {
			key.set()
		}
	}
}

func TestFilterSelectsWhatItSays(t *testing.T) {
	matched, refused := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		f, m, d := anyFilter(t), anyMetadata(t), anyHash.Draw(t, "digest")
		agree(t, f, &m)
		require.NoError(t, f.Validate())
		want := says(f, d, m)
		require.Equal(t, want, f.Match(d, m), "%+v of %+v", f, m)
		if want {
			matched++
		} else {
			refused++
		}

		// An empty key restricts nothing: clearing one never takes an asset away.
		for _, clear := range []func(*cansync.Filter){
			func(f *cansync.Filter) { f.Application = "" }, func(f *cansync.Filter) { f.User = "" },
			func(f *cansync.Filter) { f.MIMEPrefix = "" }, func(f *cansync.Filter) { f.Tags = nil },
			func(f *cansync.Filter) { f.Hashes = nil },
		} {
			wider := f
			clear(&wider)
			require.True(t, !want || wider.Match(d, m))
		}
		require.True(t, cansync.Filter{}.Match(d, m))
		require.Equal(t, f.IsZero(), f.Application+f.User+f.MIMEPrefix == "" && len(f.Tags)+len(f.Hashes) == 0)

		// JSON is the form in which users write filters.
		text, err := json.Marshal(f)
		require.NoError(t, err)
		var back cansync.Filter
		require.NoError(t, json.Unmarshal(text, &back))
		require.Equal(t, want, back.Match(d, m))
	})
	require.Positive(t, matched)
	require.Positive(t, refused)
}

func TestFilterKeysAlone(t *testing.T) {
	d := can.Digest(sha256.Sum256([]byte("picture")))
	m := can.Metadata{MIMEType: "image/png", Application: "camera", User: "ann", Tags: []string{"sea", "sun"}}
	for name, c := range map[string]struct {
		f    cansync.Filter
		want bool
	}{
		"nothing":             {cansync.Filter{}, true},
		"application":         {cansync.Filter{Application: "camera"}, true},
		"other application":   {cansync.Filter{Application: "Camera"}, false},
		"part of application": {cansync.Filter{Application: "cam"}, false},
		"user":                {cansync.Filter{User: "ann"}, true},
		"other user":          {cansync.Filter{User: "anna"}, false},
		"one of the tags":     {cansync.Filter{Tags: []string{"snow", "sun"}}, true},
		"no tag":              {cansync.Filter{Tags: []string{"snow", "Sun", "su"}}, false},
		"no tags":             {cansync.Filter{Tags: []string{}}, true},
		"prefix":              {cansync.Filter{MIMEPrefix: "image/"}, true},
		"prefix in capitals":  {cansync.Filter{MIMEPrefix: "IMAGE/P"}, true},
		"other prefix":        {cansync.Filter{MIMEPrefix: "image/png "}, false},
		"hash":                {cansync.Filter{Hashes: []string{strings.Repeat("0", 64), d.String()}}, true},
		"other hash":          {cansync.Filter{Hashes: []string{strings.Repeat("0", 64)}}, false},
		"no digest":           {cansync.Filter{Hashes: []string{"picture"}}, false},
		"hash in capitals":    {cansync.Filter{Hashes: []string{strings.ToUpper(d.String())}}, false},
		"all":                 {cansync.Filter{Application: "camera", User: "ann", Tags: []string{"sea"}, MIMEPrefix: "image/png", Hashes: []string{d.String()}}, true},
		"all but one":         {cansync.Filter{Application: "camera", User: "ben", Tags: []string{"sea"}, MIMEPrefix: "image/png", Hashes: []string{d.String()}}, false},
	} {
		require.Equal(t, c.want, c.f.Match(d, m), name)
	}
}

func TestFilterErrorsNameTheKey(t *testing.T) {
	many := make([]string, 500)
	for i := range many {
		many[i] = can.Digest(sha256.Sum256([]byte{byte(i), byte(i >> 8)})).String()
	}
	for key, f := range map[string]cansync.Filter{
		"application": {Application: strings.Repeat("a", 2000)},
		"user":        {User: "a\xff"},
		"mime_prefix": {MIMEPrefix: strings.Repeat("i", 2000)},
		"tags":        {Tags: []string{"a", ""}},
		"hashes":      {Hashes: []string{"not a digest"}},
	} {
		err := f.Validate()
		require.ErrorIs(t, err, cansync.ErrFilter, key)
		require.ErrorContains(t, err, key)
	}
	require.ErrorIs(t, cansync.Filter{Hashes: many}.Validate(), cansync.ErrFilter)
	require.ErrorIs(t, cansync.Filter{Tags: many}.Validate(), cansync.ErrFilter)
	require.ErrorIs(t, cansync.Filter{Hashes: []string{strings.Repeat("0", 64)}}.Validate(), cansync.ErrFilter)

	err := cansync.Filter{Hashes: []string{strings.Repeat("z", 1<<20)}}.Validate()
	require.Less(t, len(err.Error()), 400, "a long hash must not fill a log")
}

// A CAN Service names its assets by handles of its own, which mean nothing on
// another machine: what is replicated are digests.
func TestHashesMayBeHandles(t *testing.T) {
	for _, rule := range []cantest.HashRule{cantest.HashContent, cantest.HashTimestamp, cantest.HashRandom} {
		t.Run(rule.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				svc := cantest.New(cantest.Options{Rule: rule})
				alone := newAlone(t, svc)
				a := svc.Add([]byte("a picture"), can.Metadata{MIMEType: "image/png"})
				svc.Add([]byte("another"), can.Metadata{MIMEType: "image/png"})
				digest := can.Digest(sha256.Sum256([]byte("a picture"))).String()
				elsewhere := can.Digest(sha256.Sum256([]byte("not here"))).String()

				for name, hashes := range map[string][]string{"handle": {a.Handle}, "digest": {digest}} {
					p, err := alone.Preview(t.Context(), cansync.Filter{Hashes: hashes})
					require.NoError(t, err, name)
					require.Equal(t, []string{digest}, p.Filter.Hashes, name)
				}
				both := cansync.Filter{Hashes: []string{a.Handle, elsewhere, a.Handle}}
				p, err := alone.Preview(t.Context(), both)
				require.NoError(t, err)
				require.Equal(t, []string{elsewhere}, p.Unknown)
				require.ElementsMatch(t, []string{digest, elsewhere}, p.Filter.Hashes)

				lib, err := alone.CreateLibrary(t.Context(), "chosen", both)
				require.NoError(t, err)
				require.ElementsMatch(t, []string{digest, elsewhere}, lib.Filter().Hashes)
				require.NoError(t, lib.SetFilter(t.Context(), cansync.Filter{Hashes: []string{a.Handle}}))
				require.Equal(t, []string{digest}, lib.Filter().Hashes)

				_, err = alone.CreateLibrary(t.Context(), "none", cansync.Filter{Hashes: []string{"no handle, no digest"}})
				require.ErrorIs(t, err, cansync.ErrFilter)
				require.ErrorContains(t, err, "hashes")
				require.Len(t, alone.Libraries(), 1, "a library was made all the same")
			})
		})
	}
}

func TestPreviewCountsWhatMatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := cantest.New(cantest.Options{})
		alone := newAlone(t, svc)
		for i := range 30 {
			m := can.Metadata{MIMEType: "text/plain", Tags: []string{"odd"}}
			if i%3 == 0 {
				m = can.Metadata{MIMEType: "image/png", User: "ann"}
			}
			svc.Add([]byte{byte(i)}, m)
		}
		for _, c := range []struct {
			f    cansync.Filter
			want int
		}{
			{cansync.Filter{}, 30},
			{cansync.Filter{MIMEPrefix: "image/"}, 10},
			{cansync.Filter{Tags: []string{"odd", "even"}}, 20},
			{cansync.Filter{Tags: []string{"odd"}, User: "ann"}, 0},
		} {
			p, err := alone.Preview(t.Context(), c.f)
			require.NoError(t, err)
			require.Equal(t, c.want, p.Matches, "%+v", c.f)
			require.Empty(t, p.Unknown)
		}
		svc.SetDown(true)
		p, err := alone.Preview(t.Context(), cansync.Filter{User: "ann"})
		require.NoError(t, err)
		require.Equal(t, -1, p.Matches, "a service that is down has no count")
	})
}
