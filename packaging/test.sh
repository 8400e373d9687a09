#!/usr/bin/env bash
# Runs all tests on a fresh Debian/Ubuntu machine that has rustup's toolchain and git. The first run
# brings real servers for the tests: Triton, nginx and, where Node.js is, a token server (78 MB over
# the line, 255 MB on disk). What cannot be had is skipped and named at the end.
# With everything installed, `cargo test` does the same, but for those servers.
set -euo pipefail
cd "$(dirname "$0")/.."
source packaging/system.sh
install_system_packages window servers
skipped=
if [[ -z "${NEGATOSCOPE_SERVERS:-}" ]]; then
    NEGATOSCOPE_SERVERS=${CARGO_TARGET_DIR:-target}/servers
    echo "Servers for the tests, installed once in $NEGATOSCOPE_SERVERS: Triton, nginx, oidc-provider"
    skipped=$(tests/servers/install.sh "$NEGATOSCOPE_SERVERS" triton nginx oidc)
    NEGATOSCOPE_SERVERS=$(cd "$NEGATOSCOPE_SERVERS" && pwd)
    export NEGATOSCOPE_SERVERS
fi
cargo test --locked "$@"
# At the end, where it is seen.
[[ -z "$skipped" ]] || echo "$skipped"
