#!/bin/sh
# Makes what the real-peer tests need: Debian packages, an Asterisk 22 in a chroot, pjsua2.
# Idempotent, and at once done when everything is there. Debian or Ubuntu, as root or with sudo.
#
# Everything lies in the repository's git-ignored .lab/ (or $SIPDOOR_LAB):
#   asterisk/   the chroot          pjsua2/   a Python environment       wheels
#   ready       "root" or "sudo": how the tests must be run; absent when they cannot be
#   left-out    one line a thing that could not be made, and why; absent when nothing was
# Always exits 0: what cannot run here is named, not a failure of the code under test.
set -u
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
lab=${SIPDOOR_LAB:-$here/../../.lab}
mkdir -p "$lab" && lab=$(cd "$lab" && pwd) || exit 1
packages='debootstrap iproute2 nftables sip-tester baresip sipsak sipvicious nmap sslscan tshark linphone-cli openssl procps python3 python3-venv'
rm -f "$lab/ready" "$lab/left-out"

leave_out() { # leave_out WHAT WHY
    printf '%s\t%s\n' "$1" "$2" >> "$lab/left-out"
    printf 'left out: %s: %s\n' "$1" "$2"
}
stop() { leave_out peers "$1"; exit 0; }

if [ "$(id -u)" = 0 ]; then as=root; sudo=
elif sudo -n true 2>/dev/null; then as=sudo; sudo=sudo
else stop 'namespaces and the Asterisk chroot need root, or sudo without a password'; fi

command -v apt-get >/dev/null || stop 'no apt-get: the peers are installed from Debian or Ubuntu packages'
missing=
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
# Ubuntu's debootstrap cannot check Debian's signatures without Debian's keys.
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing="$missing debian-archive-keyring"
if [ -n "$missing" ]; then
    echo "installing:$missing"
    # shellcheck disable=SC2086 # a list of words
    if ! { $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq update &&
           $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing; } > "$lab/apt.log" 2>&1; then
        tail -n 5 "$lab/apt.log"
        stop "apt-get could not install$missing (see $lab/apt.log)"
    fi
fi

# The chroot is made beside its place and moved there when whole, so that an interrupted run leaves no half of one.
if [ ! -x "$lab/asterisk/usr/sbin/asterisk" ]; then
    echo 'making the Asterisk chroot (some minutes, once)'
    $sudo rm -rf "$lab/asterisk" "$lab/asterisk.new"
    if ! $sudo debootstrap --variant=minbase --include=asterisk,asterisk-core-sounds-en-gsm \
            --keyring=/usr/share/keyrings/debian-archive-keyring.gpg sid "$lab/asterisk.new" \
            ${SIPDOOR_DEBIAN_MIRROR:-} > "$lab/debootstrap.log" 2>&1; then
        tail -n 5 "$lab/debootstrap.log"
        stop "debootstrap could not make the Asterisk chroot (see $lab/debootstrap.log)"
    fi
    $sudo rm -rf "$lab/asterisk.new/var/cache/apt/archives" && $sudo mv "$lab/asterisk.new" "$lab/asterisk"
fi
case $($sudo chroot "$lab/asterisk" asterisk -V 2>/dev/null) in
    'Asterisk 22.'*) ;;
    *) leave_out version "the chroot's Asterisk is $($sudo chroot "$lab/asterisk" asterisk -V 2>&1), not 22: the tests run against it all the same" ;;
esac

# A kernel without network namespaces, veth or nftables' NAT (some containers) cannot play the peers.
probe=sd-probe-$$
$sudo ip netns add "$probe" && $sudo ip -n "$probe" link add name sda type veth peer name sdb &&
    printf 'table ip t { chain c { type nat hook postrouting priority 100; masquerade; }; }\n' | $sudo ip netns exec "$probe" nft -f -
probed=$?
$sudo ip netns del "$probe" 2>/dev/null
[ $probed = 0 ] || stop 'the kernel gives no network namespaces, veth or nftables NAT here'

# pjsua2 is on PyPI only; without it linphonec is the one client that speaks SRTP over TLS with SNI.
if [ ! -x "$lab/pjsua2/bin/python" ] || ! "$lab/pjsua2/bin/python" -c 'import pjsua2' 2>/dev/null; then
    rm -rf "$lab/pjsua2"
    if ! { python3 -m venv "$lab/pjsua2" && "$lab/pjsua2/bin/pip" -q install pjsua2-python &&
           "$lab/pjsua2/bin/python" -c 'import pjsua2'; } > "$lab/pip.log" 2>&1; then
        rm -rf "$lab/pjsua2"
        leave_out pjsua2 "pip could not install pjsua2-python (see $lab/pip.log)"
    fi
fi
echo "$as" > "$lab/ready"
echo "the lab is ready in $lab"
