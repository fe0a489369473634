# pgbench and psql against a PostgreSQL. Arguments: address, port. Prints what was done, and nothing that varies.
set -eu
export PGHOST="$1" PGPORT="$2" PGUSER=postgres PGCONNECT_TIMEOUT=20
ask() { psql -XAtq -v ON_ERROR_STOP=1 "$@"; }
counts() { grep -E '^number of (transactions actually|failed)'; }
pgbench -i -q postgres >&2
pgbench -c 50 -j 4 -t 10 postgres 2>errors | counts
# A new connection for every transaction.
pgbench -n -S -C -c 10 -j 2 -t 4 postgres 2>errors | counts
ask -c "SELECT format('accounts %s, history %s, sums %s', a.n, h.n,
        CASE WHEN a.s = h.s AND b.s = h.s AND t.s = h.s THEN 'equal' ELSE 'differ' END)
    FROM (SELECT count(*) n, sum(abalance) s FROM pgbench_accounts) a, (SELECT sum(bbalance) s FROM pgbench_branches) b,
        (SELECT sum(tbalance) s FROM pgbench_tellers) t, (SELECT count(*) n, sum(delta) s FROM pgbench_history) h"
# Rows both ways: up by COPY, down by COPY, and the server's own sum of them.
i=0
while [ $i -lt 1000 ]; do
    printf "%04d$(printf '%01000d' 0)\n" $i
    i=$((i + 1))
done >rows
ask -c 'DROP TABLE IF EXISTS rows' -c 'CREATE TABLE rows (line text)' -c "\\copy rows FROM 'rows'"
ask -c "\\copy (SELECT line FROM rows ORDER BY line) TO 'back'"
cmp rows back
[ "$(ask -c "SELECT md5(string_agg(line || chr(10), '' ORDER BY line)) FROM rows")  -" = "$(md5sum <rows)" ]
printf 'a megabyte arrived'
# An interrupt makes psql send a cancel request over a connection of its own.
psql -XAtq -c 'SELECT pg_sleep(60)' 2>cancelled &
sleeper=$!
until [ "$(ask -c "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")" = 1 ]; do sleep 0.02; done
kill -INT $sleeper
! wait $sleeper
grep -q 'due to user request' cancelled
echo ', cancelled'
