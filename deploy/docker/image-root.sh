#!/bin/sh
# image-root.sh PROGRAM FOLDER: puts into FOLDER all that an image of PROGRAM holds.
set -eu
program=$1 root=$2

mkdir -p "$root/etc/ssl/certs"
install -m 755 "$program" "$root/"
# The loader and the libraries, where the program looks for them.
ldd "$program" | grep -o '/[^ ]*' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done
# Whom HTTPS clients trust, and where names are looked up.
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
echo 'hosts: files dns' > "$root/etc/nsswitch.conf"
echo 'nonroot:x:65532:65532::/:/nologin' > "$root/etc/passwd"
echo 'nonroot:x:65532:' > "$root/etc/group"
