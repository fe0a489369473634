# Runs a server until standard input ends, and says "ready" once it listens.
# Arguments: the port, its protocol (tcp or udp), the server and its arguments. The protocol may be "watched": whoever
# started us waits then. A guest that listens on the host itself does not see its own socket.
set -eu
port=$1 protocol=$2
shift 2
"$@" </dev/null >&2 &
server=$!
[ "$protocol" = watched ] || until ss -Hln "--$protocol" "sport = :$port" | grep -q .; do
    kill -0 $server || exit 1
    sleep 0.02
done
echo ready
read -r _ || :
kill $server
wait $server || :
