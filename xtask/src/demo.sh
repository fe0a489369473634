# The demonstration: runs in a network namespace of its own, made by `cargo xtask demo`.
# $1 is the netshunt binary, $2 a scratch folder. Everything started here dies with this script.
netshunt=$1
scratch=$2
server=192.0.2.10

step() { printf '\n== %s\n' "$*"; }
show() { printf '   $ %s\n' "$*"; }

step "A private world: this side is 192.0.2.1, the other side, in a namespace of its own, $server"
unshare --net sleep infinity &
far=$!
# The child has its namespace once it has become sleep.
until [ "$(cat /proc/$far/comm)" = sleep ]; do :; done
ip link set lo up
ip link add near type veth peer name far netns $far
ip address add 192.0.2.1/24 dev near
ip link set near up
ip route add default via $server
nsenter --target $far --net sh -eu -c "
    ip link set lo up
    ip address add $server/24 dev far
    ip link set far up"

step "A web server there, on ports 8080 and 9000: 256 MiB at /bytes, who asked at /"
cat >"$scratch/server.py" <<'PYTHON'
import http.server, sys, threading

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        if self.path == "/bytes":
            self.send_header("Content-Length", str(256 << 20))
            self.end_headers()
            block = bytes(1 << 20)
            for _ in range(256):
                self.wfile.write(block)
        else:
            me, you = self.server.server_port, self.client_address
            body = f"port {me} of the server greets {you[0]}\n".encode()
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
    def log_message(self, *words):
        pass

addresses = [(name, int(port)) for name, port in (word.split(":") for word in sys.argv[1:])]
servers = [http.server.ThreadingHTTPServer(address, Handler) for address in addresses]
for server in servers:
    threading.Thread(target=server.serve_forever).start()
print("ready", flush=True)
PYTHON
mkfifo "$scratch/ready"
nsenter --target $far --net python3 "$scratch/server.py" $server:8080 $server:9000 >"$scratch/ready" &
read -r _ <"$scratch/ready"
# Another on this side's loopback, where nobody behind netshunt has any business.
python3 "$scratch/server.py" 127.0.0.1:8081 >"$scratch/ready" &
read -r _ <"$scratch/ready"

rule='192.0.2.10:9000/tcp'
status=0
attempt() {
    show "netshunt --net=auto,host-bypass --bypass '$rule' --flow-log flows.json -- $*"
    "$netshunt" --net=auto,host-bypass --bypass "$rule" --flow-log "$scratch/flows.json" -- "$@" </dev/null || {
        code=$?
        printf '   ! exit status %s\n' $code
        status=1
    }
    sed 's/^/   flow: /' "$scratch/flows.json" 2>/dev/null || echo '   (no flow was logged)'
    for expected in '8080","verdict":"stack"' '9000","verdict":"bypass"'; do
        if ! grep -qF "$expected" "$scratch/flows.json"; then
            printf '   ! no flow says %s\n' "$expected"
            status=1
        fi
    done
    rm -f "$scratch/flows.json"
}

step "Which link carries the stack's frames here: passt where it works, else slirp"
show "netshunt -v --net=auto -- true"
"$netshunt" -v --net=auto -- true 2>&1 </dev/null | grep -F -e --net=auto || {
    echo '   ! none'
    status=1
}

step "One command, two paths: port 8080 through the stack and that link, port 9000 past both"
attempt curl --silent --show-error --max-time 20 http://$server:8080/ http://$server:9000/

step "The same, with 256 MiB each"
speed='%{url}: %{size_download} bytes, %{speed_download} bytes/s\n'
attempt curl --silent --show-error --max-time 120 --write-out "$speed" \
    http://$server:8080/bytes --output /dev/null http://$server:9000/bytes --output /dev/null
show "curl (no netshunt, to compare)"
curl --silent --show-error --max-time 120 --write-out "$speed" http://$server:8080/bytes --output /dev/null || status=1

step "A server on this side's loopback, 10.0.2.2 to slirp, is out of reach unless a rule names it"
show "netshunt --net=slirp,host-bypass -- curl http://10.0.2.2:8081/"
if "$netshunt" --net=slirp,host-bypass -- curl --silent --show-error --max-time 20 http://10.0.2.2:8081/ </dev/null
then
    echo '   ! it answered'
    status=1
else
    echo '   refused, as it should be'
fi
exit $status
