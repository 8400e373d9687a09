#!/usr/bin/env bash
# Puts the real servers of the tests into a folder, each once. What cannot be had on this machine is
# named on standard output, one line each ("skipped: …"), and left out.
#
#   install.sh FOLDER NAME…      triton (76 MB over the line), nginx and oidc (1 MB each): seconds
#                                mlserver, kserve, rayserve: 330, 450, 490 MB on disk, minutes
#   NEGATOSCOPE_SERVERS=FOLDER cargo test --test suite offload_
set -euo pipefail
mkdir -p "$1"
folder=$(cd "$1" && pwd)
shift

# What is installed. Triton's package is 2.51.0, the release 24.10: old, with known holes; for tests on
# the loopback interface alone. Its parts for Python know NumPy 1.
version_of() {
    case $1 in
    triton) echo "nvidia-pytriton==0.7.0 numpy<2" ;;
    mlserver) echo "mlserver==1.7.1" ;;
    kserve) echo "kserve==0.21.0" ;;
    rayserve) echo "ray[serve]==2.60.0 numpy" ;;
    oidc) echo "oidc-provider@9.13.3" ;;
    nginx) echo "nginx" ;;
    *) echo "no such server: $1" >&2 && exit 2 ;;
    esac
}

# A virtual environment in `place` with the packages; pip gives up soon where it reaches nobody.
python_packages() {
    python3 -m venv "$place"
    local packages
    read -ra packages <<<"$(version_of "$1")"
    "$place/bin/python" -m pip install --disable-pip-version-check --retries 1 --timeout 30 \
        --only-binary :all: "${@:2}" "${packages[@]}"
}

# The server comes with the package, without a container; the Python client of it is not needed.
install_triton() {
    python_packages triton --no-deps || return 1
    local stub
    stub=$(echo "$place"/lib/python3*/site-packages/pytriton/tritonserver)/python_backend_stubs
    stub=$stub/$("$place/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    stub=$stub/triton_python_backend_stub
    [[ -e $stub ]] || { echo "it has no part for this version of Python" && return 1; }
    local lacking
    lacking=$(LD_LIBRARY_PATH=$(library_folder) ldd "$stub" | grep 'not found') || return 0
    echo "it needs $lacking" && return 1
}

library_folder() {
    "$place/bin/python" -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))'
}

install_mlserver() { python_packages mlserver; }
install_kserve() { python_packages kserve; }
install_rayserve() { python_packages rayserve; }

install_oidc() {
    node -e 'process.exit(process.versions.node.split(".")[0] < 20 ? 1 : 0)' ||
        { echo "it needs Node.js 20 or newer" && return 1; }
    npm install --no-fund --no-audit --no-save --fetch-retries 0 --fetch-timeout 60000 \
        --prefix "$place" "$(version_of oidc)"
}

# The system's, or its package unpacked: to install it would start a web server at every boot.
install_nginx() {
    local found
    found=$(PATH=$PATH:/usr/sbin command -v nginx) && { ln -s "$found" "$place/nginx" && return 0; }
    # The program is in one of these, depending on the release.
    local package
    for package in nginx nginx-core nginx-light; do
        (cd "$place" && { apt-get download -q "$package" || new_lists "$package"; } &&
            dpkg -x "$package"_*.deb . && rm "$package"_*.deb) || return 1
        if [[ -x $place/usr/sbin/nginx ]]; then
            ln -s usr/sbin/nginx "$place/nginx"
            local lacking
            lacking=$(ldd "$place/nginx" | grep 'not found') || return 0
            echo "it needs $lacking" && return 1
        fi
    done
    return 1
}

new_lists() { [[ $(id -u) == 0 ]] && apt-get update -qq && apt-get download -q "$1"; }

for name in "$@"; do
    place=$folder/$name
    version=$(version_of "$name")
    [[ "$(cat "$place/installed" 2>/dev/null)" == "$version" ]] && continue
    rm -rf "$place" && mkdir -p "$place"
    if "install_$name" >"$folder/$name.log" 2>&1; then
        echo "$version" >"$place/installed"
    else
        # Its first word of failure where pip, npm or apt says one, else the last line.
        why=$(grep -m 1 -E '^(ERROR|npm error|E):? ' "$folder/$name.log" || tail -n 1 "$folder/$name.log")
        rm -rf "$place"
        echo "skipped: the tests with $name, which could not be installed: $why (all of it: $folder/$name.log)"
    fi
done
