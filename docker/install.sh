#!/bin/sh
# The two steps that install the backend in the image.
#   install.sh dependencies VENV [TORCH_INDEX]     its pinned dependencies, each file checked by its hash (but PyTorch from an
#                                                  index of its own); TORCH_INDEX as in torch_index.py, by default PyPI
#   install.sh package VENV                        the backend itself
# With EXTRAS= (empty) PyTorch is left out, and the engine opencv alone remains.
set -eu
here=$(dirname "$0")
venv=$2
export PIP_PYTHON="$venv/bin/python" # where the pip of the image's Python installs: the environment has none
case $1 in
dependencies)
  there=
  python3 -m venv --without-pip "$venv"
  if [ -n "${EXTRAS-sam3}" ]; then
    index=$("$venv/bin/python" "$here/torch_index.py" "${3:-}")
    if [ -n "$index" ]; then
      # Only torch: the index may lack our versions of what torch depends on, which come with the rest.
      python3 -m pip install --no-cache-dir --no-deps --index-url "$index" torch -c "$here/constraints.txt" \
        && there=--cpu || echo "PyTorch cannot be installed from $index: it comes from PyPI" >&2
    fi
  fi
  "$venv/bin/python" "$here/requirements.py" "$here/pyproject.toml" "$here/requirements.txt" $there ${EXTRAS-sam3} \
    > /tmp/requirements.txt
  python3 -m pip install --no-cache-dir --no-deps --require-hashes -r /tmp/requirements.txt
  find "$venv/lib" -type d -name tests -prune -exec rm -rf {} + # of packages: nothing runs them here
  ;;
package)
  python3 -m pip install --no-cache-dir --no-deps "$here/.."
  ;;
*)
  echo "install.sh dependencies VENV [TORCH_INDEX] | package VENV" >&2
  exit 2
  ;;
esac
