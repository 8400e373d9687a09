#!/usr/bin/env bash
# All tests with real servers, the heavy ones too: MLServer, KServe's Python server and Ray Serve (1.3 GB
# on disk, once), beside Triton, nginx and oidc-provider, which packaging/test.sh has as well; rsyslog
# and a keyring where the system has them (Debian: nodejs npm rsyslog rsyslog-gnutls openssl dbus
# gnome-keyring libsecret-tools). What is not there is skipped and named at the end.
set -euo pipefail
cd "$(dirname "$0")/../.."
source packaging/system.sh
install_system_packages servers
folder=${NEGATOSCOPE_SERVERS:-${CARGO_TARGET_DIR:-target}/servers}
echo "Servers for the tests, installed once in $folder"
skipped=$(tests/servers/install.sh "$folder" triton nginx oidc mlserver kserve rayserve)
NEGATOSCOPE_SERVERS=$(cd "$folder" && pwd)
export NEGATOSCOPE_SERVERS

collector=$(mktemp -d)
trap 'jobs -p | xargs -r kill; rm -rf "$collector"' EXIT
if PATH=$PATH:/usr/sbin command -v rsyslogd openssl >/dev/null; then
    tests/servers/rsyslog.sh "$collector" &
    for _ in $(seq 100); do
        (: </dev/tcp/127.0.0.1/16514) 2>/dev/null && export NEGATOSCOPE_RSYSLOG=$collector && break
        sleep 0.1
    done
fi
[[ -n "${NEGATOSCOPE_RSYSLOG:-}" ]] || skipped+=$'\n'"skipped: rsyslog, which does not start here"
for part in dbus-run-session gnome-keyring-daemon secret-tool; do
    command -v "$part" >/dev/null || skipped+=$'\n'"skipped: the keyring, for want of $part"
done

cargo test --locked --test suite "$@" -- offload_real offload_servers offload_oidc rsyslog_takes key_file
[[ -z "$skipped" ]] || echo "$skipped"
