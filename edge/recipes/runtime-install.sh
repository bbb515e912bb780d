#!/bin/sh
# Install the Python packages of this artifact into a virtual environment, without internet, and make it the current one.
# Arguments: folder of the artifact (wheels/, sets.json, choose.py), work folder of the component, version of the
# component. Runs as the components' ordinary user. A failure leaves the environment that was current before in place.
# The classic nucleus runs this at each of its starts: what is installed already is only made current again.
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

new=$work/$version
wanted=$artifact/requirements-$set.txt

# Also tells a shared library that the system lacks, while the environment before still serves.
works() {
    "$new/bin/python" -c '
import numpy, PIL, awsiot
try:
    import ai_edge_litert.interpreter
except ModuleNotFoundError:
    import tflite_runtime.interpreter'
}

# An inspector may be running in an environment that is there: it is not made anew under it.
if cmp -s "$wanted" "$new/installed.txt" && works; then
    echo "event=runtime_is_there version=$version set=$set"
else
    trap '[ -e "$new/installed.txt" ] || rm -rf "$new"' EXIT # what is half made is of no use
    rm -rf "$new"
    "$python" -m venv "$new" || {
        echo "event=runtime_refused reason='$python -m venv failed; on Debian install the package python3-venv'" >&2
        exit 1
    }
    # Isolated: a device's own settings of pip and Python must not change what is installed.
    "$new/bin/python" -I -m pip --isolated install --quiet --no-compile --no-index --no-cache-dir \
        --disable-pip-version-check --no-deps --require-hashes --find-links "$artifact/wheels/any" --find-links "$artifact/wheels/$set" \
        --requirement "$wanted" || {
        echo "event=runtime_refused reason='the packages of $set cannot be installed' version=$version" >&2
        exit 1
    }
    works || {
        echo "event=runtime_refused reason='the packages of $set cannot be loaded' version=$version" >&2
        exit 1
    }
    cp "$wanted" "$new/installed.txt"
    echo "event=runtime_installed version=$version set=$set python=$python"
fi

before=$(readlink "$work/current" || true) # none at the first install
ln -sfn "$new" "$work/current"
# The one before may still be running; older ones are of no use.
for folder in "$work"/*/; do
    folder=${folder%/}
    case $folder in
        "$new" | "$before" | "$work/current") ;;
        *) if [ -x "$folder/bin/python" ] && [ ! -L "$folder" ]; then rm -rf "$folder"; fi ;;
    esac
done
