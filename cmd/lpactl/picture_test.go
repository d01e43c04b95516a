package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"image/png"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"

	"lpad/agent/api"
)

const pictureCode = "LPA:1$smdp.example.com$04386-AGYFT-A74Y8-3F815"

// drawCode is a QR code on white, each module so many points wide.
func drawCode(t testing.TB, text string, module int) *image.Gray {
	t.Helper()
	m, err := qrcode.NewQRCodeWriter().EncodeWithoutHint(text, gozxing.BarcodeFormat_QR_CODE, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	img := image.NewGray(image.Rect(0, 0, m.GetWidth()*module, m.GetHeight()*module))
	for y := range img.Rect.Dy() {
		for x := range img.Rect.Dx() {
			if !m.Get(x/module, y/module) {
				img.SetGray(x, y, color.Gray{Y: 255})
			}
		}
	}
	return img
}

// shot says how a camera saw a code.
type shot struct {
	turn     float64 // degrees
	lean     float64 // how much nearer the one side is than the other, 0 none
	blur     int     // points in each direction
	noise    float64 // of 255
	light    float64 // how much darker the one corner is, of 1
	contrast float64 // of 1
	size     int     // points of the picture, each side
	part     float64 // of the picture that the code takes
}

// photo takes a picture of a code lying on a desk.
func (s shot) photo(code *image.Gray) *image.Gray {
	out := image.NewGray(image.Rect(0, 0, s.size, s.size))
	side := float64(code.Rect.Dx())
	scale := side / (s.part * float64(s.size))
	sin, cos := math.Sincos(s.turn * math.Pi / 180)
	noise := rand.New(rand.NewPCG(1, 2))
	middle := float64(s.size) / 2
	for y := range s.size {
		for x := range s.size {
			dx, dy := (float64(x)-middle)*scale, (float64(y)-middle)*scale
			away := 1 + s.lean*dy/side
			u, v := (dx*cos-dy*sin)/away+side/2, (dx*sin+dy*cos)/away+side/2
			grey := 140.0 // the desk
			if u >= 0 && v >= 0 && u < side && v < side {
				grey = float64(code.GrayAt(int(u), int(v)).Y)*s.contrast + 255*(1-s.contrast)/2
			}
			grey *= 1 - s.light*float64(x+y)/float64(2*s.size)
			out.Pix[y*out.Stride+x] = byte(min(255, max(0, grey+s.noise*noise.NormFloat64())))
		}
	}
	for range 2 {
		out = blurred(out, s.blur)
	}
	return out
}

func blurred(in *image.Gray, r int) *image.Gray {
	if r == 0 {
		return in
	}
	out := image.NewGray(in.Rect)
	w, h := in.Rect.Dx(), in.Rect.Dy()
	for y := range h {
		for x := range w {
			sum, n := 0, 0
			for yy := max(0, y-r); yy <= min(h-1, y+r); yy++ {
				for xx := max(0, x-r); xx <= min(w-1, x+r); xx++ {
					sum += int(in.Pix[yy*in.Stride+xx])
					n++
				}
			}
			out.Pix[y*out.Stride+x] = byte(sum / n)
		}
	}
	return out
}

func pngOf(t testing.TB, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func jpegOf(t testing.TB, img image.Image, quality int) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: quality}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestReadPicture: the code is read off what telephones and scanners make of
// it.
func TestReadPicture(t *testing.T) {
	code := drawCode(t, pictureCode, 8)
	for name, s := range map[string]shot{
		"straight":       {contrast: 1, size: 600, part: 0.8},
		"quarter turn":   {turn: 90, contrast: 1, size: 600, part: 0.8},
		"upside down":    {turn: 180, contrast: 1, size: 600, part: 0.8},
		"crooked":        {turn: 17, contrast: 0.9, size: 800, part: 0.5},
		"diagonal":       {turn: 45, contrast: 0.9, size: 900, part: 0.5},
		"from the side":  {lean: 0.35, contrast: 0.9, size: 900, part: 0.5},
		"crooked, side":  {turn: 30, lean: 0.25, contrast: 0.9, size: 900, part: 0.5},
		"out of focus":   {turn: 5, blur: 2, contrast: 0.9, size: 1000, part: 0.6},
		"at night":       {turn: 3, noise: 35, contrast: 0.8, size: 1400, part: 0.5},
		"half in shadow": {turn: 3, light: 0.8, noise: 4, contrast: 0.7, size: 1000, part: 0.5},
		"all of it":      {turn: -12, lean: 0.2, blur: 1, noise: 10, light: 0.5, contrast: 0.7, size: 1600, part: 0.45},
		"far away":       {turn: 8, noise: 5, contrast: 0.9, size: 2400, part: 0.12},
		"large":          {turn: 20, noise: 10, contrast: 0.9, size: 3000, part: 0.7},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			img := s.photo(code)
			for format, b := range map[string][]byte{"PNG": pngOf(t, img), "JPEG": jpegOf(t, img, 60)} {
				if got, err := readPicture(t.Context(), b); got != pictureCode || err != nil {
					t.Errorf("%s: %q, %v", format, got, err)
				}
			}
		})
	}
}

// TestReadPictureForms: other pictures than photographs of one plain code.
func TestReadPictureForms(t *testing.T) {
	code := drawCode(t, pictureCode, 4)
	on := func(c color.Color, parts ...image.Image) image.Image {
		w := 40
		for _, p := range parts {
			w += p.Bounds().Dx() + 40
		}
		page := image.NewNRGBA(image.Rect(0, 0, w, parts[0].Bounds().Dy()+80))
		draw.Draw(page, page.Rect, image.NewUniform(c), image.Point{}, draw.Src)
		x := 40
		for _, p := range parts {
			draw.Draw(page, image.Rect(x, 40, x+p.Bounds().Dx(), 40+p.Bounds().Dy()), p, image.Point{}, draw.Over)
			x += p.Bounds().Dx() + 40
		}
		return page
	}
	inverse := image.NewGray(code.Rect)
	for i, p := range code.Pix {
		inverse.Pix[i] = 255 - p
	}
	mirror := image.NewGray(code.Rect)
	for y := range code.Rect.Dy() {
		for x := range code.Rect.Dx() {
			mirror.SetGray(x, y, code.GrayAt(code.Rect.Dx()-1-x, y))
		}
	}
	glass := image.NewNRGBA(code.Rect) // black on nothing
	for y := range code.Rect.Dy() {
		for x := range code.Rect.Dx() {
			if code.GrayAt(x, y).Y == 0 {
				glass.SetNRGBA(x, y, color.NRGBA{A: 255})
			}
		}
	}
	link := "https://esimsetup.example.com/esim_qrcode_provisioning?carddata=LPA:1%24smdp.example.com%24ABC-1"
	for _, tc := range []struct {
		name string
		img  image.Image
		want string // in the error, when it does not begin with LPA:
	}{
		{"a point a module", drawCode(t, pictureCode, 1), pictureCode},
		{"light on dark", on(color.Black, inverse), pictureCode},
		{"in a mirror", on(color.White, mirror), pictureCode},
		{"see-through", glass, pictureCode},
		{"with an advertisement", on(color.White, drawCode(t, "https://shop.example.com/app", 4), code), pictureCode},
		{"twice the same", on(color.White, code, code), pictureCode},
		{"a link of a telephone's maker", drawCode(t, link, 4), "LPA:1$smdp.example.com$ABC-1"},
		{"without prefix", drawCode(t, "1$smdp.example.com$ABC", 4), "1$smdp.example.com$ABC"},
		{"two codes", on(color.White, code, drawCode(t, pictureCode+"9", 4)), "2 activation codes"},
		{"a page", drawCode(t, "https://shop.example.com/app?secret=7", 4), "a page at shop.example.com"},
		{"another text", drawCode(t, "WIFI:S:guest;P:geheim;;", 4), "a text of 23 characters"},
		{"nothing", image.NewGray(image.Rect(0, 0, 300, 200)), "no QR code is found in the picture (300 by 200 points)"},
		{"one point", image.NewGray(image.Rect(0, 0, 1, 1)), "no QR code"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := readPicture(t.Context(), pngOf(t, tc.img))
			if strings.Contains(tc.want, "$") {
				if got != tc.want || err != nil {
					t.Errorf("%q, %v", got, err)
				}
				return
			}
			var p *api.Problem
			if !errors.As(err, &p) || !strings.Contains(p.Title, tc.want) || p.Next == "" || got != "" || strings.Contains(p.Error(), "geheim") || strings.Contains(p.Error(), "secret") {
				t.Errorf("%q, %+v", got, err)
			}
		})
	}
}

// claim is a PNG that says it is so large, and holds nothing.
func claim(w, h uint32, depth, kind byte) []byte {
	head := binary.BigEndian.AppendUint32(nil, w)
	head = append(binary.BigEndian.AppendUint32(head, h), depth, kind, 0, 0, 0)
	chunk := append([]byte("IHDR"), head...)
	b := append([]byte("\x89PNG\r\n\x1a\n"), binary.BigEndian.AppendUint32(nil, uint32(len(head)))...)
	return binary.BigEndian.AppendUint32(append(b, chunk...), crc32.ChecksumIEEE(chunk))
}

// TestHostilePictures: they are refused quickly, whatever they claim or hold.
func TestHostilePictures(t *testing.T) {
	corners := image.NewGray(image.Rect(0, 0, 1000, 1000)) // some 15000 corners of QR codes
	for y := range 1000 {
		for x := range 1000 {
			dx, dy := x%8, y%8
			ring := max(abs(dx-3), abs(dy-3))
			if ring == 2 || ring == 4 || dx == 7 || dy == 7 {
				corners.Pix[y*corners.Stride+x] = 255
			}
		}
	}
	static := image.NewGray(image.Rect(0, 0, 1200, 1200))
	noise := rand.New(rand.NewPCG(3, 4))
	for i := range static.Pix {
		static.Pix[i] = byte(noise.Uint32())
	}
	photo := jpegOf(t, drawCode(t, pictureCode, 8), 80)
	for name, tc := range map[string]struct {
		b    []byte
		want string
	}{
		"nothing":             {nil, "no picture that lpactl knows"},
		"a text":              {[]byte("hello, world, hello"), "no picture that lpactl knows"},
		"too many bytes":      {make([]byte, maxPicture+1), "more than 16 MB"},
		"huge":                {claim(1<<31-1, 1<<31-1, 8, 2), "damaged"},
		"wide":                {claim(maxSide+1, 1, 8, 0), "too large: 16385 by 1"},
		"large":               {claim(6000, 6000, 8, 6), "too large: 6000 by 6000"},
		"large and deep":      {claim(4000, 4000, 16, 6), "too large"},
		"of no size":          {claim(0, 10, 8, 0), "damaged"},
		"head alone":          {claim(100, 100, 8, 0), "damaged"},
		"cut off":             {photo[:len(photo)/8], "damaged"},
		"GIF":                 {[]byte("GIF89a......"), "the picture is GIF"},
		"HEIC":                {[]byte("\x00\x00\x00\x18ftypheic"), "the picture is HEIC"},
		"WebP":                {[]byte("RIFF....WEBPVP8 "), "the picture is WebP"},
		"PDF":                 {[]byte("%PDF-1.7\n"), "the picture is PDF"},
		"nothing but corners": {pngOf(t, corners), "no QR code"},
		"static":              {pngOf(t, static), "no QR code"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // of a test on a machine with much else to do
			defer cancel()
			code, err := readPicture(ctx, tc.b)
			var p *api.Problem
			if code != "" || !errors.As(err, &p) || !strings.Contains(p.Title, tc.want) || p.Next == "" || exitCode(err) != 10 {
				t.Errorf("%q, %v", code, err)
			}
		})
	}
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := readPicture(ctx, pngOf(t, corners)); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func abs(n int) int { return max(n, -n) }

func TestProgressive(t *testing.T) {
	frame := func(marker byte) []byte {
		return []byte{0xFF, 0xD8, 0xFF, 0xE1, 0, 4, 0xFF, 0xC2, 0xFF, marker, 0, 8}
	}
	for marker, want := range map[byte]int64{0xC0: 0, 0xC2: 4, 0xDA: 0} {
		if got := progressive(frame(marker)); got != want {
			t.Errorf("%02X: %d, want %d", marker, got, want)
		}
	}
}

// FuzzReadPicture: no picture makes lpactl stumble.
func FuzzReadPicture(f *testing.F) {
	f.Add(pngOf(f, drawCode(f, pictureCode, 2)))
	f.Add(jpegOf(f, drawCode(f, pictureCode, 3), 50))
	f.Add(claim(8, 8, 8, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, _, err := image.DecodeConfig(bytes.NewReader(b)); err == nil && c.Width*c.Height > 1<<18 {
			t.Skip("a picture that large takes longer than a fuzzer waits")
		}
		code, err := readPicture(t.Context(), b)
		if (code == "") == (err == nil) {
			t.Error(fmt.Sprintf("%q", code), err)
		}
	})
}

// FuzzCodeIn: what is found in a text is part of it, and one word.
func FuzzCodeIn(f *testing.F) {
	for _, s := range []string{pictureCode, "scan LPA:1$a.b$c now", "https://x.example/?carddata=LPA:1%24a.b%24c&x=1", "1$a.b$c", "lpa:1$", "LPA:1%24%zz", "1$a\"b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if code := codeIn(s); code != "" && !strings.Contains(s, "%") && (!strings.Contains(s, code) || strings.ContainsAny(code, " \n\"")) {
			t.Errorf("%q", code)
		}
	})
}
