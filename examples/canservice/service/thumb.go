package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/image/webp"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"
)

const (
	// maxThumbSide is the largest width or height of a thumbnail.
	maxThumbSide = 2048
	// thumbWorkers bounds the pictures decoded at a time, maxPixels and
	// maxDecoded what one may take.
	thumbWorkers = 2
	maxPixels    = 100_000_000
	maxDecoded   = 256 << 20
)

var errNoThumb = &requestError{status: 404, msg: "there is no thumbnail: the content is not a PNG, JPEG, GIF or WebP picture that can be decoded"}

// thumbnails makes and caches thumbnails.
type thumbnails struct {
	s     *Service
	slots *semaphore.Weighted
	calls *singleflight.Group // one rendering for equal requests
	cacheSize
}

type thumb struct {
	data []byte
	mime string
}

func (s *Service) handleThumb(w http.ResponseWriter, r *http.Request) error {
	var side [2]int
	for i, name := range []string{"w", "h"} {
		n, err := strconv.Atoi(r.PathValue(name))
		if err != nil || n < 1 || n > maxThumbSide {
			return badRequest("a thumbnail is 1 to %d pixels wide and high", maxThumbSide)
		}
		side[i] = n
	}
	a, f, err := s.open(r)
	if err != nil {
		return err
	}
	_ = f.Close() // it was there to tell that the content is
	t, err := s.thumbs.get(r.Context(), &a, side[0], side[1])
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", t.mime)
	h.Set("ETag", fmt.Sprintf("%q", fmt.Sprintf("%s_%dx%d", a.Hash, side[0], side[1])))
	h.Set("Cache-Control", "private, no-cache")
	http.ServeContent(w, r, "", time.UnixMilli(a.Timestamp), bytes.NewReader(t.data))
	return nil
}

// get returns the thumbnail of a that fits w×h.
func (t *thumbnails) get(ctx context.Context, a *asset, w, h int) (thumb, error) {
	name := fmt.Sprintf("%s/%s_%dx%d", thumbDir, a.Hash, w, h)
	if th, ok := t.cached(name); ok {
		return th, nil
	}
	// The rendering belongs to all who wait for it, so it doesn't end with the
	// request that began it, and counts as one itself.
	path := place(a)
	ch := t.calls.DoChan(name, func() (any, error) {
		if !t.s.enter() {
			return thumb{}, ErrClosed
		}
		defer t.s.active.Done()
		if err := t.slots.Acquire(t.s.ctx, 1); err != nil {
			return thumb{}, err
		}
		defer t.slots.Release(1)
		f, err := t.s.files.root.Open(path)
		if err != nil {
			return thumb{}, errNoThumb
		}
		defer f.Close()
		th, err := render(f, w, h)
		if err == nil {
			t.keep(name, th)
		}
		return th, err
	})
	select {
	case r := <-ch:
		th, _ := r.Val.(thumb)
		return th, r.Err
	case <-ctx.Done():
		return thumb{}, ctx.Err()
	}
}

// render decodes the picture in r and makes its thumbnail. It never fails with
// anything but errNoThumb: what is wrong with a foreign picture is its own matter.
func render(r io.ReadSeeker, w, h int) (th thumb, err error) {
	defer func() {
		if recover() != nil { // a decoder stumbled over hostile input
			th, err = thumb{}, errNoThumb
		}
	}()
	img, turn, err := decodePicture(r)
	if err != nil {
		return thumb{}, errNoThumb
	}
	small := turned(fit(img, w, h, turn), turn)
	var buf bytes.Buffer
	if small.Opaque() {
		th.mime = "image/jpeg"
		err = jpeg.Encode(&buf, small, &jpeg.Options{Quality: 85})
	} else {
		th.mime = "image/png"
		err = png.Encode(&buf, small)
	}
	th.data = buf.Bytes()
	return th, err
}

// decoder is one picture format.
type decoder struct {
	magic  string // ? stands for any byte
	config func(io.Reader) (image.Config, error)
	decode func(io.Reader) (image.Image, error)
}

func decoders() []decoder {
	return []decoder{
		{"\x89PNG\r\n\x1a\n", png.DecodeConfig, png.Decode},
		{"\xff\xd8\xff", jpeg.DecodeConfig, jpeg.Decode},
		{"GIF8?a", gif.DecodeConfig, gif.Decode}, // the first frame
		{"RIFF????WEBP", webp.DecodeConfig, webp.Decode},
	}
}

var errNotDecodable = errors.New("not a picture that is decoded")

// decodePicture decodes a picture whose size is within bounds, told by its first
// bytes and not by its declared type. turn is its EXIF orientation.
func decodePicture(r io.ReadSeeker) (img image.Image, turn int, err error) {
	var head [12]byte
	n, _ := io.ReadFull(r, head[:])
	for _, d := range decoders() {
		if !matches(d.magic, head[:n]) {
			continue
		}
		if _, err := r.Seek(0, io.SeekStart); err != nil {
			return nil, 0, err
		}
		c, err := d.config(r)
		if err != nil {
			return nil, 0, err
		}
		if c.Width < 1 || c.Height < 1 || int64(c.Width)*int64(c.Height) > maxPixels || int64(c.Width)*int64(c.Height)*pixelBytes(c) > maxDecoded {
			return nil, 0, errNotDecodable
		}
		turn = 1
		if d.magic[0] == 0xff {
			if _, err := r.Seek(0, io.SeekStart); err != nil {
				return nil, 0, err
			}
			turn = orientation(r)
		}
		if _, err := r.Seek(0, io.SeekStart); err != nil {
			return nil, 0, err
		}
		img, err = d.decode(r)
		return img, turn, err
	}
	return nil, 0, errNotDecodable
}

func matches(magic string, head []byte) bool {
	if len(head) < len(magic) {
		return false
	}
	for i := range len(magic) {
		if magic[i] != '?' && magic[i] != head[i] {
			return false
		}
	}
	return true
}
