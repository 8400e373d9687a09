#!/usr/bin/env bash
# Starts a real server that install.sh has installed, on the loopback interface, with two models:
# `threshold` (INT16, 1 where above 0) and `half` (FP32, 1 where above 0.5). Stays in the foreground.
#
#   start.sh NAME PLACE SCRATCH PORT     triton, mlserver, kserve, rayserve; PLACE is where NAME is
#                                        installed, SCRATCH an empty folder
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
name=$1 place=$2 scratch=$3 port=$4
export PATH=$place/bin:$PATH

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

case $name in
triton)
    packages=$("$place/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    python=$("$place/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    library=$("$place/bin/python" -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))')
    root=$packages/pytriton/tritonserver
    # The backend needs the stub of this Python beside it.
    mkdir -p "$scratch/backends"
    cp -r "$root/backends/python" "$scratch/backends/"
    cp "$root/python_backend_stubs/$python/triton_python_backend_stub" "$scratch/backends/python/"
    cp "$root/bin/tritonserver" "$scratch/tritonserver"
    chmod +x "$scratch/tritonserver" "$scratch/backends/python/triton_python_backend_stub"
    for model in threshold half; do
        mkdir -p "$scratch/models/$model/1"
        cp "$here/triton/$model.pbtxt" "$scratch/models/$model/config.pbtxt"
        cp "$here/triton/model.py" "$scratch/models/$model/1/"
    done
    export LD_LIBRARY_PATH=$packages/nvidia_pytriton.libs:$library
    export PYTHONPATH=$packages
    exec "$scratch/tritonserver" --model-repository="$scratch/models" \
        --backend-directory="$scratch/backends" --http-address=127.0.0.1 --http-port="$port" \
        --allow-grpc=false --allow-metrics=false --model-control-mode=explicit \
        --load-model=threshold --load-model=half
    ;;
mlserver)
    cp -r "$here/mlserver/." "$scratch/"
    cd "$scratch"
    # It has three ports; the other two are those that the system gives.
    sed -i "s/HTTP_PORT/$port/; s/GRPC_PORT/$(free_port)/; s/METRICS_PORT/$(free_port)/" settings.json
    exec "$place/bin/mlserver" start .
    ;;
kserve) exec "$place/bin/python" "$here/kserve/server.py" --http_port "$port" --enable_grpc=false ;;
rayserve) exec "$place/bin/python" "$here/rayserve/server.py" "$port" ;;
*) echo "no such server: $name" >&2 && exit 2 ;;
esac
