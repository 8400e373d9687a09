# What the system must have beyond rustup's toolchain and git: sourced by demo.sh and test.sh.
# Only what is missing is installed, each with its reason; on other systems than Debian/Ubuntu
# the names are printed and the caller goes on.

need() { # package, reason
    if ! dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; then
        missing+=("$1")
        printf '  %-24s %s\n' "$1" "$2"
    fi
}

install_system_packages() { # "window" adds what shows and tests a window, "servers" what real model servers need
    local missing=()
    if ! command -v dpkg-query >/dev/null; then
        echo "Not Debian or Ubuntu: please see packaging/system.sh for what is needed." >&2
        return 0
    fi
    echo "Checking system packages:"
    need gcc                  "compiles the C parts of dependencies (ring, codecs)"
    need g++                  "compiles CharLS, the JPEG-LS decoder"
    need make                 "runs the build that CMake writes"
    need cmake                "configures CharLS"
    if [[ " $* " == *" window "* ]]; then
        need libvulkan1           "Vulkan loader"
        need mesa-vulkan-drivers  "software Vulkan (lavapipe) where there is no GPU"
        need libxkbcommon0        "keyboard, opened at run time"
        need libxkbcommon-x11-0   "keyboard under X11, opened at run time"
        need libx11-xcb1          "X11 window, opened at run time"
        need libxcursor1          "X11 cursors, opened at run time"
        need libxi6               "X11 pointer input, opened at run time"
        need libxrandr2           "X11 screens, opened at run time"
        need xvfb                 "a display for machines without one"
        need xauth                "lets xvfb-run start that display"
        need xdotool              "finds the window in the test that starts the real program"
        need imagemagick          "takes the screenshot of the window"
    fi
    # Without what stands below, tests with servers are skipped: it is no failure that it cannot be had.
    local needed=${#missing[@]}
    if [[ " $* " == *" servers "* ]]; then
        # Not for the program, and other Pythons than the system's may be there: asked for what it can do.
        python3 -c 'import venv, ensurepip' 2>/dev/null || need python3-venv "runs a model server in the tests"
        has_libpython || need libpython3-dev "Triton's part for Python is linked with it"
    fi
    if ((${#missing[@]} == 0)); then
        echo "  nothing is missing"
        return 0
    fi
    local run=()
    if [[ $(id -u) != 0 ]]; then
        if ! command -v sudo >/dev/null; then
            echo "Please install as root: apt-get install ${missing[*]}" >&2
            return $((needed > 0))
        fi
        run=(sudo)
    fi
    { "${run[@]}" apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
        "${run[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; } ||
        return $((needed > 0))
}

# Whether the library of the python3 in use is there: beside it, or where the system looks.
has_libpython() {
    python3 -c '
import ctypes, os, sysconfig
name = f"libpython{sysconfig.get_python_version()}.so.1.0"
os.path.exists(os.path.join(sysconfig.get_config_var("LIBDIR"), name)) or ctypes.CDLL(name)' 2>/dev/null
}
