package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"lpad/agent/api"
	"lpad/agent/client"
)

// checkSocket says whether the socket can be talked to, and if not, why not.
func (d *doctor) checkSocket(ctx context.Context) bool {
	info, err := os.Stat(d.socket)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		d.socketMissing(ctx)
		return false
	case errors.Is(err, fs.ErrPermission):
		d.socketDenied(refusingFolder(d.socket))
		return false
	case err != nil:
		d.wrong("socket", api.CodeNotRunning, err.Error(), "name the socket of lpad with --socket")
		return false
	case info.Mode()&fs.ModeSocket == 0:
		d.wrong("socket", api.CodeNotRunning, d.socket+" is no socket", "name the socket of lpad with --socket; the usual one is "+client.DefaultSocket)
		return false
	}
	dialer := net.Dialer{Timeout: doctorAnswer}
	c, err := dialer.DialContext(ctx, "unix", d.socket)
	switch {
	case err == nil:
		c.Close()
		d.ok("socket", "%s, for %s", d.socket, forWhom(info))
		return true
	case errors.Is(err, fs.ErrPermission):
		d.socketDenied(d.socket)
	case errors.Is(err, syscall.ECONNREFUSED):
		d.wrong("socket", api.CodeNotRunning, d.socket+" is there and nobody listens: lpad was killed or has crashed", startNext(ctx))
	default:
		d.wrong("socket", api.CodeNotRunning, d.socket+": "+err.Error(), startNext(ctx))
	}
	return false
}

// socketMissing tells a service that does not run from a path that is wrong.
func (d *doctor) socketMissing(ctx context.Context) {
	dir := filepath.Dir(d.socket)
	for _, other := range listening() {
		if other != d.socket && (other == client.DefaultSocket || filepath.Dir(other) == dir) {
			d.wrong("socket", api.CodeNotRunning, "there is no "+d.socket+"; lpad listens at "+other, "the path is wrong: use --socket "+other+", or clear LPAD_SOCKET")
			return
		}
	}
	if _, err := os.Stat(dir); err != nil && d.socket != client.DefaultSocket {
		d.wrong("socket", api.CodeNotRunning, "there is no "+d.socket+", and no folder "+dir, "the path is wrong: give --socket what the configuration of lpad has as socket, usually "+client.DefaultSocket)
		return
	}
	d.wrong("socket", api.CodeNotRunning, "there is no "+d.socket+": lpad is stopped", startNext(ctx))
}

// listening are the sockets in this network namespace that may be lpad's.
func listening() (paths []string) {
	text, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		// Num RefCount Protocol Flags Type St Inode Path; flag 10000 is a listener
		if len(f) == 8 && f[3] == "00010000" && filepath.Base(f[7]) == filepath.Base(client.DefaultSocket) {
			paths = append(paths, f[7])
		}
	}
	return paths
}

// startNext is how to start lpad here, by what systemd knows of it.
func startNext(ctx context.Context) string {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return "start lpad, in the way of this system (there is no systemd)"
	}
	ctx, cancel := context.WithTimeout(ctx, doctorAnswer)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", "show", "-P", "LoadState", "-P", "ActiveState", "-P", "UnitFileState", "lpad.service").Output()
	state := strings.Fields(string(out))
	switch {
	case err != nil || len(state) == 0:
		return "systemctl start lpad"
	case slices.Contains(state, "not-found"):
		return "install the package lpad: systemd does not know lpad.service"
	case slices.Contains(state, "masked"):
		return "systemctl unmask lpad.service lpad.socket, then systemctl start lpad"
	case slices.Contains(state, "failed"):
		return "journalctl -u lpad says why it failed; lpad --check says what is wrong with the configuration; then systemctl reset-failed lpad, systemctl start lpad"
	case slices.Contains(state, "disabled"):
		return "systemctl enable --now lpad.socket lpad.service"
	}
	return "systemctl start lpad"
}

// socketDenied names the group that would help.
func (d *doctor) socketDenied(path string) {
	info, err := os.Stat(path)
	who := callerName()
	if err != nil {
		d.wrong("socket", api.CodeNoPermission, fmt.Sprintf("%s may not look at %s", who, path), "use root")
		return
	}
	gid, open := groupOf(info)
	group := groupName(gid)
	next := "use root"
	switch {
	case gid == 0 || !open:
		next = "use root (sudo lpactl …), or have api.read in the configuration of lpad name a group that you are in"
	case memberByFile(gid):
		next = "you are in the group " + group + ", but not since this login: log in again, or newgrp " + group
	default:
		next = fmt.Sprintf("join the group %s (usermod -aG %s %s, as root) and log in again, or use root", group, group, callerLogin())
	}
	d.wrong("socket", api.CodeNoPermission, fmt.Sprintf("%s may not use %s, which is for %s", who, path, forWhom(info)), next)
}

// refusingFolder is the folder above path that keeps the caller out.
func refusingFolder(path string) string {
	for dir := filepath.Dir(path); dir != "/" && dir != "."; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil {
			return dir
		}
	}
	return "/"
}

// groupOf is the group of a file, and whether its mode gives the group anything.
func groupOf(info fs.FileInfo) (gid int, open bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(st.Gid), info.Mode().Perm()&0o070 != 0
}

// forWhom is the owner, the group and the mode in words.
func forWhom(info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return info.Mode().String()
	}
	text := "the user " + userName(int(st.Uid))
	if info.Mode().Perm()&0o060 != 0 {
		text += " and the group " + groupName(int(st.Gid))
	}
	if info.Mode().Perm()&0o006 == 0o006 {
		text = "everybody"
	}
	return text + " (" + info.Mode().String() + ")"
}

func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return strconv.Itoa(uid)
}

func groupName(gid int) string {
	if g, err := user.LookupGroupId(strconv.Itoa(gid)); err == nil {
		return g.Name
	}
	return strconv.Itoa(gid)
}

func callerLogin() string { return userName(os.Geteuid()) }
func callerName() string  { return "the user " + callerLogin() }

// memberByFile says whether the caller would be in the group after a new login.
func memberByFile(gid int) bool {
	u, err := user.LookupId(strconv.Itoa(os.Geteuid()))
	if err != nil {
		return false
	}
	ids, err := u.GroupIds()
	return err == nil && slices.Contains(ids, strconv.Itoa(gid))
}

// checkPort compares the mode of the modem's port with who lpad runs as, as far
// as this machine shows it.
func (d *doctor) checkPort(path string) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		d.wrong("port", "port-missing", path+" is not there", "plug the modem in, look for its port (ls -l /dev/lpad /dev/serial/by-path), and set card.at_port")
		return
	} else if err != nil {
		d.skip("port", err.Error())
		return
	}
	if info.Mode()&fs.ModeCharDevice == 0 {
		d.wrong("port", "port-wrong", path+" is no serial port", "set card.at_port to the modem's AT port")
		return
	}
	uid, groups, ok := d.daemonIs()
	if !ok {
		d.skip("port", fmt.Sprintf("%s is for %s; who lpad runs as cannot be seen", path, forWhom(info)))
		return
	}
	st, _ := info.Sys().(*syscall.Stat_t)
	mode := info.Mode().Perm()
	may := st == nil || uid == 0 || int(st.Uid) == uid && mode&0o600 == 0o600 || slices.Contains(groups, int(st.Gid)) && mode&0o060 == 0o060 || mode&0o006 == 0o006
	if !may {
		d.wrong("port", "port-denied", fmt.Sprintf("%s is for %s, and lpad runs as %s", path, forWhom(info), userName(uid)),
			"have udev give the port to lpad's group (79-lpad.rules, or a rule with GROUP=\"lpad\", MODE=\"0660\"), then udevadm trigger")
		return
	}
	d.ok("port", "%s is for %s; lpad runs as %s", path, forWhom(info), userName(uid))
}

// daemonIs is the user and the groups of the process that answers, by the
// kernel's word. A socket that systemd has opened shows systemd instead: then
// nothing is known.
func (d *doctor) daemonIs() (uid int, groups []int, ok bool) {
	c, err := net.DialTimeout("unix", d.socket, time.Second)
	if err != nil {
		return 0, nil, false
	}
	defer c.Close()
	u, isUnix := c.(*net.UnixConn)
	if !isUnix {
		return 0, nil, false
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, nil, false
	}
	var cred *syscall.Ucred
	if cerr := raw.Control(func(fd uintptr) {
		cred, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); cerr != nil || err != nil || cred.Pid == 1 {
		return 0, nil, false
	}
	groups = []int{int(cred.Gid)}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cred.Pid))
	if err != nil {
		return int(cred.Uid), groups, cred.Uid == 0
	}
	for line := range strings.Lines(string(text)) {
		if list, found := strings.CutPrefix(line, "Groups:"); found {
			for _, f := range strings.Fields(list) {
				if g, err := strconv.Atoi(f); err == nil {
					groups = append(groups, g)
				}
			}
		}
	}
	return int(cred.Uid), groups, true
}
