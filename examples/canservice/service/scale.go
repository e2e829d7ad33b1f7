package service

import (
	"image"
	"image/color"
	"image/draw"

	xdraw "golang.org/x/image/draw"
)

// pixelBytes is an upper bound of the memory that a pixel takes once decoded.
func pixelBytes(c image.Config) int64 {
	switch c.ColorModel {
	case color.GrayModel:
		return 1
	case color.Gray16Model:
		return 2
	case color.YCbCrModel:
		return 3
	case color.RGBA64Model, color.NRGBA64Model:
		return 8
	}
	if _, ok := c.ColorModel.(color.Palette); ok {
		return 1
	}
	return 4
}

// fit scales img down to fit w×h after it is turned; it never scales up. A box
// filter brings large pictures near their size cheaply, and Catmull-Rom does the
// rest.
func fit(img image.Image, w, h, turn int) *image.RGBA {
	if turn >= 5 {
		w, h = h, w
	}
	b := img.Bounds()
	dw, dh := b.Dx(), b.Dy()
	if dw > w {
		dw, dh = w, max(1, int(int64(b.Dy())*int64(w)/int64(b.Dx())))
	}
	if dh > h {
		dw, dh = max(1, int(int64(b.Dx())*int64(h)/int64(b.Dy()))), h
	}
	if n := min(b.Dx()/(2*dw), b.Dy()/(2*dh)); n >= 2 {
		img = box(img, n)
	}
	dst := image.NewRGBA(image.Rect(0, 0, dw, dh))
	xdraw.CatmullRom.Scale(dst, dst.Bounds(), img, img.Bounds(), draw.Src, nil)
	return dst
}

// box averages squares of n×n pixels, n at least 2. What is left over at the
// right and lower edge, less than one square, is dropped.
func box(img image.Image, n int) *image.RGBA {
	b := img.Bounds()
	out := image.NewRGBA(image.Rect(0, 0, b.Dx()/n, b.Dy()/n))
	// One strip of n rows at a time is converted to RGBA by the fast paths of
	// image/draw, whatever the type of the picture.
	strip := image.NewRGBA(image.Rect(0, 0, b.Dx(), n))
	sums := make([]uint32, 4*out.Rect.Dx())
	area := uint32(n) * uint32(n)
	for y := range out.Rect.Dy() {
		draw.Draw(strip, strip.Rect, img, image.Pt(b.Min.X, b.Min.Y+y*n), draw.Src)
		clear(sums)
		for row := range n {
			line := strip.Pix[row*strip.Stride:]
			for x := range out.Rect.Dx() {
				s, p := sums[4*x:4*x+4], line[4*x*n:4*(x+1)*n]
				for ; len(p) >= 4; p = p[4:] {
					s[0] += uint32(p[0])
					s[1] += uint32(p[1])
					s[2] += uint32(p[2])
					s[3] += uint32(p[3])
				}
			}
		}
		line := out.Pix[y*out.Stride:]
		for i, s := range sums {
			line[i] = uint8((s + area/2) / area)
		}
	}
	return out
}

// turned applies an EXIF orientation (1 to 8) to a picture.
func turned(img *image.RGBA, turn int) *image.RGBA {
	if turn < 2 || turn > 8 {
		return img
	}
	w, h := img.Rect.Dx(), img.Rect.Dy()
	ow, oh := w, h
	if turn >= 5 {
		ow, oh = h, w
	}
	out := image.NewRGBA(image.Rect(0, 0, ow, oh))
	for y := range oh {
		for x := range ow {
			var sx, sy int
			switch turn {
			case 2:
				sx, sy = w-1-x, y
			case 3:
				sx, sy = w-1-x, h-1-y
			case 4:
				sx, sy = x, h-1-y
			case 5:
				sx, sy = y, x
			case 6:
				sx, sy = y, h-1-x
			case 7:
				sx, sy = w-1-y, h-1-x
			case 8:
				sx, sy = w-1-y, x
			}
			copy(out.Pix[y*out.Stride+4*x:][:4], img.Pix[sy*img.Stride+4*sx:][:4])
		}
	}
	return out
}
