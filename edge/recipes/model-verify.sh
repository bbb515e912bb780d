#!/bin/sh
# Verify every file of a model package against SHA256SUMS, which the component's build wrote.
# Argument: folder of the artifact (package/, SHA256SUMS). A failure keeps the package that serves now.
# The inspector verifies again, and tests itself with the package's golden images before it serves.
set -eu
cd "$1"
# Nothing is written here: a nucleus need not let components write to their artifacts.
if ! verified=$(sha256sum -c SHA256SUMS 2>&1); then
    echo "event=model_refused reason='files differ from SHA256SUMS' files='$(echo "$verified" | grep -v ': OK$' | tr '\n' ' ')'" >&2
    exit 1
fi
[ -s package/contract.json ] && [ -s package/model.tflite ] || {
    echo "event=model_refused reason='package/contract.json or package/model.tflite is missing'" >&2
    exit 1
}
