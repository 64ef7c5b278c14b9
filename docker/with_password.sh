#!/bin/sh
# Runs a command with a password for the backend: with_password.sh COMMAND... Without BASIC_AUTH_PASS, one is made on the
# first start and kept in /data, where only this user can read it.
set -eu
folder=${SAM3_BACKEND_DATA_DIR:-/data}
if [ -z "${BASIC_AUTH_PASS:-}" ] && [ "${SAM3_BACKEND_INSECURE:-false}" != true ]; then
  if [ ! -s "$folder/password" ]; then
    (umask 077 && python -c 'import secrets; print(secrets.token_urlsafe(24))' >"$folder/password.part")
    mv "$folder/password.part" "$folder/password"
    echo "A password was made. User: ${BASIC_AUTH_USER:-sam3}; to read it: cat $folder/password in this container."
  fi
  BASIC_AUTH_USER=${BASIC_AUTH_USER:-sam3}
  BASIC_AUTH_PASS=$(cat "$folder/password")
  export BASIC_AUTH_USER BASIC_AUTH_PASS
fi
exec "$@"
