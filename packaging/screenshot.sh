#!/usr/bin/env bash
# Starts the program on a display of its own and takes a picture of its window:
# screenshot.sh PICTURE.png PATH…
set -euo pipefail
cd "$(dirname "$0")/.."
picture=$1
shift
export LIBGL_ALWAYS_SOFTWARE=1
program=${NEGATOSCOPE_PROGRAM:-${CARGO_TARGET_DIR:-target}/debug/negatoscope}
xvfb-run -a -s "-screen 0 1440x900x24" bash -c '
    program=$1 picture=$2
    shift 2
    "$program" "$@" &
    pid=$!
    for _ in $(seq 60); do
        window=$(xdotool search --onlyvisible --pid $pid 2>/dev/null | tail -1) && [[ -n $window ]] && break
        sleep 0.5
    done
    [[ -n $window ]] || { echo "the window did not appear" >&2; kill $pid; exit 1; }
    xdotool windowsize --sync "$window" 1440 900 || true
    sleep "${NEGATOSCOPE_SCREENSHOT_DELAY:-15}"
    import -window root "$picture"
    kill $pid
' _ "$program" "$picture" "$@"
