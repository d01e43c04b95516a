// Command deb makes the Debian packages of programs that are built already:
//
//	go run ./internal/tools/deb -version VERSION -arch arm64 -programs build/deb/arm64 -out build/deb
//
// lpad has the daemon, lpactl and what package packaging lists; lpad-pcsc the
// helper for PC/SC readers, which alone needs libraries; lpad-lab the lab. A
// package whose program is not in the folder is not made.
//
// The same input gives the same packages, bit by bit, whatever the time, the
// umask and the number of processors: SOURCE_DATE_EPOCH (seconds, mandatory) is
// the time of every file. VERSION is what "git describe" says; dpkg-deb does
// the packing, and needs no root. For each package its path, its size and the
// installed size are printed.
package main

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/md5"
	"debug/buildinfo"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"lpad/packaging"
)

// packer knows what all packages have in common.
type packer struct {
	version    string // as Debian writes it
	arch       string // Debian's name
	programs   string // folder with the programs
	source     string // the project's folder
	out        string
	maintainer string
	compress   string
	epoch      time.Time
}

// pkg is a package: its fields of control, and what makes its tree.
type pkg struct {
	name, summary, long string
	program             string // without it there is no package
	section             string
	fields              []string // further lines of control
	binaries            map[string]string
	links               map[string]string // from the name to what it leads to
	fill                func(root string) error
	conffiles           []string
	scripts             bool
	overrides           []string // of lintian: what it finds and why that is meant, line by line
}

func main() {
	p := packer{}
	version := flag.String("version", "", "what git describe says")
	flag.StringVar(&p.arch, "arch", "", "architecture, by Debian's name")
	flag.StringVar(&p.programs, "programs", "", "folder with the programs of that architecture")
	flag.StringVar(&p.source, "source", ".", "folder of the project")
	flag.StringVar(&p.out, "out", "", "folder for the packages")
	flag.StringVar(&p.maintainer, "maintainer", "lpad developers <lpad@localhost>", "whom to write to")
	flag.StringVar(&p.compress, "compress", "xz", "how dpkg-deb compresses: xz, gzip, none")
	flag.Parse()
	if err := p.run(*version); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func (p *packer) run(version string) error {
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH, the time of the last commit: %w", err)
	}
	p.epoch = time.Unix(seconds, 0).UTC()
	if p.version, err = debianVersion(version, p.epoch); err != nil {
		return err
	}
	if err := os.MkdirAll(p.out, 0o755); err != nil {
		return err
	}
	made := 0
	for _, one := range p.packages() {
		if _, err := os.Stat(filepath.Join(p.programs, one.program)); err != nil {
			fmt.Printf("%s_%s: not made, %s is not built\n", one.name, p.arch, one.program)
			continue
		}
		if err := p.pack(one); err != nil {
			return fmt.Errorf("package %s for %s: %w", one.name, p.arch, err)
		}
		made++
	}
	if made == 0 {
		return fmt.Errorf("no programs in %s", p.programs)
	}
	return nil
}

func (p *packer) packages() []pkg {
	same := "lpad (= " + p.version + ")"
	return []pkg{{
		name: "lpad", program: "lpad", section: "net", summary: "eSIM provisioning agent for Linux IoT modules",
		long: "lpad downloads operator profiles onto the eUICC of a gateway, meter or\n" +
			"tracker (GSMA SGP.22) and switches from one operator to another, settings\n" +
			"of the network included, unattended. lpactl is the technician's program.",
		fields: []string{"Depends: systemd (>= 247) | systemd-standalone-sysusers, init-system-helpers (>= 1.54~)",
			"Recommends: dbus, polkitd | policykit-1, mobile-broadband-provider-info", "Suggests: modemmanager, network-manager, lpad-pcsc"},
		binaries:  map[string]string{"lpad": "usr/sbin/lpad", "lpactl": "usr/bin/lpactl"},
		conffiles: []string{"/" + packaging.Configuration.Target}, scripts: true,
		overrides: []string{"# One program for every libc, without cgo.", "lpad: statically-linked-binary [usr/bin/lpactl]", "lpad: statically-linked-binary [usr/sbin/lpad]"},
		fill: func(root string) error {
			if err := packaging.Install(root); err != nil {
				return err
			}
			if err := packaging.InstallUnits(root); err != nil {
				return err
			}
			doc := filepath.Join(root, "usr/share/doc/lpad")
			if err := p.handbook(doc); err != nil {
				return err
			}
			if err := p.manuals(root); err != nil {
				return err
			}
			if err := p.completions(root); err != nil {
				return err
			}
			for _, name := range []string{"interface", "mqtt-endpoint", "logo"} {
				text, err := packaging.Examples.ReadFile("hooks/" + name)
				if err == nil {
					err = writeFile(filepath.Join(doc, "examples", name), text, 0o755)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}, {
		name: "lpad-pcsc", program: "lpad-pcsc", section: "net", summary: "eSIM provisioning agent, eUICCs in PC/SC readers",
		long: "The helper that lpad starts when its eUICC is in a smart card reader\n" +
			"instead of a modem. It talks to pcscd.",
		fields:   []string{"Depends: " + same + ", libpcsclite1 (>= 1.9), libc6 (>= 2.34)", "Recommends: pcscd"},
		binaries: map[string]string{"lpad-pcsc": "usr/sbin/lpad-pcsc"},
		overrides: []string{"# lpad starts it, nobody else; it has no options.", "lpad-pcsc: no-manual-page [usr/sbin/lpad-pcsc]",
			"# A megabyte of relocations more, on devices that count them.", "lpad-pcsc: hardening-no-pie [usr/sbin/lpad-pcsc]"},
	}, {
		name: "lpad-lab", program: "lpalab", section: "utils", summary: "eSIM provisioning agent, the lab",
		long: "A software eUICC in a simulated modem, an SM-DP+, and the real\n" +
			"ModemManager, NetworkManager and pcscd around lpad, in namespaces of their\n" +
			"own: lpalab demo, bench, faults and soak. Not for devices in the field.",
		fields: []string{"Depends: " + same + ", lpad-pcsc (= " + p.version + "), pcscd, vsmartcard-vpcd, dbus, polkitd, modemmanager, " +
			"network-manager, mobile-broadband-provider-info, iproute2, udev, e2fsprogs, mount"},
		binaries: map[string]string{"lpalab": "usr/lib/lpad-lab/lpalab"},
		// The lab looks for the programs beside itself.
		links: map[string]string{"usr/bin/lpalab": "../lib/lpad-lab/lpalab", "usr/lib/lpad-lab/lpad": "../../sbin/lpad",
			"usr/lib/lpad-lab/lpactl": "../../bin/lpactl", "usr/lib/lpad-lab/lpad-pcsc": "../../sbin/lpad-pcsc"},
		overrides: []string{"# As lpad itself.", "lpad-lab: statically-linked-binary [usr/lib/lpad-lab/lpalab]",
			"# lpalab --help is all there is to say.", "lpad-lab: no-manual-page [usr/bin/lpalab]"},
	}}
}

// developers are the documents that nobody needs on a device.
var developers = []string{"architecture.md", "hacking.md", "oem.md"}

// handbook puts the documents for those who run lpad and those who call it.
func (p *packer) handbook(doc string) error {
	entries, err := os.ReadDir(filepath.Join(p.source, "docs"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || slices.Contains(developers, e.Name()) {
			continue
		}
		if err := copyFile(filepath.Join(p.source, "docs", e.Name()), filepath.Join(doc, e.Name()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// manuals puts the pages that internal/tools/man has written where man looks.
func (p *packer) manuals(root string) error {
	for _, name := range []string{"lpactl.1", "lpad.8"} {
		text, err := os.ReadFile(filepath.Join(p.source, "packaging/man", name))
		if err == nil {
			err = writeFile(filepath.Join(root, "usr/share/man/man"+name[len(name)-1:], name+".gz"), zipped(text), 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// completions puts what lpactl itself writes for each shell where it looks. The
// program of the package may be for another architecture, so this machine's is
// asked.
func (p *packer) completions(root string) error {
	for shell, target := range map[string]string{"bash": "bash-completion/completions/lpactl", "zsh": "zsh/vendor-completions/_lpactl", "fish": "fish/vendor_completions.d/lpactl.fish"} {
		cmd := exec.Command("go", "run", "./cmd/lpactl", "completion", shell)
		cmd.Dir, cmd.Stderr = p.source, os.Stderr
		text, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("completion for %s: %w", shell, err)
		}
		if err := writeFile(filepath.Join(root, "usr/share", target), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

var described = regexp.MustCompile(`^v?(\d[0-9A-Za-z.~+]*)(?:-(\d+)-g([0-9a-f]+))?(-dirty)?$`)

// debianVersion makes a version that dpkg can compare of what git describes:
// v1.2-3-gabc, three commits after 1.2, is 1.2+3.gabc. Without a tag it is the
// time of the commit, before every release.
func debianVersion(text string, at time.Time) (string, error) {
	if m := described.FindStringSubmatch(text); m != nil && !onlyHash.MatchString(text) {
		v := m[1]
		if m[2] != "" {
			v += "+" + m[2] + ".g" + m[3]
		}
		if m[4] != "" {
			v += "+dirty"
		}
		return v, nil
	}
	v := strings.NewReplacer("-", "+").Replace(text)
	if !regexp.MustCompile(`^[0-9A-Za-z.+~]+$`).MatchString(v) {
		return "", fmt.Errorf("%q is no version", text)
	}
	return "0~" + at.Format("20060102.150405") + "." + v, nil
}

// onlyHash is what git describe says of a commit that no tag is below.
var onlyHash = regexp.MustCompile(`^[0-9a-f]{7,40}(-dirty)?$`)

func (p *packer) pack(one pkg) (err error) {
	root, err := os.MkdirTemp("", "lpad-deb-")
	if err != nil {
		return err
	}
	defer func() { err = cmp.Or(err, os.RemoveAll(root)) }()
	for program, target := range one.binaries {
		if err := copyFile(filepath.Join(p.programs, program), filepath.Join(root, target), 0o755); err != nil {
			return err
		}
	}
	for name, to := range one.links {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			return err
		}
	}
	if one.fill != nil {
		if err := one.fill(root); err != nil {
			return err
		}
	}
	if err := p.documents(root, one); err != nil {
		return err
	}
	kib, sums, err := p.finish(root)
	if err != nil {
		return err
	}
	control := fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: %s\nSection: %s\nPriority: optional\nInstalled-Size: %d\n%s\nDescription: %s\n",
		one.name, p.version, p.arch, p.maintainer, one.section, kib, strings.Join(one.fields, "\n"), one.summary)
	for _, line := range strings.Split(one.long, "\n") {
		control += " " + line + "\n"
	}
	debian := filepath.Join(root, "DEBIAN")
	if err := writeFile(filepath.Join(debian, "control"), []byte(control), 0o644); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(debian, "md5sums"), sums, 0o644); err != nil {
		return err
	}
	if len(one.conffiles) > 0 {
		if err := writeFile(filepath.Join(debian, "conffiles"), []byte(strings.Join(one.conffiles, "\n")+"\n"), 0o644); err != nil {
			return err
		}
	}
	if one.scripts {
		for _, name := range []string{"postinst", "prerm", "postrm"} {
			text, err := packaging.Scripts.ReadFile("debian/" + name)
			if err != nil {
				return err
			}
			if err := writeFile(filepath.Join(debian, name), text, 0o755); err != nil {
				return err
			}
		}
	}
	if _, _, err := p.finish(root); err != nil { // the folder of control, too
		return err
	}
	to := filepath.Join(p.out, one.name+"_"+p.version+"_"+p.arch+".deb")
	// With one thread the archive is the same on every machine.
	cmd := exec.Command("dpkg-deb", "--root-owner-group", "--threads-max=1", "-Z"+p.compress, "--build", root, to)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("dpkg-deb: %w: %s", err, out)
	}
	st, err := os.Stat(to)
	if err != nil {
		return err
	}
	fmt.Printf("%s: %.2f MB, installed %.2f MB\n", to, float64(st.Size())/1e6, float64(kib)*1024/1e6)
	return nil
}

// documents are those that every package has: its changelog and the licences
// of everything that is linked into it.
func (p *packer) documents(root string, one pkg) error {
	doc := filepath.Join(root, "usr/share/doc", one.name)
	text, err := p.copyright(one.binaries)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(doc, "copyright"), text, 0o644); err != nil {
		return err
	}
	changes, err := os.ReadFile(filepath.Join(p.source, "CHANGELOG.md"))
	if err != nil {
		return err
	}
	entry := fmt.Sprintf("lpad (%s) unstable; urgency=medium\n\n  * What changed is in CHANGELOG.md.gz of package lpad.\n\n -- %s  %s\n", p.version, p.maintainer, p.epoch.Format(time.RFC1123Z))
	if err := writeFile(filepath.Join(doc, "changelog.gz"), zipped([]byte(entry)), 0o644); err != nil {
		return err
	}
	if len(one.overrides) > 0 {
		if err := writeFile(filepath.Join(root, "usr/share/lintian/overrides", one.name), []byte(strings.Join(one.overrides, "\n")+"\n"), 0o644); err != nil {
			return err
		}
	}
	if one.name != "lpad" {
		return nil
	}
	return writeFile(filepath.Join(doc, "CHANGELOG.md.gz"), zipped(changes), 0o644)
}

var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice)(\.(md|txt|libyaml))?$`)

// copyright is the project's own licence, by its name, and the texts of those
// of the modules that the programs say they are made of.
func (p *packer) copyright(binaries map[string]string) ([]byte, error) {
	modules := map[string]bool{}
	for program := range binaries {
		info, err := buildinfo.ReadFile(filepath.Join(p.programs, program))
		if err != nil {
			return nil, err
		}
		for _, d := range info.Deps {
			modules[d.Path] = true
		}
	}
	var b bytes.Buffer
	b.WriteString("lpad is under the Apache License, version 2.0, whose text is in\n/usr/share/common-licenses/Apache-2.0 on Debian systems.\n\n" +
		"The Go standard library and the modules below are linked into its programs.\n")
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	if err := licences(&b, "The Go standard library", strings.TrimSpace(string(out))); err != nil {
		return nil, err
	}
	var names []string
	for m := range modules {
		names = append(names, m)
	}
	slices.Sort(names)
	if len(names) > 0 {
		cmd := exec.Command("go", append([]string{"list", "-m", "-f", "{{.Path}} {{.Version}}\t{{.Dir}}"}, names...)...)
		cmd.Dir, cmd.Stderr = p.source, os.Stderr
		if out, err = cmd.Output(); err != nil {
			return nil, fmt.Errorf("go list -m: %w", err)
		}
		for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
			name, dir, _ := strings.Cut(line, "\t")
			if err := licences(&b, name, dir); err != nil {
				return nil, err
			}
		}
	}
	return b.Bytes(), nil
}

func licences(b *bytes.Buffer, name, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("licence of %s: %w", name, err)
	}
	found := false
	for _, e := range entries {
		if !e.Type().IsRegular() || !licenceFile.MatchString(e.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		found = true
		if bytes.Contains(text, []byte("Apache License")) && len(text) > 9000 {
			text = []byte("Apache License, version 2.0, as above.\n")
		}
		fmt.Fprintf(b, "\n---- %s, %s\n\n%s", name, e.Name(), text)
	}
	if !found && strings.HasPrefix(name, "The Go") { // Debian's own Go has no licence in its folder
		b.WriteString("\n---- " + name + "\n\nBSD 3-clause, see https://go.dev/LICENSE\n")
		return nil
	}
	if !found {
		return fmt.Errorf("%s has no licence in %s", name, dir)
	}
	return nil
}

// finish gives every file of the tree its mode and its time, and tells how much it takes
// when it is installed, in KiB as dpkg counts them, and the sums of the files.
func (p *packer) finish(root string) (kib int64, sums []byte, err error) {
	var b bytes.Buffer
	err = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		switch {
		case e.IsDir():
			kib++
			return os.Chmod(path, 0o755)
		case e.Type().IsRegular():
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			kib += (int64(len(text)) + 1023) / 1024
			if "/"+rel != "/"+packaging.Configuration.Target { // dpkg has its own sum of that
				fmt.Fprintf(&b, "%x  %s\n", md5.Sum(text), rel)
			}
			mode := fs.FileMode(0o644) // without what the umask has taken
			if info, err := e.Info(); err == nil && info.Mode()&0o100 != 0 {
				mode = 0o755
			}
			return cmp.Or(os.Chmod(path, mode), os.Chtimes(path, p.epoch, p.epoch))
		}
		kib++
		return nil
	})
	if err != nil {
		return 0, nil, err
	}
	// Folders last: what is made in them changes their time.
	err = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			err = os.Chtimes(path, p.epoch, p.epoch)
		}
		return err
	})
	return kib, b.Bytes(), err
}

func zipped(text []byte) []byte {
	var b bytes.Buffer
	// Writing to memory does not fail, and the level is one of gzip's.
	w, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
	_, _ = w.Write(text)
	_ = w.Close()
	return b.Bytes()
}

func copyFile(from, to string, mode fs.FileMode) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return writeFile(to, text, mode)
}

// writeFile makes a file with this mode, whatever the umask.
func writeFile(path string, text []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, text, mode); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}
