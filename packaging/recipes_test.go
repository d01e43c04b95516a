package packaging_test

import (
	"crypto/md5"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"lpad/packaging"
)

// The recipes for images: bitbake and Buildroot are not here, so what can be held is held against the Debian package, which is installed
// for real in TestPackage: which files there are with which modes, who the users are, how the programs are built. The recipes' own steps
// of installing are run, by sh and by make.

const (
	yocto     = "yocto/meta-lpad/recipes-connectivity/lpad/"
	buildroot = "buildroot/lpad/"
)

// tree are the files below a root with their modes and contents, and the folders of lpad.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(name, root+"/")
		info, err := e.Info()
		if err != nil || e.IsDir() && !strings.HasPrefix(rel, "etc/lpad") {
			return err
		}
		out[rel] = info.Mode().String()
		if e.IsDir() {
			return nil
		}
		text, err := os.ReadFile(name)
		out[rel] += " " + fmt.Sprintf("%x", sha256.Sum256(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// onDevice is what the Debian package puts on a device beside programs and documents.
func onDevice(t *testing.T) map[string]string {
	t.Helper()
	root := t.TempDir()
	if err := packaging.Install(root); err != nil {
		t.Fatal(err)
	}
	if err := packaging.InstallUnits(root); err != nil {
		t.Fatal(err)
	}
	return tree(t, root)
}

func same(t *testing.T, who string, got, want map[string]string) {
	t.Helper()
	for name, text := range want {
		if got[name] != text {
			t.Errorf("%s: %s is %q, want %q", who, name, got[name], text)
		}
	}
	for name := range got {
		if want[name] == "" {
			t.Errorf("%s: %s is not in the Debian package", who, name)
		}
	}
}

// TestInstallScript: install.sh puts there what the Debian package has, whatever the umask.
func TestInstallScript(t *testing.T) {
	root := filepath.Join(t.TempDir(), "a root")
	run(t, "sh", "-euc", `umask 077; mkdir "$1"; sh ./install.sh "$1"`, "sh", root)
	same(t, "install.sh", tree(t, root), onDevice(t))
}

// withPrograms is what a device has with the recipes' programs, which the tests below stand in for by files of one byte.
func withPrograms(t *testing.T, programs ...string) map[string]string {
	want := onDevice(t)
	for _, p := range programs {
		want[p] = fmt.Sprintf("-rwxr-xr-x %x", sha256.Sum256([]byte("x")))
	}
	return want
}

func program(t *testing.T, name string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte("x"), 0o755); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// assigned is what a line of a recipe gives to a variable, continued lines together.
func assigned(t *testing.T, text, name string) string {
	t.Helper()
	text = strings.ReplaceAll(text, "\\\n", " ")
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` *[?+:]?= *(.*)$`).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("nothing is given to %s", name)
	}
	return strings.Join(strings.Fields(strings.Trim(m[1], `"`)), " ")
}

// TestYocto holds the layer against the Debian package and the Makefile.
func TestYocto(t *testing.T) {
	common, daemon, helper := read(t, yocto+"lpad.inc"), read(t, yocto+"lpad_git.bb"), read(t, yocto+"lpad-pcsc_git.bb")

	// The step that installs, as bitbake would run it after the class's: the same names are variables of the shell.
	image, source := t.TempDir(), t.TempDir()
	program(t, image+"/usr/bin/lpad")
	program(t, image+"/usr/bin/lpactl")
	program(t, image+"/usr/lib/go/src/lpad/main.go")
	if err := os.MkdirAll(source+"/src", 0o755); err != nil {
		t.Fatal(err)
	}
	here, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(here, source+"/src/lpad"); err != nil {
		t.Fatal(err)
	}
	body := regexp.MustCompile(`(?s)do_install:append\(\) \{\n(.*?)\n\}`)
	step := func(texts ...string) {
		for _, text := range texts {
			m := body.FindStringSubmatch(text)
			if m == nil {
				t.Fatal("no step that installs")
			}
			cmd := exec.CommandContext(t.Context(), "sh", "-euc", m[1])
			cmd.Env = append(os.Environ(), "D="+image, "S="+source, "GO_IMPORT=lpad", "libdir=/usr/lib", "bindir=/usr/bin", "sbindir=/usr/sbin")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		}
	}
	step(common, daemon)
	want := withPrograms(t, "usr/sbin/lpad", "usr/bin/lpactl")
	same(t, "bitbake", tree(t, image), want)

	// What is installed and not in a package is an error of bitbake's.
	folders := strings.NewReplacer("${datadir}", "usr/share", "${nonarch_libdir}", "usr/lib", "${systemd_system_unitdir}", "usr/lib/systemd/system",
		"${sysconfdir}", "etc").Replace(assigned(t, daemon, "FILES:${PN}"))
	own := append(strings.Fields(folders), "usr/sbin", "usr/bin") // the last two are bitbake's
	for name := range want {
		if !slices.ContainsFunc(own, func(f string) bool { return name == f || strings.HasPrefix(name, f+"/") }) {
			t.Errorf("%s is in no package", name)
		}
	}
	if got := assigned(t, daemon, "CONFFILES:${PN}"); got != "${sysconfdir}/lpad/lpad.yaml" || packaging.Configuration.Target != "etc/lpad/lpad.yaml" {
		t.Errorf("configuration files: %s", got)
	}
	var units []string
	for _, u := range packaging.Units {
		units = append(units, path.Base(u.Target))
	}
	got := strings.Fields(assigned(t, daemon, "SYSTEMD_SERVICE:${PN}"))
	slices.Sort(got)
	if !slices.Equal(got, units) {
		t.Errorf("units: %q, want %q", got, units)
	}
	for _, group := range []string{packaging.User, packaging.GroupAdmin} {
		if !strings.Contains(assigned(t, daemon, "GROUPADD_PARAM:${PN}"), "--system "+group) {
			t.Errorf("the group %s is not made", group)
		}
	}
	if got := assigned(t, daemon, "USERADD_PARAM:${PN}"); !strings.HasSuffix(got, " --gid "+packaging.User+" "+packaging.User) || !strings.Contains(got, " /var/lib/lpad ") {
		t.Errorf("the user: %s", got)
	}

	program(t, image+"/usr/bin/lpad-pcsc")
	step(helper)
	same(t, "the helper", tree(t, image), withPrograms(t, "usr/sbin/lpad", "usr/bin/lpactl", "usr/sbin/lpad-pcsc"))

	if want := fmt.Sprintf("md5=%x", md5.Sum([]byte(read(t, "../LICENSE")))); !strings.HasSuffix(assigned(t, common, "LIC_FILES_CHKSUM"), want) {
		t.Errorf("the licence: %s", want)
	}
	built := assigned(t, daemon, "GO_INSTALL") + " " + assigned(t, helper, "GO_INSTALL")
	commands(t, strings.Fields(strings.ReplaceAll(built, "${GO_IMPORT}/", "")))
	flags(t, assigned(t, common, "GOBUILDFLAGS:append"))
	if assigned(t, daemon, "CGO_ENABLED") != "0" || assigned(t, helper, "CGO_ENABLED") != "1" || assigned(t, common, "GO_IMPORT") != "lpad" {
		t.Error("cgo, or the name of the module")
	}
}

// commands must be all that a device can have.
func commands(t *testing.T, got []string) {
	t.Helper()
	slices.Sort(got)
	if want := []string{"cmd/lpactl", "cmd/lpad", "cmd/lpad-pcsc"}; !slices.Equal(got, want) {
		t.Errorf("programs: %q, want %q", got, want)
	}
	for _, dir := range got {
		if !strings.Contains(read(t, "../"+dir+"/main.go"), "package main\n") {
			t.Errorf("%s is no program", dir)
		}
	}
}

// flags are those of the Makefile that every Go from go.mod's on knows.
func flags(t *testing.T, got string) {
	t.Helper()
	m := regexp.MustCompile(`(?m)^LPADTAGS := -tags (\S+) -gcflags='(all=\S+) `).FindStringSubmatch(read(t, "../Makefile"))
	if m == nil {
		t.Fatal("the Makefile has no tags")
	}
	if want := "-tags=" + m[1] + " -gcflags=" + m[2]; got != want {
		t.Errorf("flags: %q, want %q", got, want)
	}
}

// TestBuildroot has make read the package, with Buildroot's own words for what it does, and run the steps that install.
func TestBuildroot(t *testing.T) {
	need(t, "make")
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	for _, p := range []string{"lpad", "lpactl", "lpad-pcsc"} {
		program(t, filepath.Join(dir, "source/bin", p))
	}
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(here, filepath.Join(dir, "source/packaging")); err != nil {
		t.Fatal(err)
	}
	// $(@D) is the folder of the sources in each of Buildroot's rules.
	const rules = `
qstrip = $(strip $(subst ",,$(1)))
BR2_PACKAGE_LPAD_VERSION = "v1.0"
BR2_PACKAGE_LPAD_SITE = "https://git.example.com/lpad.git"
BR2_PACKAGE_LPAD_PCSC = y
INSTALL = install
golang-package =
include $(BR2_EXTERNAL_LPAD_PATH)/external.mk
source/.stamp_target_installed:
	$(LPAD_INSTALL_TARGET_CMDS)
	$(LPAD_INSTALL_PCSC)
%:
	@echo '$($*)'
`
	if err := os.WriteFile(filepath.Join(dir, "Makefile"), []byte(rules), 0o644); err != nil {
		t.Fatal(err)
	}
	call := func(what string) string {
		return strings.Join(strings.Fields(run(t, "make", "--no-print-directory", "-C", dir, "TARGET_DIR="+target, "BR2_EXTERNAL_LPAD_PATH="+filepath.Join(here, "buildroot"), what)), " ")
	}
	call("source/.stamp_target_installed")
	same(t, "Buildroot", tree(t, target), withPrograms(t, "usr/sbin/lpad", "usr/bin/lpactl", "usr/sbin/lpad-pcsc"))

	for variable, want := range map[string]string{
		"LPAD_VERSION": "v1.0", "LPAD_SITE": "https://git.example.com/lpad.git", "LPAD_GOMOD": "lpad", "LPAD_GO_ENV": "CGO_ENABLED=0",
		"LPAD_LDFLAGS":                   "-s -w -X main.version=v1.0",
		"LPAD_POST_BUILD_HOOKS":          "LPAD_BUILD_PCSC",
		"LPAD_DEPENDENCIES":              "pcsc-lite host-pkgconf",
		"LPAD_LICENSE_FILES":             "LICENSE",
		"LPAD_INSTALL_BINS":              "", // Buildroot of today ends with an error
		"LPAD_POST_INSTALL_TARGET_HOOKS": "LPAD_INSTALL_PCSC",
	} {
		if got := call(variable); got != want {
			t.Errorf("%s is %q, want %q", variable, got, want)
		}
	}
	commands(t, append(strings.Fields(call("LPAD_BUILD_TARGETS")), "cmd/lpad-pcsc"))
	flags(t, "-tags="+strings.ReplaceAll(call("LPAD_TAGS"), " ", ",")+" "+call("LPAD_BUILD_OPTS"))
	users := strings.Join(strings.Fields(read(t, buildroot+"lpad.mk")), " ")
	for _, line := range []string{"lpad -1 lpad -1 * /var/lib/lpad - - ", "- - lpad-admin -1 * - - - "} {
		if !strings.Contains(users, line) {
			t.Errorf("users: no %q", line)
		}
	}
	if want := fmt.Sprintf("%x  LICENSE", sha256.Sum256([]byte(read(t, "../LICENSE")))); !strings.Contains(read(t, buildroot+"lpad.hash"), want) {
		t.Errorf("the licence: %s", want)
	}
	config := read(t, buildroot+"Config.in")
	for _, symbol := range regexp.MustCompile(`BR2_PACKAGE_LPAD\w*`).FindAllString(read(t, buildroot+"lpad.mk"), -1) {
		if !strings.Contains(config, "config "+symbol+"\n") {
			t.Errorf("Config.in has no %s", symbol)
		}
	}
}
