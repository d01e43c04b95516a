//go:build !cgo || nopcsc

package reader

import (
	"io"

	"lpad/apdu/pcsc"
)

// Serve says that there is no PC/SC in here, and returns that exit status.
func Serve(_ io.Reader, _, stderr io.Writer) int {
	// The exit status says the same, if nobody reads this.
	_, _ = io.WriteString(stderr, "lpad-pcsc: built without PC/SC (cgo was off, or the tag nopcsc was set)\n")
	return pcsc.ExitNotBuilt
}
