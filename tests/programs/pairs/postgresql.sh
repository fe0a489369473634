# A new PostgreSQL in the working folder, at the port given. It refuses to be root, so root becomes nobody first.
set -eu
port=$1
mkdir database
lower=
if [ "$(id -u)" = 0 ]; then
    chown nobody database
    lower="setpriv --reuid=nobody --regid=nogroup --clear-groups"
fi
programs=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
cd database
$lower "$programs/initdb" --no-sync --auth=trust --username=postgres --pgdata=data >&2
$lower sh -c 'echo "host all all 0.0.0.0/0 trust" >>data/pg_hba.conf'
exec $lower "$programs/postgres" -D data -p "$port" -c listen_addresses='*' -c unix_socket_directories= -c fsync=off
