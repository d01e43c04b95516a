#!/bin/sh
# Puts below a root what a device needs beside the programs, as the Debian package has it: policies, rules, users, units, the
# configuration and the folders of the hooks. For recipes of images (docs/oem.md), which bring the programs and the users themselves.
#
#	packaging/install.sh ROOT
#
# Nothing that is there is kept; owners are the caller's. packaging.go has the same list, and a test compares them.
set -eu

root=${1:?usage: install.sh ROOT}
here=$(cd "$(dirname "$0")" && pwd)
umask 022

put() { # file, folder
	install -d -m 0755 "$root/$2"
	install -m 0644 "$here/$1" "$root/$2/"
}

put dbus/lpad.conf usr/share/dbus-1/system.d
put polkit/lpad.rules usr/share/polkit-1/rules.d
put sysusers.d/lpad.conf usr/lib/sysusers.d
put tmpfiles.d/lpad.conf usr/lib/tmpfiles.d
put udev/78-mm-lpad.rules usr/lib/udev/rules.d
put udev/79-lpad.rules usr/lib/udev/rules.d
put systemd/lpad.service usr/lib/systemd/system
put systemd/lpad.socket usr/lib/systemd/system
put lpad.yaml etc/lpad
for event in staged activated applied rolled-back; do
	install -d -m 0755 "$root/etc/lpad/hooks.d" "$root/etc/lpad/hooks.d/$event.d"
done
