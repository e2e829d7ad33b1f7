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
		bar := drawBar("A → B", done, 100, time.Second)
		inside := bar[strings.Index(bar, "[")+1 : strings.Index(bar, "]")]
		require.Equal(t, strings.Repeat("#", strings.Count(inside, "#"))+strings.Repeat(".", strings.Count(inside, ".")), inside)
		require.Len(t, inside, barWidth)
	}
	require.Contains(t, drawBar("x", 50, 100, time.Second), " 50%")
	require.Contains(t, drawBar("x", 1000, 100, 0), "100%  100 B of 100 B  1000 B/s")

	drawn := &waiting{seen: make(chan struct{})}
	end := newScreen(drawn, true).bar("x", 10, func() int64 { return 5 })
	<-drawn.seen
	end()
	require.True(t, strings.HasSuffix(drawn.String(), "\r\x1b[K"), "the bar is removed")

	var none bytes.Buffer
	newScreen(&none, false).bar("x", 10, func() int64 { return 5 })()
	require.Empty(t, none.String())
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
