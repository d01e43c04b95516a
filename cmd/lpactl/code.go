package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"lpad/agent/api"
	"lpad/agent/rsp"
	"lpad/internal/redact"
	"lpad/internal/smallfile"
)

// maxCodeText bounds a text file that holds an activation code, in bytes: a
// letter of an operator.
const maxCodeText = 64 << 10

// codeFrom finds the activation code in the argument of install: it is one, or
// the name of a file, or "-". What is neither is left to the daemon, which says
// what is wrong with it.
func (a *app) codeFrom(ctx context.Context, arg string) (string, error) {
	if arg == "-" {
		return a.codeFromInput(ctx)
	}
	if strings.ContainsAny(arg, "$%") || len(arg) >= 4 && strings.EqualFold(arg[:4], "LPA:") {
		return arg, nil
	}
	if _, err := os.Stat(arg); err != nil && !fileName.MatchString(arg) {
		return arg, nil
	}
	return a.codeFromFile(ctx, arg, false)
}

// fileName is what only a file is called.
var fileName = regexp.MustCompile(`(?i)/|\.(png|jpe?g|gif|bmp|tiff?|webp|heic|avif|pdf|txt|eml)$`)

// codeFromInput reads standard input: a picture, or a line of text.
func (a *app) codeFromInput(ctx context.Context) (string, error) {
	if first, err := a.keys.in.Peek(1); err == nil && (first[0] < ' ' || first[0] > '~' || strings.ContainsRune("GBIMR%", rune(first[0]))) {
		head, _ := a.keys.in.Peek(magicBytes) // shorter at the end, and not needed at a terminal
		if kind, _ := kindOf(head); kind != "" {
			b, err := io.ReadAll(io.LimitReader(a.keys.in, maxPicture+1))
			if err != nil {
				return "", fmt.Errorf("read the picture: %w", err)
			}
			return readPicture(ctx, b)
		}
	}
	code, err := a.ask(ctx, "")
	return code, needed(err, "nobody-answered", "there is no activation code on standard input", "write it there, or give it as the argument")
}

// codeFromFile reads a picture, or, unless it must be one, a text.
func (a *app) codeFromFile(ctx context.Context, name string, picture bool) (string, error) {
	if name == "-" {
		b, err := io.ReadAll(io.LimitReader(a.keys.in, maxPicture+1))
		if err != nil {
			return "", fmt.Errorf("read the picture: %w", err)
		}
		return readPicture(ctx, b)
	}
	b, err := smallfile.Read(name, maxPicture)
	if errors.Is(err, os.ErrNotExist) {
		return "", &api.Problem{Code: rsp.CodeMalformed, Title: "there is no file " + name, Who: "technician",
			Next: "compare the name, or give the activation code itself, in single quotes"}
	}
	if err != nil {
		return "", err
	}
	if kind, _ := kindOf(b); picture || kind != "" {
		code, err := readPicture(ctx, b)
		var p *api.Problem
		if errors.As(err, &p) {
			p.Title = filepath.Base(name) + ": " + p.Title
		}
		return code, err
	}
	return readCodeText(filepath.Base(name), b)
}

// readCodeText finds the one activation code in a text.
func readCodeText(name string, b []byte) (string, error) {
	if len(b) > maxCodeText {
		return "", pictureProblem(nextConvert, "%s is no picture, and too long for a text with an activation code", name)
	}
	var codes []string
	for line := range strings.Lines(string(b)) {
		if code := codeIn(line); code != "" && !slices.Contains(codes, code) {
			codes = append(codes, code)
		}
	}
	switch len(codes) {
	case 0:
		return "", pictureProblem("give a file that holds the text LPA:1$…, or a picture of the QR code", "there is no activation code in %s", name)
	case 1:
		return codes[0], nil
	}
	return "", pictureProblem("give the one that is meant as the argument, in single quotes", "there are %d activation codes in %s", len(codes), name)
}

// codeText shows what an activation code says, without telling the matching id:
// enough of it to compare with what is printed.
func codeText(c rsp.ActivationCode) string {
	s := "server " + c.SMDP
	switch {
	case c.MatchingID == "":
		s += ", no matching id: whatever is ordered for this eUICC"
	default:
		s += fmt.Sprintf(", matching id %s (%d characters)", redact.Digits(rsp.DisplayText(c.MatchingID)), len(c.MatchingID))
	}
	if c.ConfirmationCodeRequired {
		s += ", with a confirmation code"
	}
	return s
}
