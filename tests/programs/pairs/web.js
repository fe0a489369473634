// `serve PORT`: sends back the body of every request. `check IP PORT`: sends bodies and compares.
const http = require("node:http");

const COUNT = 40;
const SIZE = 256 << 10;

async function once(base, number) {
  const body = new Uint8Array(SIZE).map((_, at) => (at * (number + 1)) % 251);
  const response = await fetch(`${base}/echo?${number}`, { method: "POST", body });
  const back = new Uint8Array(await response.arrayBuffer());
  if (response.status !== 200) throw new Error(`status ${response.status}`);
  if (Buffer.compare(back, body) !== 0) throw new Error(`${number}: ${back.length} bytes of ${SIZE}`);
}

async function check(ip, port) {
  const base = `http://${ip}:${port}`;
  await Promise.all(Array.from({ length: COUNT }, (_, number) => once(base, number)));
  console.log("every byte came back");
}

const [what, ...rest] = process.argv.slice(2);
if (what === "serve") {
  // No address: both families, by one socket of IPv6.
  http.createServer((request, response) => request.pipe(response)).listen(Number(rest[0]));
} else {
  check(...rest);
}
