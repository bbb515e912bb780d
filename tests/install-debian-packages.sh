#!/usr/bin/env bash
# Install the Debian packages that some tests drive as real programs; where that is not allowed, say what is skipped.
set -euo pipefail
packages=(chromium mosquitto strace) # the report is opened in the first, devices talk to the second, the third records what the spool writes

missing=()
for package in "${packages[@]}"; do
  dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  echo "tests: installing Debian packages: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update >/dev/null && apt-get -qq install --yes --no-install-recommends "${missing[@]}" >/dev/null && exit 0
  echo "tests: apt-get failed"
fi
echo "tests: not installed, the tests that need it are skipped: ${missing[*]} (install with: sudo apt-get install ${missing[*]})"
