package carrierdb

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits of a list. The real one has 360 kB, at most 16 providers on a
// network and 8 levels; its longest tag has 80 bytes.
const (
	maxFile    = 2 << 20 // bytes
	maxDepth   = 16
	maxTag     = 4 << 10 // bytes between < and >
	maxAttrs   = 16      // of one tag
	maxNetwork = 256     // providers on one network
	maxNetIDs  = 16 << 10
	maxPerOne  = 256      // networks, names, access points of one provider, name servers and plans of an access point
	maxValue   = 256      // bytes of a text
	maxAPN     = 100      // characters of an APN (TS 23.003, section 9.1)
	maxPiece   = 32 << 10 // bytes read at once of providers that are side by side
	window     = 16 << 10
)

var (
	errFormat  = errors.New("not a list of providers of format 2")
	errDepth   = fmt.Errorf("nested deeper than %d elements", maxDepth)
	errLength  = fmt.Errorf("longer than %d bytes", maxFile)
	errTag     = fmt.Errorf("a tag is longer than %d bytes or has more than %d attributes", maxTag, maxAttrs)
	errValue   = fmt.Errorf("a value is longer than %d bytes", maxValue)
	errTooMany = fmt.Errorf("more than %d networks, names or access points of one provider", maxPerOne)
	errSyntax  = errors.New("not XML")
	errEntity  = errors.New("an entity that XML does not define")
	errCharset = errors.New("not in UTF-8")
)

// scanner walks over the elements of a list once. It reads the XML that such a
// list is made of: elements, attributes, text, comments, CDATA, the five
// entities and numbers of characters. The DOCTYPE is passed over and never
// looked into. A general reader takes five times as long and leaves five
// megabytes of rubbish behind.
type scanner struct {
	r     io.Reader
	buf   []byte // a window of the file
	pos   int    // in buf
	eof   bool
	start int64 // of buf in the file

	path []string // of open elements
	text []byte   // of the innermost element, without blanks before it
	tag  tag
	shut bool // the last element was empty: its end is the next thing
}

// tag is a start or an end of an element. It is valid until the next.
type tag struct {
	name  string
	end   bool
	at    int64 // of its < in the file
	names [maxAttrs]string
	value [maxAttrs][]byte
	count int
}

// attr is the value of an attribute, as it stands there.
func (t *tag) attr(name string) []byte {
	for i := range t.count {
		if t.names[i] == name {
			return t.value[i]
		}
	}
	return nil
}

// intern is the text of a name; those of a list are not copied each time.
func intern(b []byte) string {
	switch string(b) {
	case "name":
		return "name"
	case "apn":
		return "apn"
	case "usage":
		return "usage"
	case "network-id":
		return "network-id"
	case "plan":
		return "plan"
	case "type":
		return "type"
	case "value":
		return "value"
	case "mcc":
		return "mcc"
	case "mnc":
		return "mnc"
	case "provider":
		return "provider"
	case "gsm":
		return "gsm"
	case "username":
		return "username"
	case "password":
		return "password"
	case "dns":
		return "dns"
	case "country":
		return "country"
	case "code":
		return "code"
	case "internet":
		return "internet"
	case "postpaid":
		return "postpaid"
	case "prepaid":
		return "prepaid"
	}
	return string(b)
}

func newScanner(r io.Reader, at int64) *scanner {
	return &scanner{r: r, buf: make([]byte, 0, window), start: at}
}

// offset is the place in the file up to which everything is read.
func (s *scanner) offset() int64 { return s.start + int64(s.pos) }

// fill gets more bytes behind those that are not read yet; false: there are no
// more, or no room.
func (s *scanner) fill() (bool, error) {
	if s.eof {
		return false, nil
	}
	if s.pos > 0 {
		s.start += int64(s.pos)
		s.buf = s.buf[:copy(s.buf, s.buf[s.pos:])]
		s.pos = 0
	}
	if len(s.buf) == cap(s.buf) {
		return false, nil
	}
	n, err := s.r.Read(s.buf[len(s.buf):cap(s.buf)])
	s.buf = s.buf[:len(s.buf)+n]
	if s.start+int64(len(s.buf)) > maxFile {
		return false, errLength
	}
	if errors.Is(err, io.EOF) {
		s.eof = true
		return n > 0, nil
	}
	return true, err
}

// next moves to the next start or end of an element. The text before it is in
// s.text; an element that begins has none. io.EOF is the end of the file with
// every element closed.
func (s *scanner) next() (*tag, error) {
	s.text = s.text[:0]
	if s.shut {
		s.shut = false
		s.tag.end, s.tag.count = true, 0
		s.path = s.path[:len(s.path)-1]
		return &s.tag, nil
	}
	for {
		if err := s.readText(); err != nil {
			return nil, err
		}
		kind, err := s.peek(2)
		if err != nil {
			return nil, unexpected(err)
		}
		switch kind[1] {
		case '?':
			err = s.instruction()
		case '!':
			err = s.declaration()
		default:
			return s.element()
		}
		if err != nil {
			return nil, unexpected(err)
		}
	}
}

// readText reads up to the next <.
func (s *scanner) readText() error {
	raw := len(s.text) // CDATA before it is as it is
	for {
		chunk := s.buf[s.pos:]
		n := bytes.IndexByte(chunk, '<')
		if n >= 0 {
			chunk = chunk[:n]
		}
		s.pos += len(chunk)
		if len(s.path) > 0 {
			if err := s.keep(chunk); err != nil {
				return err
			}
		} else if len(skipBlanks(bytes.TrimPrefix(chunk, []byte("\uFEFF")))) > 0 {
			return errSyntax
		}
		if n >= 0 {
			break
		}
		more, err := s.fill()
		if err != nil {
			return err
		}
		if !more {
			if len(s.path) > 0 {
				return io.ErrUnexpectedEOF
			}
			return io.EOF
		}
	}
	raw = min(raw, len(s.text))
	if bytes.IndexByte(s.text[raw:], '&') < 0 {
		return nil
	}
	text, err := unescape(s.text[raw:])
	s.text = append(s.text[:raw], text...)
	return err
}

// keep adds to the text. Blanks before it are dropped, and however many of
// them behind it are no reason to refuse the list.
func (s *scanner) keep(chunk []byte) error {
	if len(s.text) == 0 {
		chunk = skipBlanks(chunk)
	}
	if s.text = append(s.text, chunk...); len(s.text) > maxValue {
		if s.text = bytes.TrimRight(s.text, " \t\r\n"); len(s.text) > maxValue {
			return errValue
		}
	}
	return nil
}

// peek returns the next n bytes without reading them.
func (s *scanner) peek(n int) ([]byte, error) {
	for len(s.buf)-s.pos < n {
		more, err := s.fill()
		if err != nil {
			return nil, err
		}
		if !more {
			return nil, io.ErrUnexpectedEOF
		}
	}
	return s.buf[s.pos : s.pos+n], nil
}

// skipTo reads up to and with the mark, however far it is. What is before it
// goes to each piece by piece, when there is somebody to take it.
func (s *scanner) skipTo(mark string, each func([]byte) error) error {
	for {
		chunk := s.buf[s.pos:]
		n := bytes.Index(chunk, []byte(mark))
		kept := n
		if n < 0 { // all but what may be the beginning of the mark
			kept = max(len(chunk)-len(mark)+1, 0)
		}
		if each != nil {
			if err := each(chunk[:kept]); err != nil {
				return err
			}
		}
		s.pos += kept
		if n >= 0 {
			s.pos += len(mark)
			return nil
		}
		more, err := s.fill()
		if err != nil {
			return err
		}
		if !more {
			return io.ErrUnexpectedEOF
		}
	}
}

// instruction passes over <? … ?>. Of it only the encoding is of interest.
func (s *scanner) instruction() error {
	var first []byte
	s.pos += 2
	err := s.skipTo("?>", func(b []byte) error {
		if len(first) < maxValue {
			first = append(first, b...)
		}
		return nil
	})
	if err != nil || !bytes.HasPrefix(first, []byte("xml ")) {
		return err
	}
	_, encoding, ok := strings.Cut(string(first), "encoding=")
	if ok && len(encoding) > 0 && !strings.HasPrefix(strings.ToLower(encoding[1:]), "utf-8"+encoding[:1]) {
		return errCharset
	}
	return nil
}

const comment = "<!--"

// declaration passes over a comment or the DOCTYPE, and reads CDATA.
func (s *scanner) declaration() error {
	const cdata = "<![CDATA["
	head, err := s.peek(len(comment))
	if err != nil {
		return err
	}
	if string(head) == comment {
		s.pos += len(comment)
		return s.skipTo("-->", nil)
	}
	if head[2] != '[' {
		return s.doctype()
	}
	if head, err = s.peek(len(cdata)); err != nil {
		return err
	}
	if string(head) != cdata || len(s.path) == 0 {
		return errSyntax
	}
	s.pos += len(cdata)
	return s.skipTo("]]>", s.keep)
}

// doctype passes over <!DOCTYPE … > with what is declared within it.
func (s *scanner) doctype() error {
	if len(s.path) > 0 {
		return errSyntax
	}
	depth, quote := 0, byte(0)
	for {
		if _, err := s.peek(1); err != nil {
			return err
		}
		if c, err := s.peek(len(comment)); err == nil && quote == 0 && string(c) == comment {
			if err := s.skipTo("-->", nil); err != nil {
				return err
			}
			continue
		}
		c := s.buf[s.pos]
		s.pos++
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '<':
			depth++
		case c == '>':
			if depth--; depth == 0 {
				return nil
			}
		}
	}
}

// element reads a start or an end.
func (s *scanner) element() (*tag, error) {
	n, err := s.tagEnd()
	if err != nil {
		return nil, err
	}
	at := s.offset()
	b := s.buf[s.pos+1 : s.pos+n] // between < and >
	s.pos += n + 1
	t := &s.tag
	t.at, t.count, t.end = at, 0, false
	if b[0] == '/' {
		name, rest := word(b[1:])
		if len(s.path) == 0 || string(name) != s.path[len(s.path)-1] || len(skipBlanks(rest)) > 0 {
			return nil, errSyntax
		}
		t.name, t.end = s.path[len(s.path)-1], true
		s.path = s.path[:len(s.path)-1]
		if !utf8.Valid(s.text) {
			return nil, errCharset
		}
		return t, nil
	}
	if b[len(b)-1] == '/' {
		s.shut = true
		b = b[:len(b)-1]
	}
	if err := t.read(b); err != nil {
		return nil, err
	}
	if s.path = append(s.path, t.name); len(s.path) > maxDepth {
		return nil, errDepth
	}
	s.text = s.text[:0]
	return t, nil
}

// tagEnd is the distance from the < to its >, which may not be within quotes.
func (s *scanner) tagEnd() (int, error) {
	quote := byte(0)
	for i := 1; i <= maxTag; {
		if s.pos+i >= len(s.buf) {
			if _, err := s.peek(i + 1); err != nil {
				return 0, unexpected(err)
			}
		}
		for _, c := range s.buf[s.pos+i:] {
			switch {
			case quote != 0:
				if c == quote {
					quote = 0
				}
			case c == '"' || c == '\'':
				quote = c
			case c == '<' || c == '>' && i == 1:
				return 0, errSyntax
			case c == '>' && i <= maxTag:
				return i, nil
			}
			i++
		}
	}
	return 0, errTag
}

// read takes the name and the attributes of a start apart.
func (t *tag) read(b []byte) error {
	name, b := word(b)
	if len(name) == 0 {
		return errSyntax
	}
	t.name = intern(name)
	for {
		rest := skipBlanks(b)
		if len(rest) == 0 {
			return nil
		}
		name, after := word(rest)
		after = skipBlanks(after)
		if len(rest) == len(b) || len(name) == 0 || len(after) == 0 || after[0] != '=' {
			return errSyntax
		}
		after = skipBlanks(after[1:])
		if len(after) == 0 || after[0] != '"' && after[0] != '\'' {
			return errSyntax
		}
		end := bytes.IndexByte(after[1:], after[0])
		if end < 0 {
			return errSyntax
		}
		if t.count == maxAttrs {
			return errTag
		}
		value := after[1 : end+1]
		if !utf8.Valid(value) {
			return errCharset
		}
		if bytes.IndexByte(value, '&') >= 0 {
			text, err := unescape(value)
			if err != nil {
				return err
			}
			value = text
		}
		if len(value) > maxValue {
			return errValue
		}
		t.names[t.count], t.value[t.count] = intern(name), value
		t.count++
		b = after[end+2:]
	}
}

// skipBlanks cuts what XML calls white space off.
func skipBlanks(b []byte) []byte {
	for i, c := range b {
		if c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			return b[i:]
		}
	}
	return nil
}

// word cuts a name off.
func word(b []byte) (name, rest []byte) {
	for i, c := range b {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == ':' || c == '_' || c == '.' || c >= '0' && c <= '9' || c >= utf8.RuneSelf {
			continue
		}
		return b[:i], b[i:]
	}
	return b, nil
}

// unescape replaces the five entities and the numbers of characters.
func unescape(b []byte) ([]byte, error) {
	out := make([]byte, 0, len(b))
	for {
		n := bytes.IndexByte(b, '&')
		if n < 0 {
			return append(out, b...), nil
		}
		out = append(out, b[:n]...)
		end := bytes.IndexByte(b[n:], ';')
		if end < 0 {
			return nil, errEntity
		}
		r, ok := entity(string(b[n+1 : n+end]))
		if !ok {
			return nil, errEntity
		}
		out = utf8.AppendRune(out, r)
		b = b[n+end+1:]
	}
}

func entity(name string) (rune, bool) {
	switch name {
	case "amp":
		return '&', true
	case "lt":
		return '<', true
	case "gt":
		return '>', true
	case "quot":
		return '"', true
	case "apos":
		return '\'', true
	}
	digits, ok := strings.CutPrefix(name, "#")
	if !ok {
		return 0, false
	}
	base := 10
	if hex, is := strings.CutPrefix(digits, "x"); is {
		digits, base = hex, 16
	}
	n, err := strconv.ParseUint(digits, base, 21)
	return rune(n), err == nil && n > 0 && utf8.ValidRune(rune(n))
}

// unexpected: inside an element the end of the file is damage.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
