#!/bin/sh
# A project with the sample clip, connected to the backend at an address: first_start.sh URL. Done before, it does nothing.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python -m demo.sample "$folder"
sam3-backend project create "SAM3 video: a first try" "$folder/clip.mp4" \
  --label-config "$folder/label_config.xml" --backend "$1" --data-dir "$folder"
