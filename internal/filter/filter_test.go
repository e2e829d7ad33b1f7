package filter

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/internal/wire"
)

func digest(s string) can.Digest { return sha256.Sum256([]byte(s)) }

var sample = Filter{
	Application: "camera", Tags: []string{"holiday", "2026"}, User: "ann", MIMEPrefix: "image/",
	Hashes: []can.Digest{digest("a"), digest("b")},
}

func TestEachFieldRestricts(t *testing.T) {
	m := can.Metadata{MIMEType: "image/png", Application: "camera", User: "ann", Tags: []string{"x", "2026"}}
	d := digest("a")
	require.True(t, Filter{}.Match(d, m))
	require.True(t, Filter{}.Match(can.Digest{}, can.Metadata{}))
	require.True(t, sample.Match(d, m))
	for name, change := range map[string]func(*can.Metadata){
		"application": func(m *can.Metadata) { m.Application = "Camera" },
		"user":        func(m *can.Metadata) { m.User = "" },
		"MIME type":   func(m *can.Metadata) { m.MIMEType = "imag" },
		"tags":        func(m *can.Metadata) { m.Tags = []string{"Holiday"} },
		"no tags":     func(m *can.Metadata) { m.Tags = nil },
	} {
		bad := m
		change(&bad)
		require.False(t, sample.Match(d, bad), name)
	}
	require.False(t, sample.Match(digest("c"), m))
}

func TestMIMEPrefixIgnoresCase(t *testing.T) {
	for _, c := range []struct {
		prefix, mime string
		want         bool
	}{
		{"image/", "Image/PNG", true},
		{"IMAGE/", "image/png", true},
		{"text/plain", "text/plain; charset=utf-8", true},
		{"text/plain;", "text/plain", false},
		{"image/", "", false},
		{"é", "É", false},
	} {
		require.Equal(t, c.want, Filter{MIMEPrefix: c.prefix}.Match(can.Digest{}, can.Metadata{MIMEType: c.mime}), c)
	}
}

// The model: a filter is a list of questions, each asked in the plainest way.
func model(f Filter, d can.Digest, m can.Metadata) bool {
	for _, want := range [][2]string{{f.Application, m.Application}, {f.User, m.User}} {
		if want[0] != "" && want[0] != want[1] {
			return false
		}
	}
	if !strings.HasPrefix(strings.ToLower(m.MIMEType), strings.ToLower(f.MIMEPrefix)) {
		return false
	}
	if len(f.Tags) > 0 {
		found := 0
		for _, a := range f.Tags {
			for _, b := range m.Tags {
				if a == b {
					found++
				}
			}
		}
		if found == 0 {
			return false
		}
	}
	if len(f.Hashes) > 0 {
		set := map[can.Digest]bool{}
		for _, h := range f.Hashes {
			set[h] = true
		}
		return set[d]
	}
	return true
}

func pick(names ...string) *rapid.Generator[string] { return rapid.SampledFrom(names) }

var (
	genDigest = rapid.Map(pick("a", "b", "c"), digest)
	genFilter = rapid.Custom(func(t *rapid.T) Filter {
		return Filter{
			Application: pick("", "", "p", "q").Draw(t, "application"),
			Tags:        rapid.SliceOfN(pick("r", "s", "t"), 0, 3).Draw(t, "tags"),
			User:        pick("", "", "u", "v").Draw(t, "user"),
			MIMEPrefix:  pick("", "i", "I", "im", "t").Draw(t, "mime"),
			Hashes:      rapid.SliceOfN(genDigest, 0, 3).Draw(t, "hashes"),
		}
	})
	genMeta = rapid.Custom(func(t *rapid.T) can.Metadata {
		return can.Metadata{
			Application: pick("", "p", "q", "other").Draw(t, "application"),
			Tags:        rapid.SliceOfN(pick("r", "s", "t", "z"), 0, 3).Draw(t, "tags"),
			User:        pick("", "u", "v", "other").Draw(t, "user"),
			MIMEType:    pick("", "i", "IM", "image", "t", "zzz").Draw(t, "mime"),
		}
	})
)

func TestMatchAgreesWithTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := genFilter.Draw(t, "filter")
		d, m := genDigest.Draw(t, "digest"), genMeta.Draw(t, "metadata")
		want := model(f, d, m)
		require.Equal(t, want, f.Match(d, m))
		require.Equal(t, want, f.Normalize().Match(d, m))
	})
}

func TestNormalForm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := genFilter.Draw(t, "filter")
		n := f.Normalize()
		require.Equal(t, n, n.Normalize())
		require.True(t, f.Equal(n))
		g := f
		g.Tags = rapid.Permutation(append(f.Tags, f.Tags...)).Draw(t, "order")
		require.True(t, f.Equal(g))
		o := genFilter.Draw(t, "other")
		require.Equal(t, f.Equal(o), Narrower(f, o) && Narrower(o, f))
		a, err := f.Encode()
		require.NoError(t, err)
		b, err := o.Encode()
		require.NoError(t, err)
		require.Equal(t, f.Equal(o), bytes.Equal(a, b))
		got, err := Decode(a)
		require.NoError(t, err)
		require.Equal(t, n, got)
		text, err := json.Marshal(f)
		require.NoError(t, err)
		var back Filter
		require.NoError(t, json.Unmarshal(text, &back))
		require.True(t, f.Equal(back))
	})
}

// Narrower is checked against all assets of a small world, which has a witness
// for every difference that the generator makes.
func TestNarrowerIsExact(t *testing.T) {
	type asset struct {
		d can.Digest
		m can.Metadata
	}
	var world []asset
	for _, d := range []string{"a", "b", "c", "d"} {
		for _, app := range []string{"p", "q", "x"} {
			for _, user := range []string{"u", "v", "x"} {
				for _, mime := range []string{"x", "ix", "im", "t"} {
					for _, tags := range [][]string{nil, {"r"}, {"s"}, {"t"}} {
						world = append(world, asset{digest(d), can.Metadata{Application: app, User: user, MIMEType: mime, Tags: tags}})
					}
				}
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := genFilter.Draw(t, "a"), genFilter.Draw(t, "b")
		va := rapid.SliceOfN(genFilter, 0, 3).Draw(t, "view a")
		vb := rapid.SliceOfN(genFilter, 0, 3).Draw(t, "view b")
		want, views := true, View(va).Narrower(vb)
		for _, x := range world {
			if a.Match(x.d, x.m) && !b.Match(x.d, x.m) {
				want = false
			}
			in := View(va).Match(x.d, x.m)
			require.False(t, views && in && !View(vb).Match(x.d, x.m))
			require.Equal(t, in, View(va).Normalize().Match(x.d, x.m))
		}
		require.Equal(t, want, Narrower(a, b))
	})
}

func TestViews(t *testing.T) {
	lib, own := Filter{Application: "camera"}, Filter{Tags: []string{"b"}}
	v := View{lib, {}, own, lib}
	require.True(t, v.Match(can.Digest{}, can.Metadata{Application: "camera", Tags: []string{"b"}}))
	require.False(t, v.Match(can.Digest{}, can.Metadata{Application: "camera"}))
	require.True(t, View(nil).Match(can.Digest{}, can.Metadata{}))
	require.Len(t, v.Normalize(), 2)
	require.True(t, v.Equal(View{own, lib}))
	require.True(t, v.Narrower(View{lib}))
	require.False(t, View{lib}.Narrower(v))
	require.True(t, View{}.Narrower(View{{}}))
	rapid.Check(t, func(t *rapid.T) {
		v := View(rapid.SliceOfN(genFilter, 0, 4).Draw(t, "view"))
		n := v.Normalize()
		require.Equal(t, n, n.Normalize())
		require.Equal(t, n, View(rapid.Permutation(v).Draw(t, "order")).Normalize())
		enc, err := v.Encode()
		require.NoError(t, err)
		got, err := DecodeView(enc)
		require.NoError(t, err)
		require.Equal(t, n, got)
	})
	many := make(View, MaxView+1)
	for i := range many {
		many[i].User = fmt.Sprint(i)
	}
	_, err := many.Encode()
	require.ErrorIs(t, err, ErrInvalid)
}

func TestValidateNamesTheField(t *testing.T) {
	long := strings.Repeat("x", MaxText+1)
	many := make([]can.Digest, MaxHashes+1)
	for i := range many {
		many[i] = digest(fmt.Sprint(i))
	}
	big := Filter{Hashes: many[:MaxHashes]}
	for i := range 10 {
		big.Tags = append(big.Tags, fmt.Sprint(i, long[:MaxTag-4]))
	}
	for want, f := range map[string]Filter{
		"application":  {Application: long},
		"user":         {User: "\xff"},
		"mime_prefix":  {MIMEPrefix: long},
		"tags: 65":     {Tags: make([]string, MaxTags+1)},
		"an empty tag": {Tags: []string{"a", ""}},
		"tags: 257":    {Tags: []string{long[:MaxTag+1]}},
		"hashes: 385":  {Hashes: many},
		"all-zero":     {Hashes: []can.Digest{{}}},
		"in all":       big,
	} {
		err := f.Validate()
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, want)
		_, err = f.Encode()
		require.ErrorIs(t, err, ErrInvalid)
	}
	require.NoError(t, sample.Validate())
	require.NoError(t, Filter{}.Validate())
	full := Filter{Hashes: many[:MaxHashes]}
	b, err := full.Encode()
	require.NoError(t, err)
	require.LessOrEqual(t, len(b), MaxEncoded)
}

func TestJSON(t *testing.T) {
	text, err := json.Marshal(Filter{})
	require.NoError(t, err)
	require.JSONEq(t, `{}`, string(text))
	text, err = json.Marshal(sample)
	require.NoError(t, err)
	require.JSONEq(t, `{"application":"camera","tags":["holiday","2026"],"user":"ann","mime_prefix":"image/","hashes":["`+digest("a").String()+`","`+digest("b").String()+`"]}`, string(text))

	var f Filter
	require.NoError(t, json.Unmarshal([]byte(`{"tags":[],"user":null,"application":""}`), &f))
	require.True(t, f.IsZero())
	f = sample
	for in, want := range map[string]string{
		`{"tag":["x"]}`:                   `unknown key "tag"`,
		`{"Tags":["x"]}`:                  `unknown key "Tags"`,
		`{"user":"a","user":"b"}`:         `key "user" occurs twice`,
		`{"tags":"x"}`:                    `key "tags": want an array of strings`,
		`{"user":7}`:                      `key "user": want a string`,
		`{"hashes":["xyz"]}`:              `key "hashes": want`,
		`{"hashes":["` + "AB" + `"]}`:     `key "hashes": want`,
		`[]`:                              `want an object`,
		`"x"`:                             `want an object`,
		`{"mime_prefix":{"prefix":"i/"}}`: `key "mime_prefix"`,
	} {
		err := json.Unmarshal([]byte(in), &f)
		require.ErrorIs(t, err, ErrInvalid, in)
		require.ErrorContains(t, err, want, in)
		require.Equal(t, sample, f, "unchanged")
	}
	for _, in := range []string{``, `{`, `{"user"`, `{"user":"a"}{}`, `{"user":"a"} x`} {
		require.ErrorIs(t, f.UnmarshalJSON([]byte(in)), ErrInvalid, in)
	}
}

// What a released version wrote decodes for ever. The bytes: version, the length
// of "camera" and so on.
const frozen = "01" + "0006" + "63616d657261" + "0003" + "616e6e" + "0006" + "696d6167652f" +
	"0002" + "0004" + "32303236" + "0007" + "686f6c69646179" +
	"0002" + "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d" +
	"ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"

func TestFrozenVector(t *testing.T) {
	b, err := sample.Encode()
	require.NoError(t, err)
	require.Equal(t, frozen, hex.EncodeToString(b))
}

func TestDecodeRefusesOtherForms(t *testing.T) {
	good, err := hex.DecodeString(frozen)
	require.NoError(t, err)
	for i := range good {
		_, err := Decode(good[:i])
		require.ErrorIs(t, err, wire.ErrMalformed)
	}
	for name, b := range map[string][]byte{
		"trailing":    append(bytes.Clone(good), 0),
		"version":     append([]byte{2}, good[1:]...),
		"capital":     bytes.Replace(good, []byte("image/"), []byte("Image/"), 1),
		"tag order":   bytes.Replace(good, []byte("2026"), []byte("z026"), 1),
		"no UTF-8":    bytes.Replace(good, []byte("ann"), []byte("an\xff"), 1),
		"hash order":  bytes.Replace(good, []byte{0x3e, 0x23}, []byte{0xff, 0x23}, 1),
		"empty tag":   {1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0},
		"many hashes": {1, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff},
	} {
		_, err := Decode(b)
		require.ErrorIs(t, err, wire.ErrMalformed, name)
	}
	v, err := View{sample, {User: "bob"}}.Encode()
	require.NoError(t, err)
	for i := range v {
		_, err := DecodeView(v[:i])
		require.ErrorIs(t, err, wire.ErrMalformed)
	}
	twice := append([]byte{0, 2}, v[2:]...)
	one := wire.AppendBytes(nil, good)
	twice = append(append(twice[:2:2], one...), one...)
	_, err = DecodeView(twice)
	require.ErrorIs(t, err, wire.ErrMalformed)
}

func FuzzDecode(f *testing.F) {
	good, _ := hex.DecodeString(frozen)
	f.Add(good)
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := Decode(in)
		if err != nil {
			return
		}
		out, err := got.Encode()
		if err != nil || !bytes.Equal(out, in) {
			t.Fatalf("does not encode back: %v", err)
		}
	})
}

func FuzzDecodeView(f *testing.F) {
	v, _ := View{sample, {User: "bob"}}.Encode()
	f.Add(v)
	f.Add([]byte{0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := DecodeView(in)
		if err != nil {
			return
		}
		out, err := got.Encode()
		if err != nil || !bytes.Equal(out, in) {
			t.Fatalf("does not encode back: %v", err)
		}
	})
}

func FuzzUnmarshalJSON(f *testing.F) {
	text, _ := json.Marshal(sample)
	f.Add(text)
	f.Add([]byte(`{"tags":null}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var a, b Filter
		if a.UnmarshalJSON(in) != nil {
			return
		}
		out, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out, &b); err != nil || !a.Equal(b) {
			t.Fatalf("does not come back: %v", err)
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	m := can.Metadata{MIMEType: "image/png", Application: "camera", User: "ann", Tags: []string{"x", "2026"}}
	d := digest("a")
	b.ReportAllocs()
	for b.Loop() {
		if !sample.Match(d, m) {
			b.Fatal("no match")
		}
	}
}
