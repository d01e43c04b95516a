package ber

import "fmt"

// Reader goes over a list of elements, front to back. Its first error sticks:
// every later call does nothing and gives the empty TLV, so a decoder may read
// a whole structure and ask [Reader.Finish] once. For one goroutine.
type Reader struct {
	rest    []byte
	offset  int // of rest, from where reading began
	depth   int // of the elements of this list, less one
	headers int // header reads so far
	err     error
}

// NewReader reads the list of elements b, at depth zero.
func NewReader(b []byte) *Reader { return &Reader{rest: b} }

// Reader reads the children of a constructed element. For a primitive element,
// or one that is too deep, the Reader has an error from the start.
func (t TLV) Reader() *Reader {
	r := &Reader{rest: t.Value, offset: t.offset, depth: t.depth, err: t.err}
	switch {
	case r.err != nil:
	case !t.Tag.Constructed():
		r.fail(fmt.Sprintf("%v has no children", t.Tag))
	case t.depth >= MaxDepth:
		r.fail(fmt.Sprintf("nested deeper than %d levels", MaxDepth))
	}
	return r
}

// fail notes the first error.
func (r *Reader) fail(reason string) {
	if r.err == nil {
		r.err = &Error{Offset: r.offset, Reason: reason}
	}
}

// at reads the element that begins skip bytes into the rest. It is the only
// place where a header is read, and counts.
func (r *Reader) at(skip int) (TLV, bool) {
	if r.err != nil || skip >= len(r.rest) {
		return TLV{err: r.err}, false
	}
	if r.headers++; r.headers > MaxHeaders {
		r.fail(fmt.Sprintf("list costs more than %d header reads", MaxHeaders))
		return TLV{err: r.err}, false
	}
	b := r.rest[skip:]
	tag, n, reason := parseTag(b)
	var length, m int
	if reason == "" {
		length, m, reason = parseLength(b[n:])
		n += m
	}
	if reason == "" && length > len(b)-n {
		reason = fmt.Sprintf("%v has %d bytes, %d are there", tag, length, len(b)-n)
	}
	if reason != "" {
		r.err = &Error{Offset: r.offset + skip, Reason: reason}
		return TLV{err: r.err}, false
	}
	end := n + length
	return TLV{
		Tag: tag, Value: b[n:end:end], Raw: b[:end:end],
		depth: r.depth + 1, offset: r.offset + skip + n,
	}, true
}

// advance goes over n bytes.
func (r *Reader) advance(n int) {
	r.rest = r.rest[n:]
	r.offset += n
}

// Next reads any element. It gives false at the end of the list and after an
// error; [Reader.Err] tells which.
func (r *Reader) Next() (TLV, bool) {
	t, ok := r.at(0)
	if ok {
		r.advance(len(t.Raw))
	}
	return t, ok
}

// Read reads the next element, which must have this tag.
func (r *Reader) Read(tag Tag) TLV {
	t, ok := r.at(0)
	switch {
	case ok && t.Tag == tag:
		r.advance(len(t.Raw))
		return t
	case ok:
		r.fail(fmt.Sprintf("%v expected, %v found", tag, t.Tag))
	default:
		r.fail(fmt.Sprintf("%v expected, nothing found", tag))
	}
	return TLV{err: r.err}
}

// Optional reads the next element if it has this tag.
func (r *Reader) Optional(tag Tag) (TLV, bool) {
	t, ok := r.at(0)
	if !ok || t.Tag != tag {
		return TLV{err: r.absent(tag)}, false
	}
	r.advance(len(t.Raw))
	return t, true
}

// Find reads the first element with this tag, passing over those before it,
// as extensible structures want it. Where there is none the position stays.
func (r *Reader) Find(tag Tag) (TLV, bool) {
	for skip := 0; ; {
		t, ok := r.at(skip)
		if !ok {
			return TLV{err: r.absent(tag)}, false
		}
		skip += len(t.Raw)
		if t.Tag == tag {
			r.advance(skip)
			return t, true
		}
	}
}

// absent is the error that an element carries which was not there: using it
// without looking at the bool is a fault of the caller that must not pass for
// an empty value.
func (r *Reader) absent(tag Tag) error {
	if r.err != nil {
		return r.err
	}
	return &Error{Offset: r.offset, Reason: fmt.Sprintf("%v is absent", tag)}
}

// Empty says whether no element is left, because all were read or because of
// an error. A loop `for !r.Empty()` ends in both cases.
func (r *Reader) Empty() bool { return r.err != nil || len(r.rest) == 0 }

// Err gives the first error.
func (r *Reader) Err() error { return r.err }

// Finish gives the first error, or one that says that elements are left over.
func (r *Reader) Finish() error {
	if len(r.rest) > 0 {
		r.fail(fmt.Sprintf("%d bytes left over", len(r.rest)))
	}
	return r.err
}
