// Gets a URL and writes its body to standard output.
const http = require("http");
http
  .get(process.argv[2], (response) => {
    if (response.statusCode !== 200) process.exit(2);
    response.pipe(process.stdout);
  })
  .on("error", (error) => {
    console.error(error);
    process.exit(1);
  });
