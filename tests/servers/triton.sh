#!/usr/bin/env bash
# A real Triton on this machine, without a container: the package nvidia-pytriton carries the server
# (2.51.0, the release 24.10: old, with known holes; for tests on the loopback interface alone).
#
#   triton.sh install VENV          makes a virtual environment with the server (370 MB)
#   triton.sh start VENV FOLDER PORT   serves the model `threshold` from FOLDER until it is killed
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

install() {
    local venv=$1
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q "nvidia-pytriton==0.7.0" "tritonclient[http]"
}

start() {
    local venv=$1 folder=$2 port=$3 packages python root library
    packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    python=$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    library=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))')
    root=$packages/pytriton/tritonserver
    # The backend needs the stub of this Python beside it.
    mkdir -p "$folder/backends" "$folder/models"
    cp -r "$root/backends/python" "$folder/backends/"
    cp "$root/python_backend_stubs/$python/triton_python_backend_stub" "$folder/backends/python/"
    cp "$root/bin/tritonserver" "$folder/tritonserver"
    chmod +x "$folder/tritonserver" "$folder/backends/python/triton_python_backend_stub"
    cp -r "$here/threshold" "$folder/models/"
    export LD_LIBRARY_PATH=$packages/nvidia_pytriton.libs:$library
    export PYTHONPATH=$packages
    export PATH=$venv/bin:$PATH
    exec "$folder/tritonserver" --model-repository="$folder/models" \
        --backend-directory="$folder/backends" --http-address=127.0.0.1 --http-port="$port" \
        --allow-grpc=false --allow-metrics=false --model-control-mode=explicit --load-model=threshold
}

"$@"
