package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"lpad/agent/api"
	"lpad/agent/params"
	"lpad/internal/fault"
)

func (a *app) paramsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "params", Short: "terminal parameters: an operator's settings for a profile"}
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usageError{fmt.Errorf("there is no command %q", "params "+args[0])}
		}
		return cmd.Help()
	}
	cmd.AddCommand(a.paramsEffectiveCommand(), a.paramsSetCommand(), a.paramsClearCommand(), a.paramsEncodeCommand(), a.paramsDecodeCommand())
	return cmd
}

func (a *app) paramsEncodeCommand() *cobra.Command {
	var oid string
	cmd := &cobra.Command{
		Use:   "encode [FILE | -]",
		Short: "write a JSON document in the BER-TLV form, for a profile's metadata",
		Long: `Write a JSON document of terminal parameters in the BER-TLV form: an object E1 of
at most 110 bytes, in hexadecimal, and with --oid the whole dpProprietaryData (B8)
around it, as an SM-DP+ takes it. The form carries less than JSON: what it cannot
carry is named, and nothing is written. No daemon is needed.

The document is read from FILE or, without one or with "-", from standard input.`,
		Args: atMostOne,
		RunE: func(_ *cobra.Command, args []string) error {
			text, err := a.input(args)
			if err != nil {
				return err
			}
			return a.encodeParams(text, oid)
		},
	}
	cmd.Flags().StringVar(&oid, "oid", "", "the `OID` by which devices recognise the parameters: write the B8 with it")
	return cmd
}

func (a *app) paramsDecodeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "decode [HEX | -]",
		Short: "read the BER-TLV form as a JSON document",
		Long: `Read terminal parameters in the BER-TLV form, an E1 or the B8 around it in
hexadecimal, and write them as a JSON document, passwords included. No daemon is
needed. Spaces and line ends do not matter; without an argument, or with "-",
standard input is read.`,
		Args: atMostOne,
		RunE: func(_ *cobra.Command, args []string) error {
			text := []byte(strings.Join(args, ""))
			if len(args) == 0 || args[0] == "-" {
				var err error
				if text, err = a.input(nil); err != nil {
					return err
				}
			}
			return a.decodeParams(text)
		},
	}
}

func atMostOne(cmd *cobra.Command, args []string) error {
	if err := cobra.MaximumNArgs(1)(cmd, args); err != nil {
		return usageError{err}
	}
	return nil
}

// input reads the named file, or standard input without a name.
func (a *app) input(args []string) ([]byte, error) {
	from := io.Reader(a.keys.in)
	if len(args) > 0 && args[0] != "-" {
		f, err := os.Open(args[0])
		if err != nil {
			return nil, err
		}
		defer f.Close()
		from = f
	}
	b, err := io.ReadAll(io.LimitReader(from, maxParameters+1))
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	if len(b) > maxParameters {
		return nil, fmt.Errorf("more than %d KiB", maxParameters>>10)
	}
	return b, nil
}

// encodedParams is what params encode prints as JSON.
type encodedParams struct {
	TLV   string `json:"tlv"` // hexadecimal
	Bytes int    `json:"bytes"`
	OID   string `json:"oid,omitempty"`
}

func (a *app) encodeParams(text []byte, oid string) error {
	d, err := params.Parse(text, params.Options{Confidential: true})
	if err != nil {
		return paramsProblem(err, "correct the document")
	}
	out, err := params.MarshalTLV(d)
	if err != nil {
		return paramsProblem(err, "leave it out here; a document in an order can carry it")
	}
	if oid != "" {
		if out, err = params.ToMetadata(oid, out); err != nil {
			return paramsProblem(err, "check the OID; if the object is too long, leave something out")
		}
	}
	for _, apn := range d.APNs.Value {
		if !apn.Secret.IsZero() {
			a.ui.note("note: whoever may speak to the card can read the password for %s", apn.Name)
		}
	}
	if a.json {
		return a.ui.document(encodedParams{fmt.Sprintf("%X", out), len(out), oid})
	}
	a.ui.printf("%X\n", out)
	return nil
}

func (a *app) decodeParams(text []byte) error {
	const next = "give an E1 or a B8 in hexadecimal, whole"
	object, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		return paramsProblem(errors.New("this is not hexadecimal"), next)
	}
	if oid, ok := params.MetadataOID(object); ok {
		a.ui.note("note: the dpOid is %s", oid)
		if object, ok, err = params.FromMetadata(object, []string{oid}); err == nil && !ok {
			err = errors.New("there are no terminal parameters (E1) in this B8")
		}
		if err != nil {
			return paramsProblem(err, next)
		}
	}
	d, err := params.ParseTLV(object)
	if err != nil {
		return paramsProblem(err, "a device would ignore these parameters; correct them")
	}
	out, err := params.Marshal(d)
	if err != nil {
		return paramsProblem(err, "the device understands it; only JSON has no word for it")
	}
	for _, where := range d.Ignored {
		a.ui.note("note: %s is not known; a device passes it over", where)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, out, "", "  "); err != nil {
		return err
	}
	a.ui.printf("%s\n", indented.Bytes())
	return nil
}

// paramsProblem makes of an error about parameters what the daemon would have
// made of it, so that it reads the same and ends with the same number.
func paramsProblem(err error, next string) error {
	text := err.Error()
	var explained fault.Explainer
	if errors.As(err, &explained) {
		text = explained.Fault().Text
	}
	return &api.Problem{Type: "urn:lpad:problem:parameters-invalid", Code: "parameters-invalid", Title: text, Who: "technician", Next: next}
}
