#!/bin/sh
# Runs `cargo test` with what setup.sh made: as root, through sudo, or without the tests that need real peers, each of
# which is then named. Arguments (options of cargo test) go before the tests' own.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
lab=${SIPDOOR_LAB:-$here/../../.lab}
cd "$here/../.."
with_peers='--test peers --test scanners --test resilience'
skip=
case $(cat "$lab/ready" 2>/dev/null || echo none) in
    root) export SIPDOOR_REQUIRE_LAB=1 ;;
    sudo)
        export SIPDOOR_REQUIRE_LAB=1
        triple=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
        export "CARGO_TARGET_${triple}_RUNNER=sudo -E"
        ;;
    *)
        # shellcheck disable=SC2086 # a list of words
        for name in $(cargo test "$@" $with_peers -- --list | sed -n 's/: test$//p'); do
            skip="$skip --skip $name"
            echo "left out: $name"
        done
        ;;
esac
[ ! -s "$lab/left-out" ] || sed 's/^/left out: /; s/\t/: /' "$lab/left-out"
# Most of these tests wait for something most of the time.
export RUST_TEST_THREADS="${RUST_TEST_THREADS:-8}"
# shellcheck disable=SC2086 # a list of words
exec cargo test "$@" -- $skip
