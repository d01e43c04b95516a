// Command lpad-pcsc makes the PC/SC calls of lpad, which starts it, talks to
// it over standard input and output, and kills it when a reader hangs. It takes
// no arguments and is of no use by hand. The protocol is specified in package
// lpad/apdu/pcsc.
package main

import (
	"os"

	"lpad/apdu/pcsc/reader"
)

// version is set when lpad is built; it only has to be there.
var version = "unknown"

func main() {
	if len(os.Args) > 1 {
		os.Stderr.WriteString("lpad-pcsc " + version + ": the PC/SC helper of lpad, not for use by hand\n")
		os.Exit(1)
	}
	os.Exit(reader.Serve(os.Stdin, os.Stdout, os.Stderr))
}
