#!/bin/sh
# Install the Python packages of this artifact into a virtual environment, without internet, and make it the current one.
# Arguments: folder of the artifact (wheels/, requirements.txt), work folder of the component, version of the component.
# Runs as the components' ordinary user. A failure leaves the environment that was current before in place.
set -eu
artifact=$1 work=$2 version=$3

if ! python3 -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))'; then
    echo "event=runtime_refused reason='want Python 3.10 to 3.13' found='$(python3 --version 2>&1)'" >&2
    exit 1
fi

# Made beside the current one: the running inspector uses that one until it is started anew.
new=$work/$version
rm -rf "$new"
python3 -m venv "$new" || {
    echo "event=runtime_refused reason='python3 -m venv failed; on Debian install the package python3-venv'" >&2
    exit 1
}
"$new/bin/python" -m pip install --quiet --no-compile --no-index --no-cache-dir --disable-pip-version-check \
    --find-links "$artifact/wheels" --requirement "$artifact/requirements.txt"
"$new/bin/python" -c 'import numpy, PIL, awsiot'

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
