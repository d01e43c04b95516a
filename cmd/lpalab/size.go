package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

// errOver means that a figure is over its bound; the figures have been printed.
var errOver = errors.New("a figure is over its bound")

// figures prints measured values with their bounds, one line each.
type figures struct{ over bool }

func (f *figures) add(name string, value float64, unit string, bound float64) {
	verdict := "ok"
	if value > bound {
		verdict, f.over = "over", true
	}
	fmt.Printf("bench: %s %.6g %s bound %.6g %s\n", name, value, unit, bound, verdict)
}

func (f *figures) err() error {
	if f.over {
		return errOver
	}
	return nil
}

// Bounds of the programs in flash, in megabytes of 10^6 bytes, stripped. The
// main job alone fitted into 9.5 MB; reports, the table of modems, the ladder,
// three ways to own the network and several cards came on top of it.
var sizeBounds = []struct {
	program string
	bound   float64
}{{"lpad", 10}, {"lpad-pcsc", 2}}

func sizeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "size FOLDER", Short: "the sizes of the programs in a folder", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			var f figures
			if err := f.sizes(args[0]); err != nil {
				return err
			}
			return f.err()
		},
	}
}

func (f *figures) sizes(dir string) error {
	for _, b := range sizeBounds {
		st, err := os.Stat(filepath.Join(dir, b.program))
		if err != nil {
			return err
		}
		f.add("size-"+b.program, float64(st.Size())/1e6, "MB", b.bound)
	}
	return nil
}
