package upp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/vectors"
	"lpad/apdu/ber"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func iccid(t testing.TB, s string) rsp.ICCID {
	t.Helper()
	id, err := rsp.ParseICCID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// small is the complete profile of the brief, section 13.4.
const small = "A030800102810101820454455354830A89000123456789012341A50481008400A610060667810F010201060667810F010204" +
	"B052A0058000810101810667810F010201A207A105C60301020AA40C830A98001032547698103214A516831461124F0CA0000000871002FF49FF058950025553A6128310800101900080011EA40683010A950108" +
	"A318A0058000810102A10F300D80010181083131313131313131" +
	"A220A0058000810103A117A0153013800101810830303030FFFFFFFF820101830106" +
	"B3818CA0058000810104810667810F010204A219A11783027FD0840CA0000000871002FF49FF0589C60301810AA30B8309080910101032547698A4128310800101900080011EA40683010A950108A80F830D0A2E178CE73204000000000000AD1383110154657374FFFFFFFFFFFFFFFFFFFFFFFFAE03830100B20483020200B506830400000002B606830411F2FF00" +
	"A435A0058000810105A12CA12A8001018101018210000102030405060708090A0B0C0D0E0F8310101112131415161718191A1B1C1D1E1F" +
	"AA07A0058000810106"

func TestParseSmall(t *testing.T) {
	f, err := Parse(unhex(t, small))
	if err != nil {
		t.Fatal(err)
	}
	if f.ICCID() != iccid(t, "89000123456789012341") || f.Header.ICCID != f.ICCID() || f.Header.ProfileType != "TEST" || f.Header.Major != 2 || f.Header.Minor != 1 {
		t.Errorf("header %+v, ICCID %s", f.Header, f.ICCID())
	}
	if f.IMSI() != "001010123456789" || f.MNCLength() != 2 || f.SPN() != "Test" || f.GID1() != nil || f.GID2() != nil {
		t.Errorf("IMSI %s, MNC %d, SPN %q, GID %X %X", f.IMSI(), f.MNCLength(), f.SPN(), f.GID1(), f.GID2())
	}
	if !bytes.Equal(f.USIMAID, usimAID) || len(f.PEs) != 7 {
		t.Errorf("AID %X, elements %v", f.USIMAID, f.PEs)
	}
	want := []string{"2F00", "2F06", "2FE2", "7FFF/6F06", "7FFF/6F07", "7FFF/6F38", "7FFF/6F46", "7FFF/6F56", "7FFF/6F78", "7FFF/6FAD", "7FFF/6FB7"}
	if got := f.Paths(); !slices.Equal(got, want) {
		t.Errorf("files %v, want %v", got, want)
	}
}

// The generic test profiles of GSMA TS.48.
func TestParseTS48(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(vectors.Dir(t, "upp"), "*.der"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no TS.48 profiles: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			f, err := Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			if f.ICCID() != iccid(t, "89000123456789012341") || f.MNCLength() != 2 || f.SPN() != "GSMA_TEST" || !strings.HasPrefix(f.IMSI(), "00101") {
				t.Errorf("ICCID %s, MNC %d, SPN %q, IMSI %s", f.ICCID(), f.MNCLength(), f.SPN(), f.IMSI())
			}
			if !bytes.Equal(f.USIMAID, usimAID) || f.GID1() != nil {
				t.Errorf("USIM %X, GID1 %X", f.USIMAID, f.GID1())
			}
			dir := f.EF[PathDIR]
			record, ok := dir.Record(1)
			if !ok || !bytes.Contains(record, usimAID) || len(record) != 0x21 {
				t.Errorf("EF_DIR record 1: %X", record)
			}
			if _, ok := dir.Record(5); ok {
				t.Error("EF_DIR has a fifth record")
			}
			if n := len(f.EF); n < 60 {
				t.Errorf("%d files", n)
			}
		})
	}
}

func TestGenerate(t *testing.T) {
	base := Options{ICCID: iccid(t, "8900012345678901234"), IMSI: "262420123456789"}
	for _, test := range []struct {
		name string
		edit func(*Options)
	}{
		{"plain", func(*Options) {}},
		{"everything", func(o *Options) {
			o.SPN, o.GID1, o.GID2, o.MNCLength, o.ProfileType = "Test Mobile", []byte{0x42}, []byte{1, 2}, 3, "GENERIC"
		}},
		{"SPN in UCS2", func(o *Options) { o.SPN = "Žižkov" }},
		{"SPN in GSM alphabet", func(o *Options) { o.SPN = "Öster_$@Ø" }},
		{"14 digits of IMSI", func(o *Options) { o.IMSI = "00101012345678" }},
		{"6 digits of IMSI", func(o *Options) { o.IMSI = "001011" }},
		{"20 digits of ICCID", func(o *Options) { o.ICCID = iccid(t, "89000123456789012341") }},
		{"12 kB", func(o *Options) { o.Size = 12_000 }},
		{"40 kB", func(o *Options) { o.Size = 40_000; o.GID1 = []byte{1} }},
		{"100 kB", func(o *Options) { o.Size = 100_000 }},
		{"100 KiB", func(o *Options) { o.Size = 100 << 10 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := base
			test.edit(&o)
			p, err := Generate(o)
			if err != nil {
				t.Fatal(err)
			}
			if o.Size != 0 && len(p) != o.Size {
				t.Errorf("%d bytes, want %d", len(p), o.Size)
			}
			again, err := Generate(o)
			if err != nil || !bytes.Equal(again, p) {
				t.Error("not the same the second time")
			}
			f, err := Parse(p)
			if err != nil {
				t.Fatal(err)
			}
			if f.ICCID() != o.ICCID || f.IMSI() != o.IMSI || f.SPN() != o.SPN || f.MNCLength() != max(2, o.MNCLength) ||
				!bytes.Equal(f.GID1(), o.GID1) || !bytes.Equal(f.GID2(), o.GID2) {
				t.Errorf("read back: ICCID %s, IMSI %s, SPN %q, MNC %d, GID %X %X", f.ICCID(), f.IMSI(), f.SPN(), f.MNCLength(), f.GID1(), f.GID2())
			}
			ust := f.EF[PathUST].Content
			for service, want := range map[int]bool{17: o.GID1 != nil, 18: o.GID2 != nil, 19: o.SPN != ""} {
				if got := ust[(service-1)/8]&(1<<((service-1)%8)) != 0; got != want {
					t.Errorf("service %d in EF_UST: %v, want %v", service, got, want)
				}
			}
		})
	}
}

// Every size from the smallest on can be made.
func TestGenerateExactSizes(t *testing.T) {
	o := Options{ICCID: iccid(t, "89000123456789012341"), IMSI: "001010123456789", SPN: "Test"}
	p, err := Generate(o)
	if err != nil {
		t.Fatal(err)
	}
	least := len(p) + fillOverhead(0) + 8
	for size := least; size < least+700; size++ {
		o.Size = size
		if p, err := Generate(o); err != nil || len(p) != size {
			t.Fatalf("size %d: %d bytes, %v", size, len(p), err)
		}
	}
	for _, around := range []int{8192, 9300, 17000, 65536, 100_000} {
		for size := around - 40; size <= around+40; size++ {
			o.Size = size
			if p, err := Generate(o); err != nil || len(p) != size {
				t.Fatalf("size %d: %d bytes, %v", size, len(p), err)
			}
		}
	}
}

func TestFillOverhead(t *testing.T) {
	for _, n := range []int{0, 1, 127, 128, 255, 256, 8192, 9000} {
		header := ber.Encode(0xA0, ber.Encode(0x80), ber.Encode(0x81, []byte{1}))
		element := ber.Encode(peGeneric, header, ber.Encode(0xA1, Options{}.fillCommands(0, n)))
		if got := fillOverhead(n); got != len(element)-n {
			t.Errorf("%d bytes: overhead %d, want %d", n, got, len(element)-n)
		}
	}
}

func TestGenerateRefuses(t *testing.T) {
	good := Options{ICCID: iccid(t, "89000123456789012341"), IMSI: "001010123456789"}
	for name, edit := range map[string]func(*Options){
		"no ICCID":       func(o *Options) { o.ICCID = rsp.ICCID{} },
		"short IMSI":     func(o *Options) { o.IMSI = "00101" },
		"letters":        func(o *Options) { o.IMSI = "00101012345678x" },
		"MNC":            func(o *Options) { o.MNCLength = 4 },
		"long SPN":       func(o *Options) { o.SPN = strings.Repeat("x", 17) },
		"long GID":       func(o *Options) { o.GID1 = make([]byte, 33) },
		"long type":      func(o *Options) { o.ProfileType = strings.Repeat("x", 61) },
		"too small":      func(o *Options) { o.Size = 100 },
		"too large":      func(o *Options) { o.Size = maxSize + 1 },
		"just too small": func(o *Options) { o.Size = 405 },
	} {
		o := good
		edit(&o)
		if p, err := Generate(o); err == nil {
			t.Errorf("%s: %d bytes", name, len(p))
		}
	}
}

// What a card says to a damaged package.
func TestParseErrors(t *testing.T) {
	good := unhex(t, small)
	replace := func(old, new string) []byte {
		s := strings.ToUpper(hex.EncodeToString(good))
		if strings.Count(s, old) != 1 {
			t.Fatalf("%s occurs %d times", old, strings.Count(s, old))
		}
		return unhex(t, strings.Replace(s, old, new, 1))
	}
	end := "AA07A0058000810106"
	for _, test := range []struct {
		name   string
		upp    []byte
		status Status
		reason int
	}{
		{"empty", nil, InvalidFormat, 12},
		{"no end", good[:len(good)-9], InvalidFormat, 12},
		{"truncated", good[:len(good)-1], InvalidFormat, 12},
		{"after the end", append(slices.Clone(good), 0xA9, 0x00), InvalidFormat, 12},
		{"not a profile", []byte("the-uicc-profile-fixture"), InvalidFormat, 12},
		{"header missing", good[50:], InvalidFormat, 12},
		{"second header", append(slices.Clone(good[:50]), good...), InvalidFormat, 12},
		{"other ICCID in EF", replace("830A98001032547698103214", "830A98001032547698103224"), BadValues, 13},
		{"no EF_ICCID", replace("A40C830A98001032547698103214", "A70C830A98001032547698103214"), BadValues, 12},
		{"version 9.1", replace("A030800102", "A030800109"), BadVersion, 12},
		{"identification twice", replace("A435A0058000810105", "A435A0058000810104"), InvalidFormat, 12},
		{"no element header", replace(end, "AA020500"), InvalidFormat, 12},
		{"unknown element, mandated", replace(end, "BF4E07A0058000810107"+end), NotSupported, 12},
		{"opt-usim without usim", replace("A318A0", "B407A0058000810108"+"A318A0"), InvalidParameter, 12},
		{"content over the size", replace("A40C830A98001032547698103214", "A40E830C980010325476981032141111")[:0], InvalidFormat, 12},
		{"unknown file command", replace("AE03830100", "AE03840100"), InvalidFormat, 12},
		{"large file", replace("AE03830100", "AE0382017F")[:0], InvalidFormat, 12},
		{"header without ICCID", unhex(t, "A006800102810101"), InvalidFormat, 12},
		{"header with short ICCID", unhex(t, "A00A8001028101018302890A"), BadValues, 12},
		{"too much", make([]byte, maxUPP+1), InvalidFormat, 12},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Parse(test.upp)
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v", err)
			}
			if e.Status != test.status || e.ErrorReason() != test.reason || e.Error() == "" {
				t.Errorf("status %d, reason %d (%v), want %d, %d", e.Status, e.ErrorReason(), e, test.status, test.reason)
			}
		})
	}
	// An unknown element that is not mandated is passed over.
	if _, err := Parse(replace(end, "BF4E05A003810107"+end)); err != nil {
		t.Errorf("unknown element, not mandated: %v", err)
	}
}

// File commands that our own packages do not use, each in EF_EST of the small one.
func TestFileCommands(t *testing.T) {
	with := func(file ...[]byte) []byte {
		return slices.Concat(unhex(t, small)[:50],
			ber.Encode(peMF, unhex(t, "A0058000810101"), unhex(t, "A40C830A98001032547698103214"), ber.Encode(0xA7, file...)),
			unhex(t, "AA07A0058000810106"))
	}
	fcp := func(parts ...string) []byte { return ber.Encode(0xA1, unhex(t, strings.Join(parts, ""))) }
	for _, test := range []struct {
		name string
		file [][]byte
		want string // hex, empty: refused, "-": no file
	}{
		{"doNotCreate", [][]byte{{0x80, 0x00}}, "-"},
		{"default size", [][]byte{unhex(t, "83020102")}, "0102FFFFFF"},
		{"fill pattern", [][]byte{fcp("800108", "A504C1020102")}, "0102020202020202"},
		{"repeat pattern", [][]byte{fcp("800105", "A504C2020102")}, "0102010201"},
		{"records", [][]byte{fcp("82044221"+"0004", "800108", "A504C1020100"), unhex(t, "82010283010A")}, "01000A0001000000"},
		{"offset past the end", [][]byte{fcp("800102"), unhex(t, "820102"), unhex(t, "830111")}, ""},
		{"size over the limit", [][]byte{fcp("8003010001")}, ""},
		{"offset over the limit", [][]byte{unhex(t, "8203010001")}, ""},
		{"odd identifier", [][]byte{fcp("830101")}, ""},
		{"broken parameters", [][]byte{{0xA1, 0x01, 0x82}}, ""},
		{"broken pattern", [][]byte{fcp("A502C105")}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, err := Parse(with(test.file...))
			if (test.want == "") != (err != nil) {
				t.Fatalf("error %v", err)
			}
			if err != nil {
				return
			}
			got, ok := f.EF["2F08"]
			if test.want == "-" {
				if ok {
					t.Errorf("file %X", got.Content)
				}
				return
			}
			// An offset leaves what was there before: FF here, since the written
			// part hides the pattern.
			want := strings.ReplaceAll(test.want, "01000A00", "FFFF0A00")
			if hex := strings.ToUpper(hex.EncodeToString(got.Content)); hex != want {
				t.Errorf("content %s, want %s", hex, want)
			}
		})
	}
}

func TestGenericFileManagement(t *testing.T) {
	with := func(commands string) []byte {
		return slices.Concat(unhex(t, small)[:50],
			ber.Encode(peMF, unhex(t, "A0058000810101"), unhex(t, "A40C830A98001032547698103214")),
			ber.Encode(peGeneric, unhex(t, "A0058000810102"), ber.Encode(0xA1, ber.Encode(0x30, unhex(t, commands)))),
			unhex(t, "AA07A0058000810106"))
	}
	for _, test := range []struct {
		name, commands string
		want           map[string]string
		ok             bool
	}{
		{"MF and USIM", "8000" + "620783022FFB800102" + "81021122" + "80027FD0" + "620783026F3E800101" + "810142", map[string]string{"2FFB": "1122", "7FFF/6F3E": "42"}, true},
		{"below a directory", "80047F105F3A" + "620783024F09800102" + "81021122", nil, true},
		{"new directory", "8000" + "620483025F50" + "620783024F20800101", nil, true},
		{"offset", "8000" + "620783022FFB800103" + "020101" + "81017F", map[string]string{"2FFB": "FF7FFF"}, true},
		{"content before a file", "8101FF", nil, true},
		{"offset before a file", "820101", nil, true},
		{"content over the size", "8000" + "620783022FFB800101" + "81021122", nil, false},
		{"unknown command", "8500", nil, false},
		{"truncated", "8005", nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, err := Parse(with(test.commands))
			if (err == nil) != test.ok {
				t.Fatalf("error %v", err)
			}
			for path, want := range test.want {
				if got := f.EF[path].Content; !bytes.Equal(got, unhex(t, want)) {
					t.Errorf("%s: %X, want %s", path, got, want)
				}
			}
			if err == nil && len(f.EF) != 1+len(test.want) {
				t.Errorf("files %v", f.Paths())
			}
		})
	}
}

func TestFilesOfNothing(t *testing.T) {
	var f Files
	if f.IMSI() != "" || f.MNCLength() != 0 || f.SPN() != "" || f.GID1() != nil || !f.ICCID().IsZero() {
		t.Error("something in the zero Files")
	}
}

func TestResponses(t *testing.T) {
	if got := OK(); !bytes.Equal(got, unhex(t, "3007A0053003800100")) {
		t.Errorf("OK %X", got)
	}
	if got := (&Error{Status: 9, PE: 5}).Response(); !bytes.Equal(got, unhex(t, "300CA0083006800109810105"+"8100")) {
		t.Errorf("error %X", got)
	}
	cause := errors.New("cause")
	if e := (&Error{Status: 1, Detail: "x", cause: cause}); !errors.Is(e, cause) || !strings.Contains(e.Error(), "cause") {
		t.Errorf("%v", e)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(unhex(f, small))
	p, err := Generate(Options{ICCID: iccid(f, "89000123456789012341"), IMSI: "001010123456789", SPN: "Ž", GID1: []byte{1}, Size: 2000})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p)
	f.Fuzz(func(t *testing.T, upp []byte) {
		files, err := Parse(upp)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) {
				t.Errorf("untyped error %v", err)
			}
			return
		}
		total := 0
		for _, file := range files.EF {
			total += len(file.Content)
		}
		if total > maxAllFiles || files.ICCID() != files.Header.ICCID {
			t.Errorf("%d bytes of files, ICCID %s and %s", total, files.ICCID(), files.Header.ICCID)
		}
		_, _, _ = files.IMSI(), files.SPN(), files.MNCLength()
	})
}
