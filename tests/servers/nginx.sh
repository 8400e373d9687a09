#!/usr/bin/env bash
# nginx in front of a model server: TLS 1.3, client certificates, a limit on bodies.
#
#   nginx.sh PLACE FOLDER PORT BEHIND     PLACE is where install.sh has put it; FOLDER holds server.pem,
#                                         server.key and clients.pem; BEHIND is the model server's port
set -euo pipefail
place=$1 folder=$2 port=$3 behind=$4
cat >"$folder/nginx.conf" <<END
daemon off;
pid $folder/nginx.pid;
error_log $folder/nginx.log;
worker_processes 1;
events {}
http {
    access_log off;
    client_body_temp_path $folder/body;
    proxy_temp_path $folder/proxy;
    fastcgi_temp_path $folder/fastcgi;
    uwsgi_temp_path $folder/uwsgi;
    scgi_temp_path $folder/scgi;
    server {
        listen 127.0.0.1:$port ssl;
        ssl_certificate $folder/server.pem;
        ssl_certificate_key $folder/server.key;
        ssl_protocols TLSv1.3;
        ssl_client_certificate $folder/clients.pem;
        ssl_verify_client on;
        client_max_body_size 300m;
        client_body_buffer_size 1m;
        location / {
            proxy_pass http://127.0.0.1:$behind;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_read_timeout 300;
        }
        location /small/ {
            client_max_body_size 1k;
            proxy_pass http://127.0.0.1:$behind/;
        }
        location /busy/ {
            add_header Retry-After 3600 always;
            return 503;
        }
    }
}
END
exec "$place/nginx" -e "$folder/nginx.log" -c "$folder/nginx.conf"
