# Makes this mount namespace a device and becomes its PID 1. DIR is the device's folder. See packagetest.go.
mkdir "$DIR/rw" "$DIR/root"
mount -t tmpfs -o mode=755 tmpfs "$DIR/rw"
mkdir "$DIR/rw/upper" "$DIR/rw/work"
mount -t overlay -o "lowerdir=/,upperdir=$DIR/rw/upper,workdir=$DIR/rw/work" overlay "$DIR/root"
cd "$DIR/root"

mount -t proc proc proc
mount -o bind proc/sys proc/sys
mount -o remount,ro,bind proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 none sys/fs/cgroup
mount -o rbind /dev dev
mount -t tmpfs -o mode=755 tmpfs run
mkdir -p run/lock run/packagetest
mount --bind "$DIR" run/packagetest
mount --bind "$DIR/system.log" dev/console

# Units: D-Bus, pcscd and journald are real, targets are empty, and of this machine's others there is none.
mkdir "$DIR/units"
for u in dbus pcscd systemd-journald systemd-journald-dev-log; do
	for k in service socket; do
		if [ -e usr/lib/systemd/system/$u.$k ]; then cp usr/lib/systemd/system/$u.$k "$DIR/units/"; fi
	done
done
mount -t tmpfs -o mode=755 tmpfs usr/lib/systemd/system
mount -t tmpfs -o mode=755 tmpfs etc/systemd/system
cp "$DIR/units/"* usr/lib/systemd/system/
for t in sysinit basic shutdown sockets multi-user default network; do
	printf '[Unit]\nDescription=stub\nDefaultDependencies=no\n' >usr/lib/systemd/system/$t.target
done
mkdir -p run/systemd/system/service.d
printf '[Service]\nStandardOutput=append:/run/packagetest/service.log\nStandardError=inherit\n' >run/systemd/system/service.d/log.conf
mkdir "$DIR/none"
# Packages are to start what they bring.
rm -f usr/sbin/policy-rc.d

ip link set lo up 2>/dev/null || :
mkdir -p mnt
pivot_root . mnt
cd /
umount -l mnt
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=packagetest \
	SYSTEMD_GENERATOR_PATH=/run/packagetest/none SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/run/packagetest/none \
	/lib/systemd/systemd --system --log-target=console --log-level=notice --show-status=no --unit=default.target
