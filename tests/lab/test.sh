#!/bin/sh
# Runs `cargo test` with what setup.sh made: as root, through sudo, or without the real peers, which are then named.
# Arguments go to cargo test.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
lab=${SIPDOOR_LAB:-$here/../../.lab}
cd "$here/../.."
case $(cat "$lab/ready" 2>/dev/null || echo none) in
    root) export SIPDOOR_REQUIRE_LAB=1 ;;
    sudo)
        export SIPDOOR_REQUIRE_LAB=1
        triple=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
        export "CARGO_TARGET_${triple}_RUNNER=sudo -E"
        ;;
    *) echo 'The tests with real peers are left out; each is named below.' ;;
esac
# Most of these tests wait for something most of the time.
export RUST_TEST_THREADS="${RUST_TEST_THREADS:-8}"
code=0
cargo test "$@" || code=$?
[ ! -s "$lab/left-out" ] || sed 's/^/left out: /; s/\t/: /' "$lab/left-out"
exit "$code"
