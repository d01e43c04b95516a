package at

// Lines cuts chunks into lines as the reader does. A line that is too long is "…".
func Lines(chunks ...[]byte) []string {
	var out []string
	var s splitter
	for _, c := range chunks {
		s.feed(c, func(text string, tooLong bool) {
			if tooLong {
				text = "…"
			}
			out = append(out, text)
		})
	}
	return out
}

// Unglue is what the reader does with a line that may be several.
func Unglue(line string) []string { return unglue(line) }

// NameOf is what the log shows of a command or a line.
func NameOf(text string) string { return nameOf(text) }

// MaxLine bounds a line.
const MaxLine = maxLine
