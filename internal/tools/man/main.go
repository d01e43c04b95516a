// Command man writes the manual pages of the programs out of their own source:
//
//	go run ./internal/tools/man            # into packaging/man
//
// lpactl.1 is what "lpactl COMMAND --help" says of every command, with the exit
// codes of docs/lpactl.md, which a test of lpactl holds against its source;
// lpad.8 is the comment of package cmd/lpad with the flags that "lpad -h" tells.
// The pages lie in the repository, so that a package needs no program of its
// own architecture to run; the test beside this file fails when one is old.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

func main() {
	source := flag.String("source", ".", "folder of the project")
	out := flag.String("out", "packaging/man", "folder for the pages")
	flag.Parse()
	pages, err := Pages(*source)
	if err == nil {
		err = os.MkdirAll(*out, 0o755)
	}
	for name, text := range pages {
		if err == nil {
			err = os.WriteFile(filepath.Join(*out, name), text, 0o644)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// Pages are the manual pages by their file names. source is the project's
// folder, whose programs are built and asked.
func Pages(source string) (map[string][]byte, error) {
	dir, err := os.MkdirTemp("", "lpad-man-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-tags", "nethttpomithttp2", "-o", dir, "./cmd/lpactl", "./cmd/lpad")
	build.Dir = source
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=", "GOARCH=")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	technician, err := lpactl(filepath.Join(dir, "lpactl"), source)
	if err != nil {
		return nil, err
	}
	daemon, err := lpad(filepath.Join(dir, "lpad"), source)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{"lpactl.1": technician, "lpad.8": daemon}, nil
}

// help is what a program says of itself, in an environment that changes
// nothing. A program of package flag ends -h with 0, too.
func help(program string, args ...string) (string, error) {
	cmd := exec.Command(program, args...)
	cmd.Env = []string{"HOME=/"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", filepath.Base(program), strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// sections are the parts of cobra's help: what comes before the first head is
// under "".
func sections(text string) map[string]string {
	parts, head := map[string]string{}, ""
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, " ") && strings.HasSuffix(line, ":\n") {
			head = strings.TrimSuffix(line, ":\n")
			continue
		}
		if strings.HasPrefix(line, "Use \"lpactl") {
			continue
		}
		parts[head] += line
	}
	return parts
}

var child = regexp.MustCompile(`(?m)^  ([a-z-]+) `)

func lpactl(program, source string) ([]byte, error) {
	var b bytes.Buffer
	root, err := help(program, "--help")
	if err != nil {
		return nil, err
	}
	top := sections(root)
	fmt.Fprintf(&b, ".TH LPACTL 1 \"\" lpad \"lpad manual\"\n.SH NAME\nlpactl \\- %s\n.SH SYNOPSIS\n.B lpactl\n[\\fIoptions\\fR] \\fIcommand\\fR [\\fIarguments\\fR]\n", roff(strings.TrimSpace(top[""])))
	b.WriteString(".SH DESCRIPTION\nIt talks to the daemon over its local socket, and may do what the groups of the caller may do.\n.SH OPTIONS\n")
	literal(&b, top["Flags"])
	b.WriteString(".SH COMMANDS\n")
	var walk func(path []string, list string) error
	walk = func(path []string, list string) error {
		for _, m := range child.FindAllStringSubmatch(list, -1) {
			if m[1] == "help" {
				continue
			}
			here := append(append([]string{}, path...), m[1])
			text, err := help(program, append(append([]string{}, here...), "--help")...)
			if err != nil {
				return err
			}
			p := sections(text)
			usage, _, _ := strings.Cut(strings.TrimSpace(p["Usage"]), "\n")
			fmt.Fprintf(&b, ".SS %s\n", roff(strings.TrimSuffix(usage, " [flags]")))
			if here[0] == "completion" && len(here) > 1 {
				continue // cobra's own text, which "completion" sums up
			}
			paragraphs(&b, p[""])
			literal(&b, strings.ReplaceAll(p["Flags"], "  -h, --help ", "\x00"))
			if err := walk(here, p["Available Commands"]); err != nil {
				return err
			}
		}
		return nil
	}
	if err := walk(nil, top["Available Commands"]); err != nil {
		return nil, err
	}
	codes, err := exitCodes(filepath.Join(source, "docs/lpactl.md"))
	if err != nil {
		return nil, err
	}
	b.WriteString(".SH EXIT STATUS\n" + codes)
	b.WriteString(".SH ENVIRONMENT\n.TP\n.B LPAD_SOCKET\nthe socket, instead of /run/lpad/lpad.sock\n.TP\n.B LPAD_CARD\nthe card that is meant, of several\n")
	b.WriteString(".SH SEE ALSO\n.BR lpad (8),\n/usr/share/doc/lpad/lpactl.md\n")
	return b.Bytes(), nil
}

var exitRow = regexp.MustCompile(`(?m)^\| (\d+) \| ([^|]+) \|`)

// exitCodes reads the table of the document.
func exitCodes(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, m := range exitRow.FindAllStringSubmatch(string(text), -1) {
		fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", m[1], roff(strings.ReplaceAll(strings.TrimSpace(m[2]), "`", "")))
	}
	if b.Len() == 0 {
		return "", fmt.Errorf("%s has no exit codes", file)
	}
	return b.String(), nil
}

func lpad(program, source string) ([]byte, error) {
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(source, "cmd/lpad/main.go"), nil, parser.ParseComments|parser.PackageClauseOnly)
	if err != nil {
		return nil, err
	}
	flags, err := help(program, "-h")
	if err != nil {
		return nil, err
	}
	_, flags, _ = strings.Cut(flags, "\n") // "Usage of" and a path
	name, rest, _ := strings.Cut(file.Doc.Text(), "\n\n")
	name = strings.TrimSuffix(strings.TrimPrefix(strings.ReplaceAll(name, "\n", " "), "Lpad is "), ".")
	var b bytes.Buffer
	fmt.Fprintf(&b, ".TH LPAD 8 \"\" lpad \"lpad manual\"\n.SH NAME\nlpad \\- %s\n.SH SYNOPSIS\n", roff(name))
	synopsis, rest, _ := strings.Cut(strings.TrimSpace(rest), "\n\n")
	literal(&b, synopsis)
	b.WriteString(".SH DESCRIPTION\n")
	paragraphs(&b, rest)
	b.WriteString(".SH OPTIONS\n")
	literal(&b, strings.ReplaceAll(flags, "\t", "    "))
	b.WriteString(".SH FILES\n.TP\n.I /etc/lpad/lpad.yaml\nthe configuration; /usr/share/doc/lpad/operations.md explains every key\n.TP\n.I /run/lpad/lpad.sock\nthe local socket\n" +
		".TP\n.I /var/lib/lpad\nwhat it remembers\n.SH SEE ALSO\n.BR lpactl (1)\n")
	return b.Bytes(), nil
}

// roff takes the meaning out of what troff would understand.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}

// paragraphs writes running text; lines that are indented stay as they are.
func paragraphs(b *bytes.Buffer, text string) {
	for i, p := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			b.WriteString(".PP\n")
		}
		if strings.HasPrefix(p, " ") || strings.HasPrefix(p, "\t") {
			literal(b, p)
			continue
		}
		for _, line := range strings.Split(p, "\n") {
			b.WriteString(roff(strings.TrimSpace(line)) + "\n")
		}
	}
}

// literal writes lines as they are. One that begins with NUL is left out.
func literal(b *bytes.Buffer, text string) {
	var lines []string
	for _, line := range strings.Split(strings.Trim(text, "\n"), "\n") {
		if !strings.HasPrefix(line, "\x00") && strings.TrimSpace(line) != "" {
			lines = append(lines, roff(line))
		}
	}
	if len(lines) > 0 {
		b.WriteString(".PP\n.nf\n" + strings.Join(lines, "\n") + "\n.fi\n")
	}
}
