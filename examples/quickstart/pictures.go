package main

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"

	"github.com/cansync/cansync/can"
)

// picture is a file to be shared, with what its user says about it.
type picture struct {
	path   string
	size   int64
	digest can.Digest
	can.Metadata
}

// sizes of the small pictures, in turn.
var sizes = [][2]int{{160, 120}, {320, 240}, {48, 48}, {640, 480}, {800, 200}}

// makePicture writes picture number i of a person into dir. With large not 0 it
// has about that many bytes.
func makePicture(dir, who string, i int, large int64) (picture, error) {
	w, h := sizes[i%len(sizes)][0], sizes[i%len(sizes)][1]
	var img image.Image = rings{w, h, i}
	enc := png.Encoder{CompressionLevel: png.BestSpeed}
	name := fmt.Sprintf("rings-%02d.png", i+1)
	about := fmt.Sprintf("Rings №%d, %d×%d", i+1, w, h)
	if large > 0 {
		// Three bytes a pixel, which do not compress.
		w = max(1, int(math.Sqrt(float64(large)/3)))
		h = max(1, int(large/int64(3*w+1)))
		img, enc.CompressionLevel = noise{w, h, uint64(i)}, png.NoCompression
		name, about = "snow.png", fmt.Sprintf("Snow, %d×%d", w, h)
	}
	path := filepath.Join(dir, who+"-"+name)
	size, digest, err := writePNG(path, &enc, img)
	return picture{path, size, digest, can.Metadata{
		MIMEType: "image/png", Application: "quickstart", User: who, Description: about,
		Tags: []string{"generated", fmt.Sprintf("no-%d", i+1)}, Filename: who + "-" + name, Path: "/pictures/" + who,
	}}, err
}

func writePNG(path string, enc *png.Encoder, img image.Image) (size int64, d can.Digest, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, d, err
	}
	sum, count := sha256.New(), counter{}
	buf := bufio.NewWriterSize(io.MultiWriter(f, sum, &count), 64<<10)
	if err = errors.Join(enc.Encode(buf, img), buf.Flush(), f.Close()); err != nil {
		return 0, d, fmt.Errorf("make a picture: %w", err)
	}
	return count.n, can.Digest(sum.Sum(nil)), nil
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) { c.n += int64(len(p)); return len(p), nil }

// rings is a picture of rings around its middle, different for each number.
type rings struct{ w, h, number int }

func (r rings) ColorModel() color.Model { return color.NRGBAModel }
func (r rings) Bounds() image.Rectangle { return image.Rect(0, 0, r.w, r.h) }
func (r rings) Opaque() bool            { return true }

func (r rings) At(x, y int) color.Color {
	d := math.Hypot(float64(x-r.w/2), float64(y-r.h/2))
	wave := func(shift float64) uint8 { return uint8(127 + 120*math.Sin(d/8+shift)) }
	turn := 0.7 * float64(r.number)
	return color.NRGBA{wave(turn), wave(2 * turn), wave(turn + 2), 255}
}

// noise is a picture that does not compress: each pixel is splitmix64 (Steele,
// Lea and Flood 2014) of its position.
type noise struct {
	w, h int
	seed uint64
}

func (n noise) ColorModel() color.Model { return color.NRGBAModel }
func (n noise) Bounds() image.Rectangle { return image.Rect(0, 0, n.w, n.h) }
func (n noise) Opaque() bool            { return true }

func (n noise) At(x, y int) color.Color {
	z := (n.seed<<40 + uint64(y)*uint64(n.w) + uint64(x) + 1) * 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	return color.NRGBA{uint8(z), uint8(z >> 8), uint8(z >> 16), 255}
}
