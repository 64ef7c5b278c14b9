set -eu
bin=$(echo /usr/lib/postgresql/*/bin)
data=/var/lib/postgresql/data
chown postgres "$data"
if [ ! -s "$data/PG_VERSION" ]; then
  su postgres -c "$bin/initdb -D $data --auth=trust --encoding=UTF8 --locale=C.UTF-8" >/dev/null
  echo 'host all all all trust' >> "$data/pg_hba.conf"
fi
exec su postgres -c "$bin/postgres -D $data -c listen_addresses='*' -c unix_socket_directories=/tmp"
