/* Gets an HTTP body and writes it to standard output: fetch ADDRESS PORT PATH.
 * Linked statically against musl: no preload library could reach it. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	static char data[65536];
	struct sockaddr_in to = { .sin_family = AF_INET };
	ssize_t n, used = 0;
	char *end = NULL;
	int fd;

	if (argc != 4 || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1)
		return 2;
	to.sin_port = htons(atoi(argv[2]));
	fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to))) {
		perror("connect");
		return 1;
	}
	dprintf(fd, "GET %s HTTP/1.0\r\nHost: x\r\n\r\n", argv[3]);
	while (!end && (n = read(fd, data + used, sizeof(data) - 1 - used)) > 0) {
		used += n;
		data[used] = 0;
		end = strstr(data, "\r\n\r\n");
	}
	if (!end)
		return 1;
	end += 4;
	fwrite(end, 1, used - (end - data), stdout);
	while ((n = read(fd, data, sizeof(data))) > 0)
		fwrite(data, 1, n, stdout);
	return n < 0 || fflush(stdout);
}
