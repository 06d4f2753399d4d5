#!/bin/sh
# netns.sh up ID host|container DOMAIN   makes the namespaces of one lab
# netns.sh hold ID [DIRECTORY...]        waits for the end of its standard input, then removes them and the directories
#
# host:       phone 198.51.100.10 --- 198.51.100.1 pbx 203.0.113.1 --- 203.0.113.77 router 192.168.77.1 --- 192.168.77.2 home
# container:  phone 198.51.100.10 --- 198.51.100.1 gate 172.20.0.1 --- 172.20.0.2 pbx, the router beside the phone on the gate
#
# The door and Asterisk live in pbx. router masquerades home with random ports; gate publishes ports by DNAT.
# All addresses are from the documentation ranges or private, and exist only in here.
set -eu
id=$2
pbx=$id-pbx phone=$id-phone router=$id-router home=$id-home gate=$id-gate

wire() { # wire SPACE ADDRESS SPACE ADDRESS DEVICE
    ip link add "$5a" netns "$1" type veth peer name "$5b" netns "$3"
    ip -n "$1" addr add "$2" dev "$5a"; ip -n "$3" addr add "$4" dev "$5b"
    ip -n "$1" link set "$5a" up; ip -n "$3" link set "$5b" up
}

up() {
    layout=$3 domain=$4
    spaces="$pbx $phone $router $home"
    [ "$layout" = host ] || spaces="$spaces $gate"
    for space in $spaces; do
        ip netns add "$space"
        ip -n "$space" link set lo up
        mkdir -p "/etc/netns/$space"
        printf '127.0.0.1 localhost %s\n198.51.100.1 %s\n' "$(hostname)" "$domain" > "/etc/netns/$space/hosts"
        # Nobody answers on the loopback's port 53 unless a test starts a resolver there: a refusal, not a time-out.
        echo 'nameserver 127.0.0.1' > "/etc/netns/$space/resolv.conf"
    done
    if [ "$layout" = host ]; then edge=$pbx; else edge=$gate; fi
    wire "$phone" 198.51.100.10/24 "$edge" 198.51.100.1/24 c
    ip -n "$phone" addr add 2001:db8::10/64 dev ca nodad; ip -n "$edge" addr add 2001:db8::1/64 dev cb nodad
    wire "$router" 203.0.113.77/24 "$edge" 203.0.113.1/24 r
    wire "$home" 192.168.77.2/24 "$router" 192.168.77.1/24 h
    ip -n "$phone" addr add 198.51.100.11/24 dev ca
    # One public address: what leaves for the router must not leave from the edge's address on that wire.
    ip -n "$edge" route replace 203.0.113.0/24 dev rb src 198.51.100.1
    ip -n "$phone" route add default via 198.51.100.1
    ip -n "$router" route add default via 203.0.113.1
    ip -n "$home" route add default via 192.168.77.1
    ip netns exec "$router" sysctl -qw net.ipv4.ip_forward=1
    ip netns exec "$router" nft -f - <<RULES
table ip nat {
    chain post { type nat hook postrouting priority 100; oifname "ra" masquerade random; }
}
table ip filter {
    chain forward {
        type filter hook forward priority 0; policy drop;
        iifname "hb" accept
        ct state established,related accept
    }
}
RULES
    [ "$layout" = host ] && return
    wire "$pbx" 172.20.0.2/24 "$gate" 172.20.0.1/24 d
    ip -n "$pbx" route add default via 172.20.0.1
    ip netns exec "$gate" sysctl -qw net.ipv4.ip_forward=1
    ip netns exec "$gate" nft -f - <<RULES
table ip nat {
    chain pre {
        type nat hook prerouting priority -100;
        ip daddr 198.51.100.1 udp dport { 5060, 10000-10499 } dnat to 172.20.0.2
        ip daddr 198.51.100.1 tcp dport { 5060, 5061 } dnat to 172.20.0.2
    }
    chain post { type nat hook postrouting priority 100; ip saddr 172.20.0.0/24 masquerade; }
}
RULES
}

down() {
    for space in "$pbx" "$phone" "$router" "$home" "$gate"; do
        [ -e "/run/netns/$space" ] || continue
        # Only what runs in these namespaces, which only this lab's tests started.
        ip netns pids "$space" | xargs -r kill -9 2>/dev/null || true
        ip netns del "$space" || true
        rm -rf "/etc/netns/$space"
    done
    rm -rf "$@"
}

case $1 in
    up) up "$@" ;;
    hold) cat > /dev/null || true; shift 2; down "$@" ;;
    *) echo "usage: netns.sh up ID host|container DOMAIN | hold ID [DIRECTORY...]" >&2; exit 64 ;;
esac
