#!/usr/bin/env bash
# The kernel's own IPVS test with this director in the kernel's place: 32 random bytes through socat to port 8080 of a virtual
# address, by DR, NAT and TUN.
#
#   cargo build --release -p director -p ipvsadm && sudo examples/director/selftest.sh
#
# It needs root, iproute2 and socat, makes three network namespaces and removes them. BIN names another directory of programs.
#
#            10.8.1.0/24            10.8.2.0/24
#   client ──────────────── director ──────────── server
#      └───────────────────── 10.8.3.0/24 ───────────┘
set -euo pipefail

bin=${BIN:-$(cd "$(dirname "$0")/../.." && pwd)/target/release}
vip=207.175.44.110
port=8080
id=lvs-selftest-$$
work=$(mktemp -d)
children=()

client() { ip netns exec "$id-client" "$@"; }
director() { ip netns exec "$id-director" "$@"; }
server() { ip netns exec "$id-server" "$@"; }

stop() {
    for child in "${children[@]}"; do
        kill "$child" 2>/dev/null || true
        wait "$child" 2>/dev/null || true
    done
    children=()
}

clean_up() {
    stop
    for host in client director server; do
        ip netns delete "$id-$host" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap clean_up EXIT

# link NAMESPACE INTERFACE ADDRESS NAMESPACE INTERFACE ADDRESS
link() {
    ip link add "$2" netns "$id-$1" type veth peer name "$5" netns "$id-$4"
    ip -n "$id-$1" address add "$3" dev "$2"
    ip -n "$id-$4" address add "$6" dev "$5"
    ip -n "$id-$1" link set "$2" up
    ip -n "$id-$4" link set "$5" up
}

# wait_for TEXT FILE
wait_for() {
    for _ in $(seq 100); do
        grep -q "$1" "$2" && return
        sleep 0.1
    done
    cat "$2" >&2
    return 1
}

# transfer NAME METHOD ROUTER: the server answers by the router.
transfer() {
    server ip route replace default via "$3"
    director "$bin/ipvsadm" -C
    director "$bin/ipvsadm" -A -t "$vip:$port" -s rr
    director "$bin/ipvsadm" -a -t "$vip:$port" -r "10.8.2.2:$port" "$2"
    server timeout 10 socat -u "TCP4-LISTEN:$port,reuseaddr" "CREATE:$work/received" &
    local receiver=$!
    for _ in $(seq 100); do
        server ss -ltn | grep -q ":$port " && break
        sleep 0.1
    done
    client timeout 10 socat -u "OPEN:$work/sent" "TCP4:$vip:$port,connect-timeout=5"
    wait "$receiver"
    cmp "$work/sent" "$work/received"
    echo "$1: ok"
    rm "$work/received"
}

# realserver MODE
realserver() {
    ip netns exec "$id-server" "$bin/director" realserver --vip "$vip" --mode "$1" --state "$work" 2>"$work/realserver" &
    children+=($!)
    wait_for 'ready: ' "$work/realserver"
}

for host in client director server; do
    ip netns add "$id-$host"
    ip -n "$id-$host" link set lo up
done
link client dir 10.8.1.1/24 director cli 10.8.1.2/24
link director srv 10.8.2.1/24 server dir 10.8.2.2/24
link server cli 10.8.3.2/24 client srv 10.8.3.1/24
for host in client server; do
    for place in all default dir; do
        ip netns exec "$id-$host" sh -c "echo 0 >/proc/sys/net/ipv4/conf/$place/rp_filter"
    done
done
director ip address add "$vip/32" dev lo
client ip route add "$vip/32" via 10.8.1.2
dd if=/dev/urandom of="$work/sent" bs=32 count=1 status=none

: >"$work/keepalived.conf"
ip netns exec "$id-director" "$bin/director" -n -l -f "$work/keepalived.conf" 2>"$work/director" &
main=$!
trap 'kill "$main" 2>/dev/null || true; wait "$main" 2>/dev/null || true; clean_up' EXIT
wait_for 'running ' "$work/director"

realserver dr
transfer DR -g 10.8.3.1
stop
transfer NAT -m 10.8.2.1
realserver tun
transfer TUN -i 10.8.3.1
