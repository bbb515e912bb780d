#!/bin/sh
# Wait for the runtime, then become the inspector.
# Arguments: folder of the artifact (edge/), link to the current runtime, link to the current model package, work folder.
# Components are installed in no certain order; the inspector itself waits for the model package.
set -eu
artifact=$1 runtime=$2 model=$3 work=$4
until [ -x "$runtime/bin/python" ]; do
    echo "event=waiting_for_runtime path=$runtime"
    sleep 2
done
# The folder behind the link, so that a runtime installed later does not change under a running program.
runtime=$(readlink -f "$runtime")
cd "$work"
PYTHONPATH=$artifact PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
export PYTHONPATH PYTHONUNBUFFERED PYTHONDONTWRITEBYTECODE
# exec: the nucleus' signals reach the inspector, and its exit status the nucleus.
exec "$runtime/bin/python" -m edge --sink greengrass --model "$model" --state "$work/state"
