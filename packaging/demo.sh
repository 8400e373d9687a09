#!/usr/bin/env bash
# The main job on a fresh Debian/Ubuntu machine that has rustup's toolchain and git: a synthetic
# study is written, segmented by the bundled model, its results are saved, and the window opens.
# With everything installed, `cargo run -- demo` does the same.
#
# It builds with the dev profile, in which this program and its hot dependencies are optimized:
# about five minutes on two cores instead of about twenty for `cargo build --release`.
set -euo pipefail
cd "$(dirname "$0")/.."
source packaging/system.sh
install_system_packages window
out=${1:-negatoscope-demo}
cargo build --locked
target=${CARGO_TARGET_DIR:-target}
if [[ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]]; then
    exec "$target/debug/negatoscope" demo --out "$out"
fi
echo "No display: running without the window, then taking a picture of it."
"$target/debug/negatoscope" demo --out "$out" --no-window
packaging/screenshot.sh "$out/window.png" "$out/study"
echo "Picture of the window: $out/window.png"
