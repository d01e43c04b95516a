package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"lpad/agent/params"
)

// paramsCommand is the reference encoder of terminal parameters for those who
// have the lab and no lpactl, such as an operator with an SM-DP+ to feed.
func paramsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "params", Short: "terminal parameters in the form of a profile's metadata"}
	var oid string
	encode := &cobra.Command{
		Use: "encode FILE", Short: "write a JSON document as an E1, or with --oid as a B8, in hexadecimal", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			return encodeParams(cmd.OutOrStdout(), text, oid)
		},
	}
	encode.Flags().StringVar(&oid, "oid", "", "the `OID` by which devices recognise the parameters")
	decode := &cobra.Command{
		Use: "decode HEX", Short: "read an E1 or a B8 as a JSON document", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return decodeParams(cmd.OutOrStdout(), args[0]) },
	}
	cmd.AddCommand(encode, decode)
	return cmd
}

func encodeParams(out io.Writer, text []byte, oid string) error {
	d, err := params.Parse(text, params.Options{Confidential: true})
	if err != nil {
		return err
	}
	object, err := params.MarshalTLV(d)
	if err == nil && oid != "" {
		object, err = params.ToMetadata(oid, object)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%X\n", object)
	return err
}

func decodeParams(out io.Writer, text string) error {
	object, err := hex.DecodeString(text)
	if err != nil {
		return err
	}
	if oid, ok := params.MetadataOID(object); ok {
		if object, ok, err = params.FromMetadata(object, []string{oid}); err != nil {
			return err
		}
		if !ok {
			return errors.New("there are no terminal parameters (E1) in this B8")
		}
	}
	d, err := params.ParseTLV(object)
	if err != nil {
		return err
	}
	document, err := params.Marshal(d)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s\n", document)
	return err
}
