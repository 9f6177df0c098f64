#!/usr/bin/env bash
# Fetches what the samples include: ONNX Runtime's C++ headers and nlohmann/json, both of them
# Debian packages, unpacked into build/headers beside this script. Nothing is installed, no root is
# needed, and the machine's own package lists stay as they are: apt works in a folder of its own.
#
# Settings, in the environment:
#   SUITE  the release the packages are taken from; ONNX Runtime is in Debian since trixie
#
# Exits 0 when the headers are there, 4 when this machine cannot get them.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
headers=$here/build/headers
packages=(libonnxruntime-dev nlohmann-json3-dev)

cannot() {
    printf 'error: %s\n\nhint: %s\n' "$1" "${2:-README.md says how to build with headers from elsewhere}" >&2
    exit 4
}

if [[ -d $headers ]]; then
    exit 0
fi
for program in apt-get dpkg dpkg-deb; do
    command -v "$program" >/dev/null || cannot "no $program here: headers are fetched as Debian packages"
done
# shellcheck source=/dev/null
. /etc/os-release
suite=${SUITE:-trixie}
if [[ ${ID:-} != debian ]]; then
    suite=${SUITE:-${VERSION_CODENAME:-}}
fi
# The place this machine's own packages come from.
site=$(apt-get indextargets --format '$(SITE) $(RELEASE)' 'Created-By: Packages' |
    awk -v release="${VERSION_CODENAME:-}" '$2 == release && !found { found = $1 } END { print found }')
[[ -n $site ]] || cannot "apt has no source for ${VERSION_CODENAME:-this release}"

mkdir -p "$here/build"
work=$(mktemp -d "$here/build/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists/partial,cache/archives/partial,unpacked}
component=main
signed=
if [[ ${ID:-} != debian ]]; then component='main universe'; fi
if [[ -f /usr/share/keyrings/$ID-archive-keyring.gpg ]]; then
    signed="[signed-by=/usr/share/keyrings/$ID-archive-keyring.gpg] "
fi
echo "deb $signed$site $suite $component" >"$work/sources.list"

own_apt() {
    apt-get --quiet \
        -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" \
        -o APT::Sandbox::User="$(id -un)" -o Acquire::Retries=2 -o Acquire::Languages=none \
        -o APT::Update::Error-Mode=any "$@"
}
cd "$work"
own_apt update >&2 || cannot "the package lists of $suite could not be fetched"
own_apt download "${packages[@]}" >&2 ||
    cannot "$suite has no ${packages[*]}, or they could not be fetched" "SUITE=NAME names another release"
for package in *.deb; do
    dpkg-deb --extract "$package" unpacked
done
mv unpacked "$headers"
echo "headers: $(printf '%s ' *.deb)in $headers" >&2
