#!/usr/bin/env bash
# Runs all tests on a fresh Debian/Ubuntu machine that has rustup's toolchain and git.
# With everything installed, `cargo test` does the same.
set -euo pipefail
cd "$(dirname "$0")/.."
source packaging/system.sh
install_system_packages window
cargo test --locked "$@"
