/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Two threads: one makes a call again and again, the other changes what the call is about: the
 * address in memory, or what the descriptor stands for.
 *
 * race MODE SECONDS WRITES CALLS: until all three are reached. A call overlapped if the other
 * thread finished at least one change between its start and its end. */
#include "hostile.h"

enum { SLOT = 100 };

static _Atomic long changes;
static _Atomic int stop;
static volatile struct sockaddr_in address;
static int sockets[4], count;
static long overlaps, granted, refused;

static void change_address(long n)
{
	static const struct { const char *ip; int port; } each[] = {
		{ ALLOWED, ALLOWED_PORT }, { DENIED, DENIED_PORT },
		{ ALLOWED, ALLOWED_PORT + 1 }, { LOOPBACK, DENIED_PORT },
	};
	static struct sockaddr_in ready[4];
	if (!ready[0].sin_family)
		for (int i = 0; i < 4; i++)
			ready[i] = at(each[i].ip, each[i].port);
	/* Never torn: a mixture would be a third address. */
	address.sin_port = ready[n % 4].sin_port;
	address.sin_addr.s_addr = ready[n % 4].sin_addr.s_addr;
}

static void change_descriptor(long n)
{
	dup2(sockets[n % count], SLOT);
}

static void change_both(long n)
{
	dup2(sockets[n % count], SLOT);
	address.sin_family = n & 1 ? AF_INET : AF_UNIX;
}

static void (*change)(long);

static void *changer(void *arg)
{
	(void)arg;
	for (long n = 0; !stop; n++) {
		change(n);
		changes = n + 1;
		/* Now and then at another pace: every phase of the call is to be hit. */
		for (volatile int wait = n % 977 ? 0 : n % 20000; wait > 0; wait--)
			;
	}
	return NULL;
}

static void reset_on_close(int s)
{
	/* No TIME_WAIT: 200,000 connections need ports. */
	struct linger none = { 1, 0 };
	setsockopt(s, SOL_SOCKET, SO_LINGER, &none, sizeof none);
}

static int call_connect_fresh(long n)
{
	int s = socket(AF_INET, SOCK_STREAM | (n % 8 ? SOCK_NONBLOCK : 0), 0);
	reset_on_close(s);
	int r = connect(s, (void *)&address, sizeof address);
	if (r && errno == EINPROGRESS) {
		struct pollfd p = { s, POLLOUT, 0 };
		poll(&p, 1, 1000);
		r = 0;
	}
	if (!r)
		send(s, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
	int error = errno;
	close(s);
	errno = error;
	return r;
}

static int call_connect(long n)
{
	(void)n;
	return connect(SLOT, (void *)&address, sizeof address);
}

static int call_listen(long n)
{
	int r = listen(SLOT, 5), open = 0;
	socklen_t size = sizeof open;
	getsockopt(sockets[n % 2 ? 1 : 3], SOL_SOCKET, SO_ACCEPTCONN, &open, &size);
	if (open && listens_openly(sockets[n % 2 ? 1 : 3])) {
		printf("OPEN: an internet socket listens on the host\n");
		stop = 1;
	}
	return r;
}

static int call_bind(long n)
{
	(void)n;
	return bind(SLOT, (void *)&address, sizeof address);
}

static int call_setsockopt(long n)
{
	static const unsigned char route[8] = { 131, 7, 4, 192, 0, 2, 11, 0 };
	int r = n & 1 ? setsockopt(SLOT, IPPROTO_IP, IP_OPTIONS, route, 8) :
			setsockopt(SLOT, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3);
	char value[64];
	socklen_t size = sizeof value;
	int name = n & 1 ? IP_OPTIONS : SO_BINDTODEVICE, level = n & 1 ? IPPROTO_IP : SOL_SOCKET;
	if (n % 16 < 2 && !getsockopt(sockets[1], level, name, value, &size) && size > 0) {
		printf("OPEN: option %d was set\n", name);
		stop = 1;
	}
	return r;
}

static int call_sendmsg(long n)
{
	struct iovec data = { "x", 1 };
	struct sockaddr_in to = at(n & 1 ? DENIED : LOOPBACK, DENIED_PORT);
	struct msghdr m = { .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &data, .msg_iovlen = 1 };
	return sendmsg(SLOT, &m, MSG_NOSIGNAL | MSG_DONTWAIT | (n & 2 ? MSG_FASTOPEN : 0));
}

static int unix_socket(int kind)
{
	int s = socket(AF_UNIX, kind, 0);
	struct sockaddr_un any = { AF_UNIX };
	bind(s, (void *)&any, 2);
	return s;
}

int main(int argc, char **argv)
{
	static const struct mode {
		const char *name;
		void (*change)(long);
		int (*call)(long);
	} modes[] = {
		{ "address", change_address, call_connect_fresh },
		{ "bind", change_both, call_bind },
		{ "connect", change_both, call_connect },
		{ "listen", change_descriptor, call_listen },
		{ "sendmsg", change_descriptor, call_sendmsg },
		{ "setsockopt", change_descriptor, call_setsockopt },
	}, *mode = modes;
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 5)
		return 2;
	while (strcmp(mode->name, argv[1]))
		if (++mode == modes + sizeof modes / sizeof *modes)
			return 2;
	double until = seconds() + atof(argv[2]);
	long writes = atol(argv[3]), calls = atol(argv[4]), n = 0;

	/* UNIX and internet in turn; the last is connected, by whichever way is allowed. */
	sockets[0] = unix_socket(mode->call == call_sendmsg ? SOCK_DGRAM : SOCK_STREAM);
	sockets[1] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	sockets[2] = unix_socket(SOCK_STREAM);
	sockets[3] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	count = 4;
	address = at(DENIED, DENIED_PORT);
	if (mode->call != call_listen && mode->call != call_bind) {
		struct sockaddr_in to = at(ALLOWED, ALLOWED_PORT);
		connect(sockets[3], (void *)&to, sizeof to);
	}
	change = mode->change;
	pthread_t thread;
	dup2(sockets[0], SLOT);
	pthread_create(&thread, NULL, changer, NULL);
	for (; !stop && (seconds() < until || changes < writes || n < calls); n++) {
		long before = changes;
		int r = mode->call(n);
		if (changes != before)
			overlaps++;
		if (r >= 0)
			granted++;
		else
			refused++;
		/* A socket that was used up is of no more use to the race. */
		if (n % 512 == 511 && mode->call != call_setsockopt) {
			int fresh = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
			dup2(fresh, sockets[1]);
			close(fresh);
		}
	}
	stop = 1;
	pthread_join(thread, NULL);
	printf("granted=%ld refused=%ld\n", granted, refused);
	printf("tries=%ld changes=%ld overlaps=%ld\n", n, changes, overlaps);
	return 0;
}
