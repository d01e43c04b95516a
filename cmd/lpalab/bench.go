package main

import (
	"github.com/spf13/cobra"
)

func benchCommand() *cobra.Command {
	return &cobra.Command{Use: "bench", Short: "figures with their bounds", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return nil }}
}
