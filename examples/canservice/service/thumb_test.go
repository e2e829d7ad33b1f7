package service

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// picture is red in its left half and blue in its right half.
func picture(w, h int, alpha uint8) image.Image {
	m := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			c := color.NRGBA{R: 255, A: alpha}
			if x >= w/2 {
				c = color.NRGBA{B: 255, A: alpha}
			}
			m.SetNRGBA(x, y, c)
		}
	}
	return m
}

// aWebP is a lossless 1×1 picture.
const aWebP = "UklGRhoAAABXRUJQVlA4TA0AAAAvAAAAEAcQERGIiP4HAA=="

func encoded(t testing.TB, format string, m image.Image) []byte {
	var b bytes.Buffer
	switch format {
	case "png":
		require.NoError(t, png.Encode(&b, m))
	case "jpeg":
		require.NoError(t, jpeg.Encode(&b, m, nil))
	case "gif":
		require.NoError(t, gif.Encode(&b, m, nil))
	case "webp":
		data, err := base64.StdEncoding.DecodeString(aWebP)
		require.NoError(t, err)
		return data
	}
	return b.Bytes()
}

func (ts *testService) thumb(a asset, w, h int) (image.Image, string) {
	ts.t.Helper()
	r := ts.get(fmt.Sprintf("/asset/%s/thumb/%d/%d", a.Hash, w, h))
	require.Equal(ts.t, 200, r.code, string(r.raw))
	m, format, err := image.Decode(bytes.NewReader(r.raw))
	require.NoError(ts.t, err)
	require.Equal(ts.t, "image/"+format, r.header.Get("Content-Type"))
	return m, format
}

func TestThumbsOfEachFormat(t *testing.T) {
	for _, c := range []struct {
		format     string
		w, h       int
		alpha      uint8
		tw, th     int // asked for
		ww, wh     int // wanted
		wantFormat string
	}{
		{"png", 400, 200, 255, 100, 100, 100, 50, "jpeg"},
		{"png", 400, 200, 100, 100, 100, 100, 50, "png"},
		{"jpeg", 1000, 2000, 255, 300, 300, 150, 300, "jpeg"},
		{"jpeg", 33, 17, 255, 300, 300, 33, 17, "jpeg"},
		{"gif", 400, 400, 255, 100, 30, 30, 30, "jpeg"},
		{"png", 2000, 1, 255, 10, 10, 10, 1, "jpeg"},
		{"webp", 1, 1, 255, 10, 10, 1, 1, ""},
	} {
		for _, off := range []bool{false, true} {
			ts := start(t, Config{NoThumbnailCache: off})
			a := ts.ingest("wrong.txt", encoded(t, c.format, picture(c.w, c.h, c.alpha))).asset(t)
			for range 2 { // made, then cached
				m, format := ts.thumb(a, c.tw, c.th)
				require.Equal(t, image.Pt(c.ww, c.wh), m.Bounds().Size(), c.format)
				if c.wantFormat == "" {
					continue
				}
				require.Equal(t, c.wantFormat, format)
				r, _, b, _ := m.At(m.Bounds().Dx()/4, c.wh/2).RGBA()
				require.Greater(t, r, b, c.format)
				r, _, b, _ = m.At(m.Bounds().Dx()*7/8, c.wh/2).RGBA()
				require.Greater(t, b, r, c.format)
			}
			require.Equal(t, off, len(ts.names(thumbDir)) == 0)
		}
	}
}

func TestThumbsRefused(t *testing.T) {
	ts := start(t, Config{})
	a := ts.ingest("a.png", encoded(t, "png", picture(10, 10, 255))).asset(t)
	for _, size := range []string{"0/5", "5/0", "-1/5", "x/5", "5/2049", "99999999999999999999/5"} {
		require.Equal(t, 400, ts.get("/asset/"+a.Hash.String()+"/thumb/"+size).code, size)
	}
	huge := encoded(t, "png", picture(10, 10, 255))
	binary.BigEndian.PutUint32(huge[16:], 60000)
	binary.BigEndian.PutUint32(huge[20:], 60000)
	binary.BigEndian.PutUint32(huge[29:], crc32.ChecksumIEEE(huge[12:29]))
	c, err := png.DecodeConfig(bytes.NewReader(huge))
	require.NoError(t, err) // the header is right, so that only the cap refuses it
	require.Equal(t, 60000, c.Width)
	good := encoded(t, "png", picture(10, 10, 255))
	for name, content := range map[string][]byte{
		"text": []byte("text"), "empty": nil, "huge": huge, "cut": good[:len(good)/2], "magic": good[:8],
		"cut jpeg": encoded(t, "jpeg", picture(100, 100, 255))[:300], "cut webp": encoded(t, "webp", nil)[:20], "cut gif": []byte("GIF89a"),
	} {
		b := ts.ingest("a.png", content).asset(t)
		r := ts.get("/asset/" + b.Hash.String() + "/thumb/5/5")
		require.Equal(t, 404, r.code, name)
		require.Equal(t, "error", r.Status)
	}
	ts.thumb(a, 5, 5)
	ts.do("DELETE", "/asset/"+a.Hash.String(), "", nil)
	require.Equal(t, 404, ts.get("/asset/"+a.Hash.String()+"/thumb/5/5").code)
}

// turnedJPEG is a picture with an EXIF orientation.
func turnedJPEG(t testing.TB, turn byte) []byte {
	plain := encoded(t, "jpeg", picture(80, 40, 255))
	exif := append([]byte("Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00"), turn, 0, 0, 0, 0, 0, 0)
	seg := append([]byte{0xff, 0xe1, 0, byte(len(exif) + 2)}, exif...)
	return append(append(append([]byte{}, plain[:2]...), seg...), plain[2:]...)
}

func TestThumbsFollowOrientation(t *testing.T) {
	ts := start(t, Config{})
	red := map[byte]image.Point{1: {5, 10}, 2: {35, 10}, 3: {35, 10}, 4: {5, 10}, 5: {10, 5}, 6: {10, 5}, 7: {10, 35}, 8: {10, 35}}
	for turn, at := range red {
		a := ts.ingest("a.jpg", turnedJPEG(t, turn)).asset(t)
		m, _ := ts.thumb(a, 40, 40)
		want := image.Pt(40, 20)
		if turn >= 5 {
			want = image.Pt(20, 40)
		}
		require.Equal(t, want, m.Bounds().Size(), turn)
		r, _, b, _ := m.At(at.X, at.Y).RGBA()
		require.Greater(t, r, b, turn)
	}
}

func TestThumbCacheIsPruned(t *testing.T) {
	ts := start(t, Config{})
	for i := range 3 {
		f, err := os.Create(ts.root(thumbDir, fmt.Sprint(i)))
		require.NoError(t, err)
		require.NoError(t, f.Truncate(maxThumbCache/2)) // sparse
		require.NoError(t, f.Close())
	}
	ts = ts.again()
	require.Len(t, ts.names(thumbDir), 1)
}

func FuzzThumb(f *testing.F) {
	for _, format := range []string{"png", "jpeg", "gif", "webp"} {
		f.Add(encoded(f, format, picture(9, 7, 255)))
	}
	f.Add(turnedJPEG(f, 6))
	f.Fuzz(func(t *testing.T, data []byte) {
		th, err := render(bytes.NewReader(data), 16, 16)
		if err != nil {
			require.ErrorIs(t, err, errNoThumb)
			return
		}
		c, _, err := image.DecodeConfig(bytes.NewReader(th.data))
		require.NoError(t, err)
		require.LessOrEqual(t, max(c.Width, c.Height), 16)
	})
}
