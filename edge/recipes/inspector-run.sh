#!/bin/sh
# Wait for the runtime, then become the inspector.
# Arguments: folder of the artifact (edge/), link to the current runtime, link to the current model package, work folder,
# link to the current challenger's package (need not be there), version of the runtime to wait for.
# Components are installed in no certain order; the inspector itself waits for the model package.
set -eu
artifact=$1 runtime=$2 model=$3 work=$4 challenger=$5 version=$6
wait_for_version_s=300 # longer than an installation may take; then the runtime before serves, so that the line runs

# The folder behind the link bears the version of the runtime.
is_old() {
    basename "$(readlink -f "$runtime")" | awk -v want="$version" '{
        split($0, have, "."); split(want, least, ".")
        for (i = 1; i <= 3; i++) if (have[i] + 0 != least[i] + 0) exit !(have[i] + 0 < least[i] + 0)
        exit 1
    }'
}

waited=0
until [ -x "$runtime/bin/python" ]; do
    echo "event=waiting_for_runtime path=$runtime"
    sleep 2
done
while is_old && [ "$waited" -lt "$wait_for_version_s" ]; do
    [ "$waited" -gt 0 ] || echo "event=waiting_for_runtime path=$runtime want=$version"
    sleep 2
    waited=$((waited + 2))
done
if is_old; then echo "event=runtime_is_old path=$(readlink -f "$runtime") want=$version" >&2; fi
# The folder behind the link, so that a runtime installed later does not change under a running program.
runtime=$(readlink -f "$runtime")
cd "$work"
PYTHONPATH=$artifact PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
export PYTHONPATH PYTHONUNBUFFERED PYTHONDONTWRITEBYTECODE
# exec: the nucleus' signals reach the inspector, and its exit status the nucleus.
exec "$runtime/bin/python" -m edge --sink greengrass --model "$model" --challenger "$challenger" --state "$work/state"
