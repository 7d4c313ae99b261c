#!/bin/sh
# image-root.sh PROGRAM FOLDER [SYMBOLS]: puts into FOLDER all that an image of PROGRAM holds, and what a debugger
# wants of it into the folder SYMBOLS.
set -eu
program=$1 root=$2 symbols=${3:-}
stripped="$root/$(basename "$program")"

mkdir -p "$root/etc/ssl/certs"
install -m 755 "$program" "$stripped"
if [ -n "$symbols" ]; then
    mkdir -p "$symbols"
    objcopy --only-keep-debug "$program" "$symbols/$(basename "$program").debug"
    objcopy --strip-all --add-gnu-debuglink="$symbols/$(basename "$program").debug" "$program" "$stripped"
else
    strip "$stripped"
fi
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
