#!/usr/bin/env bash
# Real servers from the Python package index, for tests on the loopback interface: MLServer, KServe's
# Python server and Ray Serve, each with the model `threshold` (more than zero).
#
#   python_servers.sh install mlserver|kserve|rayserve VENV     330, 450 or 490 MB
#   python_servers.sh start mlserver|kserve|rayserve VENV FOLDER PORT
#
# KServe's server listens on all interfaces and cannot be told otherwise: keep its port behind a firewall.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

package_of() {
    case $1 in
    mlserver) echo "mlserver==1.7.1" ;;
    kserve) echo "kserve==0.21.0" ;;
    rayserve) echo "ray[serve]==2.60.0 numpy" ;;
    *) echo "no such server: $1" >&2 && exit 2 ;;
    esac
}

install() {
    python3 -m venv "$2"
    # shellcheck disable=SC2046 # several words on purpose
    "$2/bin/pip" install -q $(package_of "$1")
}

start() {
    local name=$1 venv=$2 folder=$3 port=$4
    cp -r "$here/$name" "$folder/$name"
    cd "$folder/$name"
    export PATH=$venv/bin:$PATH
    case $name in
    mlserver)
        # Each server has three ports; the other two are those that the system gives.
        sed -i "s/HTTP_PORT/$port/; s/GRPC_PORT/$(free_port)/; s/METRICS_PORT/$(free_port)/" settings.json
        exec "$venv/bin/mlserver" start .
        ;;
    kserve) exec "$venv/bin/python" server.py --http_port "$port" --enable_grpc=false ;;
    rayserve) exec "$venv/bin/python" server.py "$port" ;;
    esac
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

"$@"
