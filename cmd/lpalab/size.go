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
// three ways to own the network and several cards came on top of it, then signed
// orders and terminal parameters, then relay, packets and profiles by file.
var sizeBounds = []struct {
	program string
	bound   float64
}{{"lpad", 10.25}, {"lpad-pcsc", 2}}

func sizeCommand() *cobra.Command {
	var cross bool
	cmd := &cobra.Command{
		Use: "size FOLDER", Short: "the sizes of the programs in a folder", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			var f figures
			measure := f.sizes
			if cross {
				measure = f.crossSizes
			}
			if err := measure(args[0]); err != nil {
				return err
			}
			return f.err()
		},
	}
	cmd.Flags().BoolVar(&cross, "cross", false, "the folder has programs for many architectures, PROGRAM-linux-ARCHITECTURE; those for amd64 have the bounds")
	return cmd
}

// crossSizes tells the sizes of what "make cross" has built. The other
// architectures are as large as they are: the code is the same.
func (f *figures) crossSizes(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*-linux-*"))
	if err != nil || len(files) == 0 {
		return errors.Join(err, fmt.Errorf("no programs in %s", dir))
	}
	for _, file := range files {
		st, err := os.Stat(file)
		if err != nil {
			return err
		}
		name, size := filepath.Base(file), float64(st.Size())/1e6
		bounded := false
		for _, b := range sizeBounds {
			if bounded = name == b.program+"-linux-amd64"; bounded {
				f.add("size-"+name, size, "MB", b.bound)
				break
			}
		}
		if !bounded {
			fmt.Printf("bench: size-%s %.6g MB\n", name, size)
		}
	}
	return nil
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
