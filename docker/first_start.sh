#!/bin/sh
# Makes a project with the sample clip, connected to the backend, once: first_start.sh BACKEND STUDIO, the addresses at
# which Label Studio reaches the backend, and a browser Label Studio.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python -m backend.demo.sample "$folder"
sam3-backend project create "SAM3 video: a first try" "$folder/clip.mp4" \
  --label-config "$folder/label_config.xml" --backend "$1" --browser-url "$2"
echo "Open the task there, draw a box on a shape, click it, press t."
echo "The status page has a password: docker compose exec backend cat /data/password, unless you set BASIC_AUTH_PASS."
case ${SAM3_BACKEND_ENGINE:-sam3}:${SAM3_BACKEND_MODEL_PATH:-} in
*:) ;;
sam3:shapes) echo "The model is shapes, a toy that knows coloured shapes and nothing else. SAM3: docker-compose.gpu.yml" ;;
sam2:shapes | edgetam:shapes) echo "The engine is $SAM3_BACKEND_ENGINE, with the weights that it fetches." ;;
opencv:*) echo "The engine is opencv, which needs no weights." ;;
*) echo "The model is $SAM3_BACKEND_MODEL_PATH." ;;
esac
