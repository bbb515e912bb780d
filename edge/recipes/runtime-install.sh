#!/bin/sh
# Install the Python packages of this artifact into a virtual environment, without internet, and make it the current one.
# Arguments: folder of the artifact (wheels/, sets.json, choose.py), work folder of the component, version of the
# component. Runs as the components' ordinary user. A failure leaves the environment that was current before in place.
set -eu
artifact=$1 work=$2 version=$3

# The device's own Python first; then others that it may have.
python="" set=""
for candidate in python3 python3.13 python3.12 python3.11 python3.10; do
    command -v "$candidate" >/dev/null || continue
    if set=$("$candidate" "$artifact/choose.py" "$artifact/sets.json"); then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    command -v python3 >/dev/null || echo "event=runtime_refused reason='want python3, found none'" >&2
    exit 1
fi

# Made beside the current one: the running inspector uses that one until it is started anew.
new=$work/$version
before=$(readlink "$work/current" || true) # none at the first install
trap '[ "$(readlink "$work/current" || true)" = "$new" ] || rm -rf "$new"' EXIT # what is half made is of no use
[ "$before" = "$new" ] || rm -rf "$new"
"$python" -m venv --clear "$new" || {
    echo "event=runtime_refused reason='$python -m venv failed; on Debian install the package python3-venv'" >&2
    exit 1
}
"$new/bin/python" -m pip install --quiet --no-compile --no-index --no-cache-dir --disable-pip-version-check \
    --no-deps --require-hashes --find-links "$artifact/wheels/any" --find-links "$artifact/wheels/$set" \
    --requirement "$artifact/requirements-$set.txt" || {
    echo "event=runtime_refused reason='the packages of $set cannot be installed' version=$version" >&2
    exit 1
}
"$new/bin/python" -c 'import numpy, PIL, awsiot'
echo "event=runtime_installed version=$version set=$set python=$("$new/bin/python" -c 'import platform; print(platform.python_version())')"

ln -sfn "$new" "$work/current"
# The one before may still be running; older ones are of no use.
for folder in "$work"/*/; do
    folder=${folder%/}
    case $folder in
        "$new" | "$before" | "$work/current") ;;
        *) if [ -x "$folder/bin/python" ] && [ ! -L "$folder" ]; then rm -rf "$folder"; fi ;;
    esac
done
