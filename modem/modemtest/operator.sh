# Sets up the operator's side of a stack inside its new network namespace: SERVER is where servers listen.
# Strict on purpose: an address is answered for only on its own interface (arp_ignore), and a packet is
# taken only from where its answer would go (rp_filter), so no context means no packets.
ip link set lo up
ip addr add "$SERVER/32" dev lo
for c in all default; do
	echo 1 >/proc/sys/net/ipv4/conf/$c/arp_ignore
	echo 1 >/proc/sys/net/ipv4/conf/$c/rp_filter
	echo 1 >/proc/sys/net/ipv6/conf/$c/disable_ipv6
done
