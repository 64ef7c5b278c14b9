#!/bin/sh
# The two steps by which the image installs the backend; a test runs the very same in an environment of its own.
#   install.sh dependencies VENV [TORCH_INDEX]     what it depends on, pinned; PyTorch from another index, if one is given
#   install.sh package VENV                        the backend itself
set -eu
here=$(dirname "$0")
venv=$2
case $1 in
dependencies)
  test -x "$venv/bin/pip" || python3 -m venv "$venv"
  if [ -n "${3:-}" ]; then
    # It alone: that index need not have our versions of what torch depends on, which come with the rest.
    "$venv/bin/pip" install --no-cache-dir --no-deps --index-url "$3" torch -c "$here/constraints.txt"
  fi
  "$venv/bin/python" "$here/requirements.py" "$here/pyproject.toml" sam3 > /tmp/requirements.txt
  "$venv/bin/pip" install --no-cache-dir -r /tmp/requirements.txt -c "$here/constraints.txt"
  ;;
package)
  "$venv/bin/pip" install --no-cache-dir --no-deps "$here/.."
  ;;
*)
  echo "install.sh dependencies VENV [TORCH_INDEX] | package VENV" >&2
  exit 2
  ;;
esac
