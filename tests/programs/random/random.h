/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Random sequences of socket calls: what the files of this program tell each other. */
#ifndef RANDOM_H
#define RANDOM_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum { SLOTS = 5, MOST_CALLS = 40 };

enum kind {
	ACCEPT,
	BIND,
	CLOSE,
	CONNECT,
	DUP,
	DUP2,
	EPOLL_CTL,
	EPOLL_WAIT,
	FCNTL,
	GETSOCKOPT,
	IOCTL,
	LISTEN,
	NAME,
	PAIR,
	RECEIVE,
	SELECT,
	SEND,
	SETSOCKOPT,
	SHUTDOWN,
	SOCKET,
};

/* A call: what it is, the slots of its descriptors, and numbers that choose everything else. They depend on nothing
 * but the seed, so that a sequence remains what it is when calls are left out. */
struct call {
	enum kind kind;
	int slot, other;
	/* Performed by a child, which then ends. */
	bool forked;
	uint32_t x, y, z, w;
};

/* generate.c */
int generate(uint64_t seed, struct call *calls);

/* names.c: what is the same in two runs */
struct address {
	struct sockaddr_storage bytes;
	socklen_t len;
};
void find_own_addresses(void);
void forget_ports(uint64_t seed);
struct address local_address(const struct call *call, int domain, int with, bool outward);
const char *shown_address(const void *bytes, socklen_t len);
void remove_paths(void);

/* perform.c */
extern int fds[SLOTS];
void perform(const struct call *call);
void finish(void);

/* options.c */
void get_option(int s, const struct call *call);
void set_option(int s, const struct call *call);
void ask_ioctl(int s, const struct call *call);

/* random.c: the line of one call */
__attribute__((format(printf, 1, 2))) void add(const char *format, ...);
void add_result(long value);

#endif
