package main

import (
	"bytes"
	"context"
	"flag"
	"image/png"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// whole is how long the whole story may take on a busy machine.
const whole = 3 * time.Minute

// home makes run work in a folder of the test, and returns it.
func home(t *testing.T) string {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	return dir
}

func TestTheWholeStory(t *testing.T) {
	dir := home(t)
	var out bytes.Buffer
	o := options{assets: 4, size: 1 << 20, timeout: whole}
	require.NoError(t, run(t.Context(), o, newScreen(&out, false), io.Discard), "%s", &out)
	text := out.String()
	for _, want := range []string{
		"cansync1…(redacted)", "snow.png", "ann-rings-03.png", "ben-rings-05.png", "favourite", "Done: 5 assets", "ARRIVED AFTER",
	} {
		require.Contains(t, text, want)
	}
	require.NotContains(t, text, "\x1b", "escape sequences without a terminal")
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left, "the data was left behind")
}

func TestKeepAndVerbose(t *testing.T) {
	dir := home(t)
	var out, logs bytes.Buffer
	o := options{assets: 1, size: 100 << 10, timeout: whole, keep: true, verbose: true}
	require.NoError(t, run(t.Context(), o, newScreen(&out, true), &logs), "%s", &out)
	kept, err := filepath.Glob(filepath.Join(dir, "*", "[AB]", "can", "*.json"))
	require.NoError(t, err)
	require.Len(t, kept, 5, "two pictures on both sides and the note")
	require.Contains(t, out.String(), filepath.Dir(filepath.Dir(filepath.Dir(kept[0]))))
	require.NotEmpty(t, logs.String())
	require.NotRegexp(t, "cansync1[a-z0-9]", out.String()+logs.String(), "a ticket was printed")
}

func TestItEndsWithAReason(t *testing.T) {
	dir := home(t)
	var out bytes.Buffer
	err := run(t.Context(), options{assets: 1, size: minSize, timeout: time.Nanosecond}, newScreen(&out, false), io.Discard)
	require.ErrorContains(t, err, "-timeout")
	require.ErrorIs(t, err, context.DeadlineExceeded)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = run(ctx, options{assets: 1, size: minSize, timeout: whole}, newScreen(&out, false), io.Discard)
	require.ErrorContains(t, err, "interrupted")

	t.Setenv("TMPDIR", filepath.Join(dir, "missing"))
	err = run(t.Context(), options{assets: 1, size: minSize, timeout: whole}, newScreen(&out, false), io.Discard)
	require.ErrorIs(t, err, os.ErrNotExist)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestFlags(t *testing.T) {
	o, err := parse(nil, io.Discard)
	require.NoError(t, err)
	require.Equal(t, options{assets: 8, size: 24 << 20, timeout: time.Minute}, o)
	for flags, want := range map[string]string{
		"-assets 0": "-assets", "-assets 10001": "-assets", "-size 10": "-size", "-timeout 0s": "-timeout",
		"extra": "extra", "-nonsense": "nonsense", "-size x": "size",
	} {
		_, err := parse(strings.Fields(flags), io.Discard)
		require.ErrorContains(t, err, want, flags)
	}
	_, err = parse([]string{"-h"}, io.Discard)
	require.ErrorIs(t, err, flag.ErrHelp)
}

func TestPictures(t *testing.T) {
	dir := t.TempDir()
	seen := map[string]bool{}
	for i := range 12 {
		for _, large := range []int64{0, minSize, 200_000} {
			sub := filepath.Join(dir, bytesText(large))
			require.NoError(t, os.MkdirAll(sub, 0o700))
			who := string(rune('a' + i))
			p, err := makePicture(sub, who, i, large)
			require.NoError(t, err)
			require.False(t, seen[p.digest.String()], "two pictures are the same")
			seen[p.digest.String()] = true
			b, err := os.ReadFile(p.path)
			require.NoError(t, err)
			require.EqualValues(t, len(b), p.size)
			require.Equal(t, "image/png", http.DetectContentType(b))
			_, err = png.Decode(bytes.NewReader(b))
			require.NoError(t, err)
			if large == 200_000 {
				require.InEpsilon(t, large, p.size, 0.05)
			}
		}
	}
}

func TestBars(t *testing.T) {
	for _, done := range []int64{-5, 0, 1, 50, 100, 1000} {
		bar := gauge{"A → B", done, 100, 7}.bar(10)
		inside := bar[strings.Index(bar, "[")+1 : strings.Index(bar, "]")]
		require.Equal(t, strings.Repeat("#", strings.Count(inside, "#"))+strings.Repeat(".", strings.Count(inside, ".")), inside)
		require.Len(t, inside, barWidth)
	}
	require.Contains(t, gauge{"x", 50, 100, 7}.bar(1), " 50%")
	require.Contains(t, gauge{"x", 1000, 100, 1000}.bar(3), "x   [##############################] 100%  100 B of 100 B  1000 B/s")
	require.Contains(t, gauge{}.bar(0), "  0%")
	require.EqualValues(t, 50, gauge{"", 1 << 61, 1 << 62, 0}.percent())

	var out bytes.Buffer
	draw := newScreen(&out, true).bars()
	var many []gauge
	for range 2 * maxBars {
		many = append(many, gauge{"x", 1, 2, 3})
	}
	draw(many)
	require.Equal(t, maxBars, strings.Count(out.String(), "\n"))
	out.Reset()
	draw(many[:1])
	require.True(t, strings.HasPrefix(out.String(), "\x1b[5A\r\x1b[J"), "they replace those before")
	out.Reset()
	draw(nil)
	require.Equal(t, "\x1b[1A\r\x1b[J", out.String(), "the bars are removed")

	drawn := &waiting{seen: make(chan struct{})}
	end := newScreen(drawn, true).follow(func() []gauge { return []gauge{{"x", 5, 10, 1}} })
	<-drawn.seen
	end()
	require.True(t, strings.HasSuffix(drawn.String(), "\x1b[1A\r\x1b[J"))
}

func TestLinesWithoutATerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		done := []int64{0, 10, 10, 55, 90, 100}
		end := newScreen(&out, false).follow(func() []gauge {
			g := gauge{"A → B", done[0], 100, 10}
			if len(done) > 1 {
				done = done[1:]
			}
			return []gauge{g, {"other", 1, 2, 3}}
		})
		time.Sleep(10 * lineEvery)
		end()
		require.Equal(t, "  A → B 10%, 10 B of 100 B, 10 B/s\n  A → B 55%, 55 B of 100 B, 10 B/s\n  A → B 90%, 90 B of 100 B, 10 B/s\n", out.String())
	})
}

// waiting tells when something was written.
type waiting struct {
	bytes.Buffer
	seen chan struct{}
}

func (w *waiting) Write(p []byte) (int, error) {
	select {
	case <-w.seen:
	default:
		close(w.seen)
	}
	return w.Buffer.Write(p)
}

func TestTexts(t *testing.T) {
	require.Equal(t, "1023 B", bytesText(1023))
	require.Equal(t, "1.5 KiB", bytesText(1536))
	require.Equal(t, "24.0 MiB", bytesText(24<<20))
	require.Equal(t, "4.00 GiB", bytesText(4<<30))
	require.Equal(t, "12 ms", timeText(12*time.Millisecond))
	require.Equal(t, "1.50 s", timeText(1500*time.Millisecond))
}
