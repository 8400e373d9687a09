#!/bin/sh
# A real collector for the test `audit_forward::rsyslog_takes_the_records`: rsyslog over TLS, both
# sides with certificates. Debian packages: rsyslog rsyslog-gnutls openssl.
#
#   tests/servers/rsyslog.sh FOLDER        (stays in the foreground)
#   NEGATOSCOPE_RSYSLOG=FOLDER cargo test --test suite rsyslog_takes
set -eu
folder=${1:?a folder for certificates and messages}
mkdir -p "$folder"
cd "$folder"
folder=$(pwd)

issue() { # NAME EXTENSIONS
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$1.key" \
        -out "$1.csr" -subj "/CN=$1" 2>/dev/null
    printf '%s\n' "$2" >"$1.ext"
    openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
        -extfile "$1.ext" -out "$1.pem" 2>/dev/null
    rm "$1.csr" "$1.ext"
}
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.pem \
    -subj "/CN=test authority" -days 2 -addext basicConstraints=critical,CA:TRUE \
    -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
issue server "subjectAltName=DNS:localhost
extendedKeyUsage=serverAuth"
issue client "subjectAltName=DNS:workstation
extendedKeyUsage=clientAuth"

cat >rsyslog.conf <<CONF
global(
    workDirectory="$folder"
    maxMessageSize="64k"
    defaultNetstreamDriver="gtls"
    defaultNetstreamDriverCAFile="$folder/ca.pem"
    defaultNetstreamDriverCertFile="$folder/server.pem"
    defaultNetstreamDriverKeyFile="$folder/server.key"
)
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1"
    streamDriver.authMode="x509/name" permittedPeer=["workstation"])
input(type="imtcp" port="16514" address="127.0.0.1")
template(name="whole" type="string" string="%rawmsg%\n")
action(type="omfile" file="$folder/received.log" template="whole" asyncWriting="off" flushOnTXEnd="on")
CONF
: >received.log
exec "$(command -v rsyslogd || echo /usr/sbin/rsyslogd)" -n -f "$folder/rsyslog.conf" -i "$folder/rsyslog.pid"
