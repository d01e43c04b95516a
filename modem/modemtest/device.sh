# Sets up the device of a stack inside its new network and mount namespaces.
# D is the directory of the stack, OPERATOR the process that holds the operator's namespaces.
ip link set lo up
ip link add wwan0 type veth peer name op0 netns "$OPERATOR"
echo 1 >/proc/sys/net/ipv6/conf/wwan0/disable_ipv6

# /dev: a directory outside sees the same symlinks, so a port that comes back under a new pty is found at once
for n in null zero full random urandom tty; do
	: >"$D/dev/$n"
	mount --bind "/dev/$n" "$D/dev/$n"
done
mkdir -p "$D/dev/pts" "$D/dev/shm"
mount --rbind /dev/pts "$D/dev/pts"
ln -sfn /proc/self/fd "$D/dev/fd"
ln -sfn /proc/self/fd/0 "$D/dev/stdin"
ln -sfn /proc/self/fd/1 "$D/dev/stdout"
ln -sfn /proc/self/fd/2 "$D/dev/stderr"
mount --rbind "$D/dev" /dev

mount --bind "$D/hosts" /etc/hosts
if [ -e /etc/resolv.conf ]; then mount --bind "$D/resolv.conf" "$(readlink -f /etc/resolv.conf)"; fi
mount --bind "$D/udev-rules" /lib/udev/rules.d
if [ -d /etc/NetworkManager ]; then
	mkdir -p /run/NetworkManager /var/lib/NetworkManager
	mount --bind "$D/nm/etc" /etc/NetworkManager
	mount --bind "$D/nm/run" /run/NetworkManager
	mount --bind "$D/nm/lib" /var/lib/NetworkManager
fi
if [ -e "$D/mounts" ]; then
	while read -r from to; do mount --bind "$from" "$to"; done <"$D/mounts"
fi
mount --rbind "$D/sys" /sys
