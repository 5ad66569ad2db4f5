#!/usr/bin/env bash
# This node's certificate for TLS between the nodes, by the cluster's own authority in ~/.ray/tls (ca.key, ca.crt), and the
# variables that Ray reads, to be sourced before `ray start`. Ray compares a certificate with the address that it has called, so
# each node makes its own when it is set up. How and why: medray/engine/README.md.
set -euo pipefail
umask 077
cd ~/.ray/tls
chmod 600 ca.key
address=$(hostname -I | cut -d' ' -f1)
openssl req -newkey rsa:3072 -nodes -subj "/CN=$address" -keyout node.key |
  openssl x509 -req -CA ca.crt -CAkey ca.key -set_serial "0x$(openssl rand -hex 16)" -days 365 -out node.crt \
    -extfile <(echo "subjectAltName=IP:$address,IP:127.0.0.1,DNS:localhost")
echo "export RAY_USE_TLS=1 RAY_TLS_SERVER_CERT=$PWD/node.crt RAY_TLS_SERVER_KEY=$PWD/node.key RAY_TLS_CA_CERT=$PWD/ca.crt" > environment
