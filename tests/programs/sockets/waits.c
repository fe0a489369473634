// SPDX-License-Identifier: MIT OR Apache-2.0
/* Every call that can wait, and everything that can happen to it meanwhile: signals with and without SA_RESTART, stops,
 * time-outs, cancellation, death. Prints a line "FAMILY CALL, WHAT: HAPPENED=RESULT" for each, which depends on nothing
 * but how calls behave, so that the output of two runs can be compared.
 *
 *   waits hold PORT        the far side: takes connections and says nothing
 *   waits PORT FAR4 FAR6 SILENT4 SILENT6
 *   waits throttled PORT FAR4     sends of datagrams, on a network that takes none
 *
 * Nothing is timed: a case goes on when /proc/PID/task/TID/syscall says that its caller waits in the call.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sockets.h"

enum { LIMIT_MS = 80, SOON_S = 10, AT_ONCE = 8 };

static int family;
static int far_port;
static struct address far_side, silent;

/* What a case's caller and its observer share. */
static struct shared {
	volatile int tid;
	volatile int handled, restarted;
	volatile long value;
	volatile int error;
	volatile bool done, cancelled;
	volatile double took;
} *shared;

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
	va_list values;

	fprintf(stderr, "waits: ");
	va_start(values, format);
	vfprintf(stderr, format, values);
	va_end(values);
	fprintf(stderr, ": %s\n", strerrorname_np(errno));
	exit(1);
}

static struct address path(const char *name)
{
	struct address a = { .len = sizeof(struct sockaddr_un) };
	struct sockaddr_un *u = (void *)&a.bytes;

	u->sun_family = AF_UNIX;
	snprintf(u->sun_path, sizeof u->sun_path, "waits-%d-%s", getpid(), name);
	return a;
}

static struct address local(int s)
{
	struct address a = { .len = sizeof a.bytes };

	if (getsockname(s, (void *)&a.bytes, &a.len))
		die("getsockname");
	return a;
}

/* What a case works on: made once for each call, inherited by each caller. */
static struct {
	int s; /* the call's socket */
	int other; /* what serves it */
	struct address to;
} it;

static char byte = 'x';

/* The calls. */

static long call_connect(void)
{
	return connect(it.s, (void *)&it.to.bytes, it.to.len);
}

static long call_accept(void)
{
	return accept(it.s, NULL, NULL);
}

static long call_accept_named(void)
{
	struct address from = { .len = sizeof from.bytes };

	return accept(it.s, (void *)&from.bytes, &from.len);
}

static long call_accept4(void)
{
	return accept4(it.s, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

static long call_read(void)
{
	return read(it.s, &(char[64]){ 0 }, 64);
}

static long call_recv(void)
{
	return recv(it.s, &(char[64]){ 0 }, 64, 0);
}

static long call_recv_all(void)
{
	return recv(it.s, &(char[64]){ 0 }, 64, MSG_WAITALL);
}

static long call_recvfrom(void)
{
	struct address from = { .len = sizeof from.bytes };

	return recvfrom(it.s, &(char[64]){ 0 }, 64, 0, (void *)&from.bytes, &from.len);
}

static long call_peek(void)
{
	struct address from = { .len = sizeof from.bytes };

	return recvfrom(it.s, &(char[64]){ 0 }, 64, MSG_PEEK, (void *)&from.bytes, &from.len);
}

static struct msghdr *message(struct msghdr *m, struct iovec *part, const struct address *to)
{
	*m = (struct msghdr){ .msg_iov = part, .msg_iovlen = 1 };
	if (to)
		m->msg_name = (void *)&to->bytes, m->msg_namelen = to->len;
	return m;
}

static long call_recvmsg(void)
{
	struct iovec part = { &(char[64]){ 0 }, 64 };
	struct msghdr m;

	return recvmsg(it.s, message(&m, &part, NULL), 0);
}

static long call_recvmmsg(void)
{
	struct iovec part = { &(char[64]){ 0 }, 64 };
	struct mmsghdr m[1] = { 0 };

	message(&m[0].msg_hdr, &part, NULL);
	return recvmmsg(it.s, m, 1, 0, NULL);
}

/* The first is there already. */
static long call_recvmmsg_more(void)
{
	struct iovec part = { &(char[64]){ 0 }, 64 };
	struct mmsghdr m[2] = { 0 };

	message(&m[0].msg_hdr, &part, NULL), message(&m[1].msg_hdr, &part, NULL);
	return recvmmsg(it.s, m, 2, 0, NULL);
}

static long call_write(void)
{
	return write(it.s, &byte, 1);
}

static long call_send(void)
{
	return send(it.s, &byte, 1, MSG_NOSIGNAL);
}

static long call_sendto(void)
{
	return sendto(it.s, &byte, 1, MSG_NOSIGNAL, (void *)&it.to.bytes, it.to.len);
}

static long call_sendmsg(void)
{
	struct iovec part = { &byte, 1 };
	struct msghdr m;

	return sendmsg(it.s, message(&m, &part, NULL), MSG_NOSIGNAL);
}

static long call_sendmsg_to(void)
{
	struct iovec part = { &byte, 1 };
	struct msghdr m;

	return sendmsg(it.s, message(&m, &part, &it.to), MSG_NOSIGNAL);
}

static long call_sendmmsg(void)
{
	struct iovec part = { &byte, 1 };
	struct mmsghdr m[2] = { 0 };

	message(&m[0].msg_hdr, &part, NULL), message(&m[1].msg_hdr, &part, NULL);
	return sendmmsg(it.s, m, 2, MSG_NOSIGNAL);
}

static long call_sendmmsg_to(void)
{
	struct iovec part = { &byte, 1 };
	struct mmsghdr m[2] = { 0 };

	message(&m[0].msg_hdr, &part, &it.to), message(&m[1].msg_hdr, &part, &it.to);
	return sendmmsg(it.s, m, 2, MSG_NOSIGNAL);
}

static long call_poll(void)
{
	struct pollfd p = { .fd = it.s, .events = POLLIN };

	return poll(&p, 1, -1);
}

static long call_epoll(void)
{
	struct epoll_event event = { .events = EPOLLIN };
	int e = epoll_create1(0);

	epoll_ctl(e, EPOLL_CTL_ADD, it.s, &event);
	return epoll_wait(e, &event, 1, -1);
}

/* Their places. */

static int fresh(int type)
{
	int s = socket(family, type, 0);

	if (s < 0)
		die("socket");
	return s;
}

static void set(int s, int name, int value)
{
	if (setsockopt(s, SOL_SOCKET, name, &value, sizeof value))
		die("setsockopt");
}

static struct address loopback(void)
{
	return address(family, family == AF_INET ? "127.0.0.1" : "::1", 0);
}

static void silence(void)
{
	it.s = fresh(SOCK_STREAM), it.to = silent;
}

static void pending(void)
{
	silence();
	fcntl(it.s, F_SETFL, O_NONBLOCK);
	if (!connect(it.s, (void *)&it.to.bytes, it.to.len) || errno != EINPROGRESS)
		die("connect");
	fcntl(it.s, F_SETFL, 0);
}

static void server(void)
{
	it.s = fresh(SOCK_STREAM), it.to = loopback();
	if (bind(it.s, (void *)&it.to.bytes, it.to.len) || listen(it.s, 5))
		die("listen");
	it.to = local(it.s);
}

static void serve_client(void)
{
	int s = fresh(SOCK_STREAM);

	if (connect(s, (void *)&it.to.bytes, it.to.len))
		die("the client's connect");
	/* Left to the end of the process. */
}

static void connection(void)
{
	it.s = fresh(SOCK_STREAM), it.to = far_side;
	/* Not much is to be sent until nothing can be. */
	set(it.s, SO_SNDBUF, 4096);
	if (connect(it.s, (void *)&it.to.bytes, it.to.len))
		die("connect");
}

static void fill(void)
{
	static char bytes[4096];
	struct pollfd p = { .fd = it.s, .events = POLLOUT };

	/* The far end's buffer, and what lies between. */
	do
		while (send(it.s, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
			;
	while (poll(&p, 1, 300) > 0);
	while (send(it.s, bytes, 1, MSG_DONTWAIT) > 0)
		;
	if (errno != EAGAIN)
		die("fill");
}

static void full_connection(void)
{
	connection();
	fill();
}

/* A connection of the loopback. */
static void pair(void)
{
	int listener;

	server();
	listener = it.s;
	it.s = fresh(SOCK_STREAM);
	if (connect(it.s, (void *)&it.to.bytes, it.to.len) || (it.other = accept(listener, NULL, NULL)) < 0)
		die("a pair");
	close(listener);
}

static void serve_other(void)
{
	if (send(it.other, "12345678", 8, 0) != 8)
		die("the other's send");
}

static void datagrams(void)
{
	it.s = fresh(SOCK_DGRAM), it.to = loopback(), it.other = fresh(SOCK_DGRAM);
	if (bind(it.s, (void *)&it.to.bytes, it.to.len))
		die("bind");
	it.to = local(it.s);
	if (connect(it.other, (void *)&it.to.bytes, it.to.len))
		die("connect");
}

/* Has sent to the far side: by a rule, the host's socket is what waits. */
static void far_datagrams(void)
{
	it.s = fresh(SOCK_DGRAM), it.to = silent;
	if (connect(it.s, (void *)&it.to.bytes, it.to.len) || send(it.s, "x", 1, 0) != 1)
		die("connect");
}

/* As much as a network takes that takes nothing. */
static void throttled(void)
{
	static char bytes[1000];
	struct pollfd p = { .fd = 0, .events = POLLOUT };

	it.s = fresh(SOCK_DGRAM), it.to = far_side, p.fd = it.s;
	if (connect(it.s, (void *)&it.to.bytes, it.to.len))
		die("connect");
	do
		while (send(it.s, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
			;
	while (poll(&p, 1, 300) > 0);
	while (send(it.s, bytes, 1, MSG_DONTWAIT) > 0)
		;
	if (errno != EAGAIN)
		die("a full network");
}

static void unix_server(void)
{
	it.s = socket(AF_UNIX, SOCK_STREAM, 0), it.to = path("server");
	if (bind(it.s, (void *)&it.to.bytes, it.to.len) || listen(it.s, 5))
		die("listen");
}

static void serve_unix_client(void)
{
	int s = socket(AF_UNIX, SOCK_STREAM, 0);

	if (connect(s, (void *)&it.to.bytes, it.to.len))
		die("the client's connect");
}

static void unix_full_server(void)
{
	it.other = socket(AF_UNIX, SOCK_STREAM, 0), it.to = path("full");
	if (bind(it.other, (void *)&it.to.bytes, it.to.len) || listen(it.other, 0))
		die("listen");
	while (!connect(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0), (void *)&it.to.bytes, it.to.len))
		;
	if (errno != EAGAIN)
		die("a full queue");
	it.s = socket(AF_UNIX, SOCK_STREAM, 0);
}

static void serve_accept(void)
{
	close(accept(it.other, NULL, NULL));
}

static void unix_pair(void)
{
	int s[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, s))
		die("socketpair");
	it.s = s[0], it.other = s[1];
	it.to = path("nobody");
}

static void unix_full_pair(void)
{
	unix_pair();
	while (send(it.s, &(char[4096]){ 0 }, 4096, MSG_DONTWAIT) > 0)
		;
}

static void serve_reading(void)
{
	while (recv(it.other, &(char[4096]){ 0 }, 4096, MSG_DONTWAIT) > 0)
		;
}

static void unix_datagrams(void)
{
	it.s = socket(AF_UNIX, SOCK_DGRAM, 0), it.to = path("datagrams"), it.other = socket(AF_UNIX, SOCK_DGRAM, 0);
	if (bind(it.s, (void *)&it.to.bytes, it.to.len) || connect(it.other, (void *)&it.to.bytes, it.to.len))
		die("bind");
}

static void unix_full_datagrams(void)
{
	int s;

	unix_datagrams();
	s = it.s, it.s = it.other, it.other = s;
	while (send(it.s, &byte, 1, MSG_DONTWAIT) > 0)
		;
}

/* Full, and it does not know: a queue of others. */
static void unix_full_for_others(void)
{
	unix_full_datagrams();
	it.s = socket(AF_UNIX, SOCK_DGRAM, 0);
}

/* As there are calls of many kinds, a socket for each; the same questions. */

enum { READS = 1, WRITES = 2, NO_LIMIT = 4, SERVED = 8, COUNTS = 16 };

static const struct call {
	const char *name;
	long number;
	long (*call)(void);
	void (*place)(void);
	void (*serve)(void);
	int flags;
	bool unix_only;
} CALLS[] = {
	{ "connect", SYS_connect, call_connect, silence, NULL, WRITES, false },
	{ "connect again", SYS_connect, call_connect, pending, NULL, WRITES, false },
	{ "accept", SYS_accept, call_accept, server, serve_client, READS, false },
	{ "accept, named", SYS_accept, call_accept_named, server, serve_client, READS, false },
	{ "accept4", SYS_accept4, call_accept4, server, serve_client, READS, false },
	{ "poll, listener", SYS_poll, call_poll, server, serve_client, NO_LIMIT, false },
	{ "epoll_wait, listener", SYS_epoll_wait, call_epoll, server, serve_client, NO_LIMIT, false },
	{ "read, connection", SYS_read, call_read, connection, NULL, READS, false },
	{ "recv, connection", SYS_recvfrom, call_recv, connection, NULL, READS, false },
	{ "recvfrom, connection", SYS_recvfrom, call_recvfrom, connection, NULL, READS, false },
	{ "recvmsg, connection", SYS_recvmsg, call_recvmsg, connection, NULL, READS, false },
	{ "recvmmsg, connection", SYS_recvmmsg, call_recvmmsg, connection, NULL, READS, false },
	{ "poll, connection", SYS_poll, call_poll, connection, NULL, NO_LIMIT, false },
	{ "recv, inside", SYS_recvfrom, call_recv, pair, serve_other, READS, false },
	{ "recv all, inside", SYS_recvfrom, call_recv_all, pair, NULL, READS, false },
	{ "recvmsg, inside", SYS_recvmsg, call_recvmsg, pair, serve_other, READS, false },
	{ "epoll_wait, inside", SYS_epoll_wait, call_epoll, pair, serve_other, NO_LIMIT, false },
	{ "write, connection", SYS_write, call_write, full_connection, NULL, WRITES, false },
	{ "send, connection", SYS_sendto, call_send, full_connection, NULL, WRITES, false },
	{ "sendto, connection", SYS_sendto, call_sendto, full_connection, NULL, WRITES, false },
	{ "sendmsg, connection", SYS_sendmsg, call_sendmsg, full_connection, NULL, WRITES, false },
	{ "sendmmsg, connection", SYS_sendmmsg, call_sendmmsg, full_connection, NULL, WRITES, false },
	{ "read, datagrams", SYS_read, call_read, datagrams, serve_other, READS, false },
	{ "recv, datagrams", SYS_recvfrom, call_recv, datagrams, serve_other, READS, false },
	{ "recvfrom, datagrams", SYS_recvfrom, call_recvfrom, datagrams, serve_other, READS, false },
	{ "recvfrom and peek, datagrams", SYS_recvfrom, call_peek, datagrams, serve_other, READS | COUNTS, false },
	{ "recvmsg, datagrams", SYS_recvmsg, call_recvmsg, datagrams, serve_other, READS, false },
	{ "recvmmsg, datagrams", SYS_recvmmsg, call_recvmmsg, datagrams, serve_other, READS, false },
	{ "recvmmsg of two, datagrams", SYS_recvmmsg, call_recvmmsg_more, datagrams, serve_other, READS | SERVED, false },
	{ "poll, datagrams", SYS_poll, call_poll, datagrams, serve_other, NO_LIMIT | COUNTS, false },
	{ "epoll_wait, datagrams", SYS_epoll_wait, call_epoll, datagrams, serve_other, NO_LIMIT | COUNTS, false },
	{ "recv, far datagrams", SYS_recvfrom, call_recv, far_datagrams, NULL, READS, false },
	{ "recvfrom, far datagrams", SYS_recvfrom, call_recvfrom, far_datagrams, NULL, READS, false },
	{ "recvmsg, far datagrams", SYS_recvmsg, call_recvmsg, far_datagrams, NULL, READS, false },
	{ "recvmmsg, far datagrams", SYS_recvmmsg, call_recvmmsg, far_datagrams, NULL, READS, false },
	{ "connect", SYS_connect, call_connect, unix_full_server, serve_accept, WRITES, true },
	{ "accept", SYS_accept, call_accept, unix_server, serve_unix_client, READS, true },
	{ "accept4", SYS_accept4, call_accept4, unix_server, serve_unix_client, READS, true },
	{ "recvfrom", SYS_recvfrom, call_recvfrom, unix_pair, serve_other, READS, true },
	{ "recvmsg", SYS_recvmsg, call_recvmsg, unix_pair, serve_other, READS, true },
	{ "recvmmsg", SYS_recvmmsg, call_recvmmsg, unix_pair, serve_other, READS, true },
	{ "recvfrom, datagrams", SYS_recvfrom, call_recvfrom, unix_datagrams, serve_other, READS, true },
	{ "recvmsg, datagrams", SYS_recvmsg, call_recvmsg, unix_datagrams, serve_other, READS, true },
	{ "recvmmsg, datagrams", SYS_recvmmsg, call_recvmmsg, unix_datagrams, serve_other, READS, true },
	{ "recvmmsg of two, datagrams", SYS_recvmmsg, call_recvmmsg_more, unix_datagrams, serve_other, READS | SERVED, true },
	{ "send", SYS_sendto, call_send, unix_full_pair, serve_reading, WRITES, true },
	{ "sendmsg", SYS_sendmsg, call_sendmsg, unix_full_pair, serve_reading, WRITES, true },
	{ "sendmmsg", SYS_sendmmsg, call_sendmmsg, unix_full_pair, serve_reading, WRITES, true },
	{ "send, datagrams", SYS_sendto, call_send, unix_full_datagrams, serve_reading, WRITES, true },
	{ "sendmsg, datagrams", SYS_sendmsg, call_sendmsg, unix_full_datagrams, serve_reading, WRITES, true },
	{ "sendmmsg, datagrams", SYS_sendmmsg, call_sendmmsg, unix_full_datagrams, serve_reading, WRITES, true },
	{ "sendto, to a full one", SYS_sendto, call_sendto, unix_full_for_others, serve_reading, WRITES, true },
	{ "sendmsg, to a full one", SYS_sendmsg, call_sendmsg_to, unix_full_for_others, serve_reading, WRITES, true },
	{ "sendmmsg, to a full one", SYS_sendmmsg, call_sendmmsg_to, unix_full_for_others, serve_reading, WRITES, true },
};

static const struct call THROTTLED[] = {
	{ "send, throttled", SYS_sendto, call_send, throttled, NULL, WRITES, false },
	{ "sendto, throttled", SYS_sendto, call_sendto, throttled, NULL, WRITES, false },
	{ "sendmsg, throttled", SYS_sendmsg, call_sendmsg, throttled, NULL, WRITES, false },
	{ "sendmsg, throttled, named", SYS_sendmsg, call_sendmsg_to, throttled, NULL, WRITES, false },
	{ "sendmmsg, throttled", SYS_sendmmsg, call_sendmmsg, throttled, NULL, WRITES, false },
};

static const struct call *current;

/* The caller. */

static void handler(int number)
{
	if (number == SIGUSR1)
		shared->restarted++;
	else
		shared->handled++;
}

static void *caller(void *unused)
{
	double start = now();
	long value;

	(void)unused;
	shared->tid = syscall(SYS_gettid);
	value = current->call();
	shared->error = errno, shared->value = value;
	shared->took = now() - start;
	shared->done = true;
	return NULL;
}

enum how { ALONE, ALARMED, CANCELLED, IN_A_THREAD };

static void limit(int flags, int ms)
{
	struct timeval value = { ms / 1000, ms % 1000 * 1000 };

	if (flags & (READS | WRITES) &&
	    setsockopt(it.s, SOL_SOCKET, flags & READS ? SO_RCVTIMEO : SO_SNDTIMEO, &value, sizeof value))
		die("a time-out");
}

static int control[2];

static pid_t start(enum how how)
{
	pid_t pid;

	*shared = (struct shared){ 0 };
	if (pipe(control))
		die("pipe");
	if ((pid = fork()))
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigaction(SIGUSR1, &(struct sigaction){ .sa_handler = handler, .sa_flags = SA_RESTART }, NULL);
	sigaction(SIGUSR2, &(struct sigaction){ .sa_handler = handler }, NULL);
	sigaction(SIGALRM, &(struct sigaction){ .sa_handler = handler }, NULL);
	signal(SIGWINCH, SIG_DFL);
	signal(SIGHUP, SIG_IGN);
	sigset_t blocked;
	sigemptyset(&blocked), sigaddset(&blocked, SIGTERM), sigprocmask(SIG_BLOCK, &blocked, NULL);
	if (how == ALONE) {
		caller(NULL);
	} else if (how == ALARMED) {
		/* Again, as the first may come before the call. */
		setitimer(ITIMER_REAL, &(struct itimerval){ { 0, 30000 }, { 0, 30000 } }, NULL);
		caller(NULL);
	} else {
		pthread_t thread;
		void *end;

		pthread_create(&thread, NULL, caller, NULL);
		while (read(control[0], &(char){ 0 }, 1) < 0)
			;
		if (how == CANCELLED)
			pthread_cancel(thread);
		pthread_join(thread, &end);
		shared->cancelled = end == PTHREAD_CANCELED;
	}
	_exit(0);
}

/* The observer. */

/* Whether the thread waits in the call: the number of its system call, and that it sleeps. Who waits for an answer of
 * netshunt's and was hit by a signal sleeps in state D. */
static bool waits_in(pid_t pid, int tid, long number)
{
	char name[80], text[512] = "", *state;
	FILE *file;
	int n;

	if (!tid)
		return false;
	snprintf(name, sizeof name, "/proc/%d/task/%d/syscall", pid, tid);
	if (!(file = fopen(name, "r")))
		return false;
	n = fread(text, 1, sizeof text - 1, file);
	fclose(file);
	/* After a stop, poll(2) goes on by another number. */
	if (n <= 0 || strncmp(text, "running", 7) == 0 ||
	    (atol(text) != number && atol(text) != SYS_restart_syscall))
		return false;
	snprintf(name, sizeof name, "/proc/%d/task/%d/stat", pid, tid);
	if (!(file = fopen(name, "r")))
		return false;
	n = fread(text, 1, sizeof text - 1, file), text[n > 0 ? n : 0] = 0;
	fclose(file);
	state = strrchr(text, ')');
	return state && strchr("SD", state[2]);
}

static bool is_waiting(pid_t pid)
{
	return waits_in(pid, shared->tid, current->number);
}

static char state_of(pid_t pid)
{
	char name[80], text[512] = "", *state;
	FILE *file;
	int n;

	snprintf(name, sizeof name, "/proc/%d/stat", pid);
	if (!(file = fopen(name, "r")))
		return 0;
	n = fread(text, 1, sizeof text - 1, file), text[n > 0 ? n : 0] = 0;
	fclose(file);
	state = strrchr(text, ')');
	return state ? state[2] : 0;
}

static const char *stuck;

/* Waits for the condition, or for the call's end. */
#define UNTIL(pid, condition) \
	do { \
		double until_ = now() + SOON_S; \
		while (!(condition) && !shared->done) { \
			if (now() > until_) { \
				stuck = "never " #condition; \
				break; \
			} \
			usleep(1000); \
		} \
	} while (0)

static void waits(pid_t pid)
{
	UNTIL(pid, is_waiting(pid));
}

static void hit(pid_t pid, int number)
{
	syscall(SYS_tgkill, pid, shared->tid, number);
}

static void say(const char *what)
{
	char line[512], where[64], value[64];
	const char *kind = current->unix_only ? "unix" : family == AF_INET ? "v4" : "v6";
	int n;

	snprintf(where, sizeof where, "%s %s", kind, current->name);
	if (!shared->done)
		snprintf(value, sizeof value, "%s", shared->cancelled ? "cancelled" : "no return");
	else if (shared->value < 0)
		snprintf(value, sizeof value, "%s", strerrorname_np(shared->error));
	else if (current->flags & COUNTS || current->number == SYS_accept || current->number == SYS_accept4)
		snprintf(value, sizeof value, "ok");
	else
		snprintf(value, sizeof value, "%ld", shared->value);
	n = snprintf(line, sizeof line, "%s: %s=%s, handlers %d %d%s%s\n", where, what, value, shared->restarted,
		     shared->handled, stuck ? ", " : "", stuck ? stuck : "");
	if (write(1, line, n) != n)
		exit(1);
	stuck = NULL;
}

static int end(pid_t pid)
{
	int status = 0;
	double until = now() + SOON_S;

	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (now() > until) {
			stuck = "does not end";
			kill(pid, SIGKILL);
			waitpid(pid, &status, 0);
			break;
		}
		usleep(1000);
	}
	close(control[0]), close(control[1]);
	return status;
}

/* What may happen. */

static void interrupted(void)
{
	pid_t pid = start(ALONE);

	waits(pid), kill(pid, SIGUSR2), end(pid), say("signal");
}

static void restarted(void)
{
	pid_t pid = start(ALONE);

	waits(pid), kill(pid, SIGUSR1);
	UNTIL(pid, shared->restarted == 1 && is_waiting(pid));
	kill(pid, SIGUSR2), end(pid), say("signal, restarted, and another");
}

static void restarted_often(void)
{
	pid_t pid = start(ALONE);

	for (int i = 1; i <= 5 && !stuck; i++) {
		waits(pid), hit(pid, SIGUSR1);
		UNTIL(pid, shared->restarted == i && is_waiting(pid));
	}
	hit(pid, SIGUSR2), end(pid), say("five signals, and another");
}

static void served(void)
{
	pid_t pid = start(ALONE);

	waits(pid), kill(pid, SIGUSR1);
	UNTIL(pid, shared->restarted == 1 && is_waiting(pid));
	current->serve(), end(pid), say("signal, restarted, and served");
}

/* Another's shutdown(2) of what the call waits for, which is how programs end a thread that receives. */
static void shut(int how, const char *what)
{
	pid_t pid = start(ALONE);

	waits(pid), shutdown(it.s, how);
	UNTIL(pid, shared->done);
	if (stuck)
		kill(pid, SIGUSR2), stuck = NULL;
	end(pid), say(what);
}

static void shut_for_reading(void)
{
	shut(SHUT_RD, "shut down for reading");
}

static void shut_altogether(void)
{
	shut(SHUT_RDWR, "shut down");
}

static void stopped(void)
{
	pid_t pid = start(ALONE);

	for (int i = 0; i < 2; i++) {
		waits(pid), kill(pid, SIGSTOP);
		UNTIL(pid, state_of(pid) == 'T');
		kill(pid, SIGCONT);
	}
	waits(pid), kill(pid, SIGUSR2), end(pid), say("stopped, continued, signal");
}

static void stopped_and_served(void)
{
	pid_t pid = start(ALONE);

	waits(pid), kill(pid, SIGSTOP);
	UNTIL(pid, state_of(pid) == 'T');
	current->serve(), kill(pid, SIGCONT), end(pid), say("stopped, served, continued");
}

static void ignored(void)
{
	pid_t pid = start(ALONE);

	waits(pid), kill(pid, SIGHUP), kill(pid, SIGWINCH), kill(pid, SIGTERM), kill(pid, SIGCONT);
	UNTIL(pid, is_waiting(pid));
	kill(pid, SIGUSR2), end(pid), say("ignored and blocked signals, and another");
}

static void alarmed(void)
{
	pid_t pid = start(ALARMED);

	end(pid), shared->handled = !!shared->handled, say("alarm");
}

static void killed(void)
{
	pid_t pid = start(ALONE);
	int status;

	waits(pid), kill(pid, SIGKILL), status = end(pid);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		stuck = "not killed";
	say("killed");
}

static void cancelled(void)
{
	pid_t pid = start(CANCELLED);

	waits(pid);
	if (write(control[1], "x", 1) != 1)
		die("write");
	end(pid), say("cancelled");
}

static void thread_hit(void)
{
	pid_t pid = start(IN_A_THREAD);

	/* The leader takes what is for the process; the other waits on. */
	UNTIL(pid, waits_in(pid, pid, SYS_read));
	waits(pid), kill(pid, SIGUSR2);
	UNTIL(pid, shared->handled == 1);
	waits(pid), hit(pid, SIGUSR1);
	UNTIL(pid, shared->restarted == 1 && is_waiting(pid));
	hit(pid, SIGUSR2);
	UNTIL(pid, shared->done);
	if (write(control[1], "x", 1) != 1)
		die("write");
	end(pid), say("in a thread");
}

/* With a time-out. */

static void elapsed(void)
{
	pid_t pid = start(ALONE);

	end(pid);
	if (shared->took < LIMIT_MS / 1e3 - 0.001)
		stuck = "too early";
	if (shared->took > LIMIT_MS / 1e3 + 5)
		stuck = "too late";
	say("time-out");
}

static void limited_and_signalled(void)
{
	pid_t pid = start(ALONE);

	/* A signal that comes before the call has begun to wait does not end it, and nobody can see when it has. */
	for (int i = 1; i <= 10 && !shared->done && !stuck; i++) {
		double since = now();

		UNTIL(pid, !is_waiting(pid) ? (since = now(), false) : now() - since > i * 0.02);
		kill(pid, SIGUSR1);
		UNTIL(pid, shared->restarted == i && is_waiting(pid));
	}
	end(pid), shared->restarted = !!shared->restarted, say("with a long time-out, signal, not restarted");
}

static void limited_and_stopped(void)
{
	pid_t pid = start(ALONE);

	waits(pid), kill(pid, SIGSTOP);
	UNTIL(pid, state_of(pid) == 'T');
	kill(pid, SIGCONT);
	/* Whatever waits on is ended. */
	UNTIL(pid, is_waiting(pid));
	kill(pid, SIGUSR2), end(pid), shared->handled = 0, say("with a long time-out, stopped and continued");
}

static void limited_and_ignored(void)
{
	pid_t pid = start(ALONE);

	waits(pid), kill(pid, SIGHUP), kill(pid, SIGWINCH), kill(pid, SIGTERM);
	end(pid), say("with a time-out, ignored signals");
}

/* What the last case left: natively, what ended a recvmmsg(2) of several is the socket's error then. */
static void forget(void)
{
	int error;
	socklen_t len = sizeof error;

	if (!(current->flags & SERVED))
		return;
	while (getsockopt(it.s, SOL_SOCKET, SO_ERROR, &error, &len), recv(it.s, &(char[64]){ 0 }, 64, MSG_DONTWAIT) >= 0)
		;
}

static void ask(const struct call *call)
{
	pid_t pid = fork();

	if (pid)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	current = call;
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	current->place();
	/* Where the first is taken before the call waits, it is there each time. */
#define CASE(happens) \
	do { \
		forget(); \
		if (current->flags & SERVED) { \
			current->serve(); \
			poll(&(struct pollfd){ .fd = it.s, .events = POLLIN }, 1, SOON_S * 1000); \
		} \
		happens(); \
	} while (0)
	CASE(interrupted);
	CASE(restarted);
	CASE(restarted_often);
	CASE(stopped);
	CASE(ignored);
	CASE(alarmed);
	CASE(killed);
	CASE(cancelled);
	CASE(thread_hit);
	if (current->flags & (READS | WRITES)) {
		limit(current->flags, LIMIT_MS);
		CASE(elapsed);
		if (current->number != SYS_connect || current->unix_only)
			CASE(limited_and_ignored);
		limit(current->flags, SOON_S * 3000);
		CASE(limited_and_signalled);
		CASE(limited_and_stopped);
		limit(current->flags, 0);
	}
	if (current->serve) {
		CASE(stopped_and_served);
		/* Another place: what served the last would serve this one at once. */
		if (current->unix_only || !(current->flags & COUNTS)) {
			if (current->unix_only)
				unlink(((struct sockaddr_un *)&it.to.bytes)->sun_path);
			current->place();
			CASE(served);
		}
	}
	/* Nothing more can be asked of what was shut down. Natively a send of datagrams waits on, here not always. */
	for (int i = 0; i < 2; i++) {
		if (current->flags & WRITES && (current->unix_only || current->place == throttled))
			break;
		if (current->unix_only)
			unlink(((struct sockaddr_un *)&it.to.bytes)->sun_path);
		current->place();
		if (i)
			CASE(shut_altogether);
		else
			CASE(shut_for_reading);
	}
	if (current->unix_only)
		unlink(((struct sockaddr_un *)&it.to.bytes)->sun_path);
	_exit(0);
}

/* The far side: buffers as small as may be, and not a word. */
static void hold(int port)
{
	int s = socket(AF_INET6, SOCK_STREAM, 0);
	struct address any = address(AF_INET6, "::", port);

	set(s, SO_REUSEADDR, 1), set(s, SO_RCVBUF, 1);
	if (bind(s, (void *)&any.bytes, any.len) || listen(s, 1000))
		die("listen");
	puts("ready"), fflush(stdout);
	while (accept(s, NULL, NULL) >= 0)
		;
}

int main(int argc, char **argv)
{
	int running = 0, failed = 0, status;

	if (argc == 3)
		return hold(atoi(argv[2])), 1;
	setvbuf(stdout, NULL, _IONBF, 0);
	if (argc == 4) {
		family = AF_INET, far_side = address(family, argv[3], atoi(argv[2]));
		for (size_t i = 0; i < sizeof THROTTLED / sizeof *THROTTLED; i++)
			ask(&THROTTLED[i]);
		while (wait(&status) > 0)
			failed += status != 0;
		return failed ? 1 : 0;
	}
	if (argc != 6)
		return 2;
	far_port = atoi(argv[1]);
	for (int v6 = 0; v6 <= 1; v6++) {
		family = v6 ? AF_INET6 : AF_INET;
		far_side = address(family, argv[2 + v6], far_port), silent = address(family, argv[4 + v6], far_port);
		for (size_t i = 0; i < sizeof CALLS / sizeof *CALLS; i++) {
			if (v6 && CALLS[i].unix_only)
				continue;
			if (running++ >= AT_ONCE)
				wait(&status), failed += status != 0;
			ask(&CALLS[i]);
		}
	}
	while (wait(&status) > 0)
		failed += status != 0;
	return failed ? 1 : 0;
}
