package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	_ "image/jpeg"
	_ "image/png"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/makiuchi-d/gozxing"
	multi "github.com/makiuchi-d/gozxing/multi/qrcode"
	"github.com/makiuchi-d/gozxing/qrcode"

	"lpad/agent/api"
	"lpad/agent/rsp"
)

// Limits of a picture. One of today's telephones has 12 million points and
// 4 MB; one that needs more than maxDecoded bytes when it is unpacked would not
// fit into a small device either.
const (
	maxPicture = 16 << 20 // bytes of the file
	maxSide    = 16384    // points
	maxDecoded = 96 << 20 // bytes, unpacked
	maxCorners = 256      // places that may be the corner of a QR code; the search takes their number to the power of 3
)

// kinds of files that are known by their first bytes; read says that lpactl
// can.
var kinds = []struct {
	at    int
	magic string
	name  string
	read  bool
}{
	{0, "\x89PNG\r\n\x1a\n", "PNG", true},
	{0, "\xff\xd8\xff", "JPEG", true},
	{0, "GIF8", "GIF", false},
	{0, "BM", "BMP", false},
	{0, "%PDF", "PDF", false},
	{0, "II*\x00", "TIFF", false},
	{0, "MM\x00*", "TIFF", false},
	{8, "WEBP", "WebP", false},
	{4, "ftyp", "HEIC or AVIF", false},
}

// magicBytes is how much of a file tells its kind.
const magicBytes = 12

// kindOf says what kind of picture begins with b; empty: none.
func kindOf(b []byte) (name string, read bool) {
	for _, k := range kinds {
		if len(b) > k.at && bytes.HasPrefix(b[k.at:], []byte(k.magic)) {
			return k.name, k.read
		}
	}
	return "", false
}

// pictureProblem is a picture that gives no activation code. All of them are
// mended by another picture.
func pictureProblem(next, format string, a ...any) error {
	return &api.Problem{Code: rsp.CodeMalformed, Title: fmt.Sprintf(format, a...), Who: "technician", Next: next}
}

const (
	nextSharper = "take the picture again: straight on, in focus, without glare, the QR code filling half of it; or type the text that is printed beside it"
	nextConvert = "save it as PNG or JPEG, or take a picture of the screen"
	nextCrop    = "cut it down to the QR code"
)

// readPicture finds the activation code in the QR code of a picture. What the
// QR code says otherwise is not told: it may be a secret of another kind.
func readPicture(ctx context.Context, b []byte) (code string, err error) {
	kind, read := kindOf(b)
	switch {
	case len(b) > maxPicture:
		return "", pictureProblem(nextCrop, "the picture has more than %d MB", maxPicture>>20)
	case kind == "":
		return "", pictureProblem(nextConvert, "this is no picture that lpactl knows")
	case !read:
		return "", pictureProblem(nextConvert, "the picture is %s, and lpactl reads PNG and JPEG", kind)
	}
	c, _, err := image.DecodeConfig(bytes.NewReader(b))
	if err != nil {
		return "", pictureProblem(nextConvert, "the picture is damaged: %v", err)
	}
	if c.Width < 1 || c.Height < 1 || c.Width > maxSide || c.Height > maxSide || int64(c.Width)*int64(c.Height)*pointBytes(b, c.ColorModel) > maxDecoded {
		return "", pictureProblem(nextCrop, "the picture is too large: %d by %d points", c.Width, c.Height)
	}
	img, _, err := image.Decode(bytes.NewReader(b))
	if err != nil {
		return "", pictureProblem(nextConvert, "the picture is damaged: %v", err)
	}
	texts, err := qrTexts(ctx, img)
	if err != nil {
		return "", err
	}
	var codes []string
	for _, text := range texts {
		if code := codeIn(text); code != "" && !slices.Contains(codes, code) {
			codes = append(codes, code)
		}
	}
	switch {
	case len(texts) == 0:
		return "", pictureProblem(nextSharper, "no QR code is found in the picture (%d by %d points)", c.Width, c.Height)
	case len(codes) == 0:
		return "", pictureProblem("use the picture with the operator's code for the eSIM", "the QR code in the picture holds no activation code, but %s", whatIs(texts[0]))
	case len(codes) > 1:
		return "", pictureProblem(nextCrop+" that is meant", "there are %d activation codes in the picture", len(codes))
	}
	return codes[0], nil
}

// pointBytes is how many bytes a point of the unpacked picture takes. A
// progressive JPEG is kept as coefficients of four bytes meanwhile.
func pointBytes(b []byte, m color.Model) int64 {
	switch m {
	case color.GrayModel:
		return 1 + progressive(b)
	case color.Gray16Model:
		return 2
	case color.YCbCrModel:
		return 3 + 3*progressive(b)
	case color.RGBA64Model, color.NRGBA64Model:
		return 8
	}
	if _, ok := m.(color.Palette); ok {
		return 1
	}
	return 4 + 4*progressive(b)
}

// progressive is 4 for a JPEG that is, else 0 (ISO/IEC 10918-1, annex B).
func progressive(b []byte) int64 {
	const startOfFrame, startOfProgressive, startOfScan = 0xC0, 0xC2, 0xDA
	for at := 2; at+4 <= len(b) && b[at] == 0xFF; {
		switch b[at+1] {
		case startOfProgressive:
			return 4
		case startOfFrame, startOfScan:
			return 0
		}
		at += 2 + int(b[at+2])<<8 + int(b[at+3])
	}
	return 0
}

// sizes are the long sides, in points, that a picture is looked at in: smaller
// ones hide noise and patterns of a screen, larger ones show a code that is a
// small part of the picture.
var sizes = []int{1000, 1600, 640, 2600, 400}

// qrTexts finds what the QR codes of a picture say. Those that it finds first
// count: a smaller size shows nothing more.
func qrTexts(ctx context.Context, img image.Image) ([]string, error) {
	full := grey(img)
	var seen []int
	for _, size := range sizes {
		long := max(full.w, full.h)
		factor := max(1, (long+size-1)/size)
		if long < sizes[len(sizes)-1] {
			factor = -(sizes[len(sizes)-1] + long - 1) / long // as screen shots of one point a module are
		}
		if slices.Contains(seen, factor) {
			continue
		}
		seen = append(seen, factor)
		g := full.scaled(factor)
		for _, inverted := range []bool{false, true} {
			for _, global := range []bool{false, true} {
				if err := ctx.Err(); err != nil {
					return nil, err
				}
				if texts := g.look(ctx, global, inverted); len(texts) > 0 {
					return texts, nil
				}
			}
		}
	}
	return nil, ctx.Err()
}

// look finds QR codes with one way of telling black from white. The library
// trusts its pictures: whatever it stumbles over is no QR code.
func (g greyImage) look(ctx context.Context, global, inverted bool) (texts []string) {
	defer func() {
		if recover() != nil && ctx.Err() != nil {
			texts = nil
		}
	}()
	var source gozxing.LuminanceSource = gozxing.NewLuminanceSourceFromImage(&image.Gray{Pix: g.pix, Stride: g.w, Rect: image.Rect(0, 0, g.w, g.h)})
	if inverted {
		source = source.Invert()
	}
	binarizer := gozxing.NewHybridBinarizer(source)
	if global {
		binarizer = gozxing.NewGlobalHistgramBinarizer(source)
	}
	bitmap, err := gozxing.NewBinaryBitmap(binarizer)
	if err != nil {
		return nil
	}
	hints := func() map[gozxing.DecodeHintType]any {
		corners := 0
		return map[gozxing.DecodeHintType]any{
			gozxing.DecodeHintType_TRY_HARDER: true,
			gozxing.DecodeHintType_NEED_RESULT_POINT_CALLBACK: gozxing.ResultPointCallback(func(gozxing.ResultPoint) {
				if corners++; corners > maxCorners || ctx.Err() != nil {
					panic(errCorners) // there is no other way out of the search
				}
			}),
		}
	}
	add := func(text string) {
		if !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	if one, err := qrcode.NewQRCodeReader().Decode(bitmap, hints()); err == nil {
		add(one.GetText())
	}
	// What has one may have several, which the search above does not tell apart.
	more, err := multi.NewQRCodeMultiReader().DecodeMultiple(bitmap, hints())
	if err == nil {
		for _, r := range more {
			add(r.GetText())
		}
	}
	return texts
}

var errCorners = errors.New("too many places look like the corner of a QR code")

// greyImage is a picture in shades of grey, a byte a point.
type greyImage struct {
	pix  []byte
	w, h int
}

// grey takes the colours out of a picture, and puts it on white where one can
// see through it.
func grey(img image.Image) greyImage {
	r := img.Bounds()
	g := greyImage{make([]byte, r.Dx()*r.Dy()), r.Dx(), r.Dy()}
	if y, ok := img.(*image.YCbCr); ok { // its first plane is what is wanted
		for row := range g.h {
			copy(g.pix[row*g.w:(row+1)*g.w], y.Y[row*y.YStride:])
		}
		return g
	}
	for y := range g.h {
		for x := range g.w {
			c := img.At(r.Min.X+x, r.Min.Y+y)
			red, green, blue, alpha := c.RGBA()
			g.pix[y*g.w+x] = byte(((299*red+587*green+114*blue)/1000 + 0xFFFF - alpha) >> 8)
		}
	}
	return g
}

// scaled makes a picture smaller by a whole factor, each point the mean of
// those that it stands for, or, by a negative one, larger.
func (g greyImage) scaled(factor int) greyImage {
	switch {
	case factor == 1:
		return g
	case factor < 0:
		f := -factor
		out := greyImage{make([]byte, g.w*f*g.h*f), g.w * f, g.h * f}
		for i := range out.pix {
			out.pix[i] = g.pix[i/out.w/f*g.w+i%out.w/f]
		}
		return out
	}
	out := greyImage{w: max(1, g.w/factor), h: max(1, g.h/factor)}
	out.pix = make([]byte, out.w*out.h)
	for y := range out.h {
		for x := range out.w {
			sum, n := 0, 0
			for dy := y * factor; dy < min((y+1)*factor, g.h); dy++ {
				for _, p := range g.pix[dy*g.w+x*factor : dy*g.w+min((x+1)*factor, g.w)] {
					sum += int(p)
					n++
				}
			}
			out.pix[y*out.w+x] = byte(sum / n)
		}
	}
	return out
}

// activationCode is one in the middle of a text, or in a link that opens the
// settings of a telephone.
var activationCode = regexp.MustCompile(`(?i)\bLPA(?::|%3A)1(?:\$|%24)[^\s"'<>&#]+`)

// codeIn finds the activation code in a text; empty: there is none. One that
// stands alone needs no prefix.
func codeIn(text string) string {
	found := activationCode.FindString(text)
	if found == "" {
		if alone := strings.TrimSpace(text); !strings.ContainsAny(alone, " \t\r\n\"'<>") && strings.HasPrefix(alone, "1$") {
			found = alone
		}
	}
	if !strings.Contains(found, "$") {
		if decoded, err := url.PathUnescape(found); err == nil {
			found = decoded
		}
	}
	return found
}

// whatIs says in general what a text is.
func whatIs(text string) string {
	if u, err := url.Parse(text); err == nil && u.Host != "" && (u.Scheme == "https" || u.Scheme == "http") {
		return "the address of a page at " + rsp.DisplayText(u.Host)
	}
	return fmt.Sprintf("a text of %d characters", len(text))
}
