/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What several of these programs need. */
#pragma once
#include <arpa/inet.h>
#include <sys/socket.h>
#include <time.h>

/* Seconds. */
static double now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec + at.tv_nsec / 1e9;
}

struct address {
	struct sockaddr_storage bytes;
	socklen_t len;
};

static struct address address(int of, const char *text, int port)
{
	struct address a = { .len = of == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6) };
	struct sockaddr_in *v4 = (void *)&a.bytes;
	struct sockaddr_in6 *v6 = (void *)&a.bytes;

	a.bytes.ss_family = of;
	if (of == AF_INET) {
		v4->sin_port = htons(port);
		inet_pton(of, text, &v4->sin_addr);
	} else {
		v6->sin6_port = htons(port);
		inet_pton(of, text, &v6->sin6_addr);
	}
	return a;
}
