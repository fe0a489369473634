# Sends lines to a DTLS server that sends them back, and compares. Arguments: address:port, the certificate to trust.
set -eu
rm -f in out
mkfifo in
openssl s_client -dtls -quiet -no_ign_eof -verify_return_error -CAfile "$2" -connect "$1" <in >out &
client=$!
exec 3>in
sent=0
# A write is a datagram here: no longer than a frame, and the next when it is back, since DTLS repeats none.
while [ $sent -lt 5000 ]; do
    seq $((sent + 1)) $((sent + 200)) >&3
    sent=$((sent + 200))
    until [ "$(wc -l <out)" -ge $sent ]; do
        kill -0 $client || exit 1
        sleep 0.02
    done
done
seq $sent | cmp - out
exec 3>&-
wait $client
echo "$sent lines came back"
