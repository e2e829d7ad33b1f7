package can

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// slowPage is what plainPage must agree with.
func slowPage(b []byte) (page, error) {
	data, err := decodeEnvelope(b)
	if err != nil {
		return page{}, err
	}
	return decodePage(data)
}

const plainAsset = `{"hash":"ab12","timestamp":1750000000000,"mime_type":"image/jpeg","size":1024,"application":null,"user":"anna",` +
	`"description":"a \"b\" \u00e9 é 日","tags":["x","","y"],"human_filename":"f.jpg","human_path":"/a/b","is_trashed":false,"is_corrupted":true}`

// usual are answers as services write them, which must be read the quick way.
var usual = []string{
	`{"status":"success","data":{"items":[` + plainAsset + `,` + plainAsset + `],"total":2,"limit":500,"offset":0}}`,
	" {\r\n\t\"data\" : [ " + plainAsset + " ] , \"status\" : \"success\" } \n",
	`[` + plainAsset + `]`, `[]`, `[{"hash":"h"}]`,
	`{"status":"success","data":{"assets":[{"hash":"h","tags":"a, b,,c","human_file_name":"n","human_readable_path":"p"}],"next_cursor":"c9","more":true}}`,
	`{"status":"success","data":{"items":[],"total":null,"next_cursor":null,"more":null}}`,
	`{"status":"success","error":null,"data":{"items":[{"hash":"h","tags":null,"size":null,"is_trashed":null,"timestamp":0,"extra":{"a":[1,-2.5e3,"\\",{}]},"Score":-0.5}]}}`,
	`{"status":"success","data":{}}`,
}

// odd are answers of which the quick way says nothing.
var odd = []string{
	``, `null`, `{}`, `[null]`, `{"status":"error","data":{"items":[]}}`, `{"status":"success"}`, `{"status":"success","data":null}`,
	`{"data":[],"status":"success"} x`, `[{"hash":"h"},]`, `[{"hash":"h",}]`, `[{"hash":"h"}`, `[{"hash":"h" "size":1}]`, `[{"hash":7}]`, `[{"hash":""}]`,
	`[{"hash":"h","size":"12"}]`, `[{"hash":"h","size":1.0}]`, `[{"hash":"h","size":1e3}]`, `[{"hash":"h","size":-1}]`, `[{"hash":"h","size":01}]`,
	`[{"hash":"h","size":9223372036854775808}]`, `[{"hash":"h","is_trashed":1}]`, `[{"hash":"h","tags":["a",3]}]`,
	`[{"hash":"h","HASH":"i"}]`, `[{"hash":"h","hash":"i"}]`, `[{"haſh":"h"}]`, `[{"ha\u0073h":"h"}]`, `[{"hash":"h","uſer":"i"}]`,
	"[{\"hash\":\"h\",\"user\":\"a\nb\"}]", `[{"hash":"h","user":"\x"}]`, `[{"hash":"h","other":"\x"}]`, `[{"hash":"h","other":01}]`, `[{"hash":"h","other":tru}]`,
	`{"status":"success","data":{"items":[],"assets":[{"hash":"h"}]}}`, `{"status":"success","data":{"total":-1}}`, `{"status":"success","data":{"total":4294967296}}`,
	`[{"hash":"h","deep":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}]`,
}

func TestPlainPage(t *testing.T) {
	for _, s := range usual {
		p, ok := plainPage([]byte(s))
		require.True(t, ok, s)
		want, err := slowPage([]byte(s))
		require.NoError(t, err, s)
		require.Equal(t, want, p, s)
	}
	for _, s := range odd {
		_, ok := plainPage([]byte(s))
		require.False(t, ok, s)
	}
}

func FuzzPlainPage(f *testing.F) {
	for _, s := range usual {
		f.Add([]byte(s))
	}
	for _, s := range odd {
		f.Add([]byte(s))
	}
	f.Add([]byte("[{\"hash\":\"h\",\"user\":\"\xff\xed\xa0\x80\\ud800\"}]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := plainPage(b)
		if !ok {
			return
		}
		want, err := slowPage(b)
		require.NoError(t, err)
		require.Equal(t, want, p)
	})
}

// Whatever is changed about a listing, it is read as encoding/json reads it.
func TestPlainPageAgrees(t *testing.T) {
	pieces := []string{
		`{`, `}`, `[`, `]`, `,`, `:`, `"`, `\`, ` `, `null`, `true`, `1`, `0`, `-`, `.5`, `e1`, `"a"`, `"\u00e9"`, "\xff", "é", `"hash"`, `"Hash"`,
		`"tags"`, `"items"`, `"x":`, `,"user":"b"`, `\ud83d\ude00`, "\x00", "\n",
	}
	read := 0
	rapid.Check(t, func(rt *rapid.T) {
		b := rapid.SampledFrom(usual).Draw(rt, "listing")
		for range rapid.IntRange(0, 3).Draw(rt, "changes") {
			at := rapid.IntRange(0, len(b)).Draw(rt, "at")
			cut := rapid.IntRange(0, min(6, len(b)-at)).Draw(rt, "cut")
			b = b[:at] + rapid.SampledFrom(pieces).Draw(rt, "piece") + b[at+cut:]
		}
		p, ok := plainPage([]byte(b))
		if !ok {
			return
		}
		read++
		want, err := slowPage([]byte(b))
		require.NoError(rt, err, b)
		require.Equal(rt, want, p, b)
	})
	require.Positive(t, read)
	read = 0
	rapid.Check(t, func(rt *rapid.T) {
		b := rapid.SampledFrom(usualAnswers).Draw(rt, "answer")
		for range rapid.IntRange(0, 3).Draw(rt, "changes") {
			at := rapid.IntRange(0, len(b)).Draw(rt, "at")
			cut := rapid.IntRange(0, min(6, len(b)-at)).Draw(rt, "cut")
			b = b[:at] + rapid.SampledFrom(pieces).Draw(rt, "piece") + b[at+cut:]
		}
		a, ok := plainAnswer([]byte(b))
		if !ok {
			return
		}
		read++
		want, err := slowAnswer([]byte(b))
		require.NoError(rt, err, b)
		require.Equal(rt, want, a, b)
	})
	require.Positive(t, read)
}

// slowAnswer is what plainAnswer must agree with.
func slowAnswer(b []byte) (Asset, error) {
	data, err := decodeEnvelope(b)
	if err != nil {
		return Asset{}, err
	}
	return decodeAssetAny(data)
}

// usualAnswers are answers with one asset that must be read the quick way.
var usualAnswers = []string{
	`{"status":"success","data":` + plainAsset + `}` + "\n",
	` { "data" : {"hash":"h","other":[1,{}]} , "error":null, "status":"success" } `,
}

// oddAnswers are those of which the quick way says nothing.
var oddAnswers = []string{
	``, `null`, `{}`, `[]`, plainAsset, `{"status":"success"}`, `{"status":"success","data":null}`, `{"status":"success","data":[]}`,
	`{"status":"error","data":` + plainAsset + `}`, `{"status":"success","data":{}}`, `{"status":"success","data":{"hash":""}}`,
	`{"status":"success","data":` + plainAsset + `} x`, `{"status":"success","data":` + plainAsset, `{"data":` + plainAsset + `}`,
	`{"status":"success","data":{"hash":"h"},"data":{"hash":"i"}}`, `{"status":"success","data":{"hash":"h","size":-1}}`,
	`{"status":"success","data":{"hash":"h","timestamp":-1}}`,
}

func TestPlainAnswer(t *testing.T) {
	for _, s := range usualAnswers {
		a, ok := plainAnswer([]byte(s))
		require.True(t, ok, s)
		want, err := slowAnswer([]byte(s))
		require.NoError(t, err, s)
		require.Equal(t, want, a, s)
	}
	for _, s := range oddAnswers {
		_, ok := plainAnswer([]byte(s))
		require.False(t, ok, s)
	}
	a, ok := plainOne([]byte(" " + plainAsset + "\n"))
	require.True(t, ok)
	want, err := decodeAssetAny([]byte(plainAsset))
	require.NoError(t, err)
	require.Equal(t, want, a)
	for _, s := range []string{``, `null`, `{}`, plainAsset + `,`, `[` + plainAsset + `]`} {
		_, ok := plainOne([]byte(s))
		require.False(t, ok, s)
	}
}

func FuzzPlainAnswer(f *testing.F) {
	for _, s := range append(append([]string{plainAsset}, usualAnswers...), oddAnswers...) {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, ok := plainAnswer(b); ok {
			want, err := slowAnswer(b)
			require.NoError(t, err)
			require.Equal(t, want, a)
		}
		if a, ok := plainOne(b); ok {
			want, err := decodeAssetAny(b)
			require.NoError(t, err)
			require.Equal(t, want, a)
		}
	})
}

// largePage is a page as a full listing has it.
func largePage(n int) []byte {
	var b strings.Builder
	b.WriteString(`{"status":"success","data":{"items":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"hash":"%064x","timestamp":%d,"mime_type":"image/jpeg","size":1024,"application":"camera-import","user":"anna",`+
			`"description":"picture %d of the summer","tags":["holiday","sea","%d"],"human_filename":"IMG_%07d.jpg","human_path":"/photos/2025/summer",`+
			`"is_trashed":false,"is_corrupted":false}`, i, 1_750_000_000_000+i, i, 2000+i%25, i)
	}
	fmt.Fprintf(&b, `],"total":%d,"limit":%d,"offset":0}}`, n, n)
	return []byte(b.String())
}

// What repeats from asset to asset is kept once.
func TestPlainPageAllocates(t *testing.T) {
	b := largePage(500)
	n := testing.AllocsPerRun(20, func() {
		p, ok := plainPage(b)
		require.True(t, ok)
		require.Len(t, p.assets, 500)
	})
	require.Less(t, n, 500*6.0)
}

func BenchmarkPage(b *testing.B) {
	body := largePage(500)
	for name, read := range map[string]func([]byte) bool{
		"plain": func(b []byte) bool { _, ok := plainPage(b); return ok },
		"slow":  func(b []byte) bool { _, err := slowPage(b); return err == nil },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				require.True(b, read(body))
			}
		})
	}
}
