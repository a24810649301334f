# Sourced by scripts that write JSON.
# shellcheck shell=sh

# json TEXT: as a string of JSON
json() {
    printf '"%s"' "$(printf %s "$1" | sed 's/[\\"]/\\&/g')"
}
