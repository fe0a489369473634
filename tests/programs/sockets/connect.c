// SPDX-License-Identifier: MIT OR Apache-2.0
/* What connect(2) looks like from inside: connect OUTCOME PORT ADDRESS4 ADDRESS6.
 *
 * Every way to connect, by every family, each in a process of its own and all at once. Prints lines
 * "FAMILY WAY: WHAT=VALUE" that depend on nothing but how connections behave, so that the output of
 * two runs can be compared. OUTCOME is what the destination is like; it selects the ways that make
 * sense, and is otherwise not looked at:
 *
 *   answer  connects at once and echoes          late    says nothing until "pending" is printed
 *   fail    fails by itself, at once or later    silent  never says anything
 *   reset   resets upon the first byte           abrupt  resets as soon as it has accepted
 *   rare    fails, and must not be asked often
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { QUIET_MS = 300, TIMEOUT_MS = 200, SIGNAL_MS = 100, LAST_MS = 15000 };

static const char *outcome, *family, *way;
static struct sockaddr_storage target;
static socklen_t target_len;
static FILE *out;
static int ready[2];
static volatile sig_atomic_t signals;

static bool is(const char *name)
{
	return strcmp(outcome, name) == 0;
}

/* Nothing comes for a while. */
static bool waits(void)
{
	return is("late") || is("silent");
}

__attribute__((format(printf, 2, 3))) static void say(const char *what, const char *format, ...)
{
	va_list values;

	fprintf(out, "%s %s: %s=", family, way, what);
	va_start(values, format);
	vfprintf(out, format, values);
	va_end(values);
	fputc('\n', out);
}

static const char *name(int error)
{
	return error ? strerrorname_np(error) : "0";
}

static const char *result(long value)
{
	return value < 0 ? name(errno) : "0";
}

static double now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec + at.tv_nsec / 1e9;
}

static void tell_parent(void)
{
	if (write(ready[1], "x", 1) != 1)
		abort();
}

static void on_signal(int number)
{
	(void)number;
	/* Only the first one counts: a restarted call may be hit again. */
	if (signals++ == 0 && waits())
		tell_parent();
}

static int fresh(bool nonblocking)
{
	int one = 1;
	int fd = socket(target.ss_family, SOCK_STREAM | (nonblocking ? SOCK_NONBLOCK : 0), 0);

	if (fd < 0) {
		say("socket", "%s", name(errno));
		return -1;
	}
	/* One retransmission, three seconds: silence need not take minutes. */
	if (is("silent") || is("fail") || is("rare"))
		setsockopt(fd, IPPROTO_TCP, TCP_SYNCNT, &one, sizeof(one));
	return fd;
}

static int attempt(int fd)
{
	return connect(fd, (struct sockaddr *)&target, target_len);
}

static const char *so_error(int fd)
{
	int error = -1;
	socklen_t len = sizeof(error);

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		return "(none)";
	return name(error);
}

static const char *events(unsigned mask)
{
	static char text[64];

	/* EPOLL* have the same values. */
	snprintf(text, sizeof(text), "%s%s%s%s%s%s", mask & POLLIN ? "IN " : "", mask & POLLPRI ? "PRI " : "",
		 mask & POLLOUT ? "OUT " : "", mask & POLLRDHUP ? "RDHUP " : "",
		 mask & POLLERR ? "ERR " : "", mask & POLLHUP ? "HUP " : "");
	return *text ? text : "none";
}

static unsigned poll_for(int fd, int wanted, int ms)
{
	struct pollfd entry = { .fd = fd, .events = wanted };

	while (poll(&entry, 1, ms) < 0 && errno == EINTR)
		;
	return entry.revents;
}

static unsigned polled(int fd, int ms)
{
	return poll_for(fd, POLLIN | POLLPRI | POLLOUT | POLLRDHUP, ms);
}

/* The events of a reset, which is an error first and the end a moment later (tcp_reset()): with or
 * without netshunt a poll on another processor may fall between the two. */
static unsigned poll_reset(int fd)
{
	unsigned seen;

	do
		seen = poll_for(fd, 0, LAST_MS);
	while (seen == POLLERR);
	return seen;
}

/* The events of an attempt's outcome. One that fails is an error first and the end a little later: a poll on
 * another processor may fall between, and edge-triggered it hears of both. Natively it could as well, if it
 * began just then; netshunt takes two calls for it, 15 us apart, and wakes whoever polls after the first.
 * What is compared is what it comes to. */
static unsigned settled(int fd, unsigned (*wait_for)(int, int))
{
	unsigned seen = wait_for(fd, LAST_MS), now_seen;
	double until = now() + 1;

	if (!is("fail") && !is("rare") && !is("silent"))
		return seen;
	do
		now_seen = polled(fd, 0);
	while ((~now_seen & (POLLIN | POLLHUP)) && now() < until);
	return seen | wait_for(fd, 0);
}

/* An address, without what differs from network to network. */
static const char *shape(const struct sockaddr_storage *at, socklen_t len)
{
	static char text[128];
	const struct sockaddr_in6 *six = (const void *)at;
	const struct sockaddr_in *four = (const void *)at;
	const char *kind = "own";
	in_port_t port = four->sin_port;

	if (at->ss_family == AF_INET6) {
		struct in_addr tail;

		memcpy(&tail, &six->sin6_addr.s6_addr[12], 4);
		if (IN6_IS_ADDR_UNSPECIFIED(&six->sin6_addr))
			kind = "any";
		else if (IN6_IS_ADDR_LOOPBACK(&six->sin6_addr))
			kind = "loopback";
		else if (IN6_IS_ADDR_V4MAPPED(&six->sin6_addr))
			kind = ntohl(tail.s_addr) >> 24 == 127 ? "mapped loopback" : "mapped own";
	} else if (four->sin_addr.s_addr == INADDR_ANY) {
		kind = "any";
	} else if (ntohl(four->sin_addr.s_addr) >> 24 == 127) {
		kind = "loopback";
	}
	snprintf(text, sizeof(text), "family %d, %d bytes, %s, port %s%s", at->ss_family, len, kind,
		 port ? "some" : "0",
		 at->ss_family == AF_INET6 && (six->sin6_flowinfo || six->sin6_scope_id) ? ", extras" : "");
	return text;
}

static void names(int fd, const char *when)
{
	struct sockaddr_storage at = { 0 };
	socklen_t len = sizeof(at);
	char what[64];

	snprintf(what, sizeof(what), "getsockname %s", when);
	say(what, "%s", getsockname(fd, (struct sockaddr *)&at, &len) < 0 ? name(errno) : shape(&at, len));
	memset(&at, 0, sizeof(at));
	len = sizeof(at);
	snprintf(what, sizeof(what), "getpeername %s", when);
	if (getpeername(fd, (struct sockaddr *)&at, &len) < 0)
		say(what, "%s", name(errno));
	else
		say(what, "%s", len == target_len && !memcmp(&at, &target, len) ? "the target" : "another");
}

static void talk(int fd)
{
	char word[8] = "";
	int flags = fcntl(fd, F_GETFL);
	struct timeval limit = { .tv_sec = 20 };

	fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	say("send", "%s", result(send(fd, "word", 4, MSG_NOSIGNAL)));
	if (is("reset"))
		say("events of the reset", "%s", events(poll_reset(fd)));
	say("recv", "%s %s", result(recv(fd, word, 4, MSG_WAITALL)), word);
	say("recv again", "%s", is("reset") ? result(recv(fd, word, 4, 0)) : "-");
	say("send again", "%s", is("reset") ? result(send(fd, "word", 4, MSG_NOSIGNAL)) : "-");
	say("SO_ERROR at the end", "%s", so_error(fd));
	say("shutdown", "%s", result(shutdown(fd, SHUT_WR)));
	say("recv at the end", "%s", result(recv(fd, word, 4, 0)));
	say("events at the end", "%s", events(polled(fd, 0)));
	fcntl(fd, F_SETFL, flags);
}

/* Once the outcome is known: what is left to see. */
static void afterwards(int fd)
{
	say("SO_ERROR", "%s", so_error(fd));
	say("SO_ERROR again", "%s", so_error(fd));
	say("events afterwards", "%s", events(polled(fd, 0)));
	names(fd, "afterwards");
	talk(fd);
}

static void while_pending(int fd)
{
	say("SO_ERROR while pending", "%s", so_error(fd));
	names(fd, "while pending");
	say("send while pending", "%s", result(send(fd, "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL)));
	say("recv while pending", "%s", result(recv(fd, (char[1]){ 0 }, 1, MSG_DONTWAIT)));
}

/* --- blocking ------------------------------------------------------------------------------ */

static void blocking(void)
{
	int fd = fresh(false);
	double start = now();

	say("connect", "%s", result(attempt(fd)));
	/* The retransmission makes it three seconds; leave a loaded machine some room. */
	if (is("silent"))
		say("took", "%s", now() - start > 2 && now() - start < 15 ? "some seconds" : "another time");
	if (is("answer") || is("late"))
		say("connect again", "%s", result(attempt(fd)));
	afterwards(fd);
}

/* Three attempts on one socket. */
static void blocking_again(void)
{
	static const char *const each[] = { "connect", "connect twice", "connect thrice" };
	int fd = fresh(false);

	for (int i = 0; i < 3; i++)
		say(each[i], "%s", result(attempt(fd)));
	afterwards(fd);
}

static void sndtimeo(void)
{
	struct timeval limit = { .tv_usec = TIMEOUT_MS * 1000 };
	int fd = fresh(false);

	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	say("connect", "%s", result(attempt(fd)));
	if (waits()) {
		say("events while pending", "%s", events(polled(fd, 0)));
		say("connect while pending", "%s", result(attempt(fd)));
		while_pending(fd);
		tell_parent();
		say("events", "%s", events(settled(fd, polled)));
		say("connect again", "%s", result(attempt(fd)));
	}
	afterwards(fd);
}

static void with_signal(int flags)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = flags };
	struct itimerval soon = { .it_value = { .tv_usec = SIGNAL_MS * 1000 } };
	int fd = fresh(false);

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &soon, NULL);
	say("connect", "%s", result(attempt(fd)));
	say("signals during connect", "%d", signals);
	if (!(flags & SA_RESTART))
		say("connect again", "%s", result(attempt(fd)));
	afterwards(fd);
}

static void signal_interrupts(void)
{
	with_signal(0);
}

static void signal_restarts(void)
{
	with_signal(SA_RESTART);
}

static void signal_blocked(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	with_signal(SA_RESTART);
}

static void signal_ignored(void)
{
	struct itimerval soon = { .it_value = { .tv_usec = SIGNAL_MS * 1000 } };
	int fd = fresh(false);

	signal(SIGALRM, SIG_IGN);
	setitimer(ITIMER_REAL, &soon, NULL);
	say("connect", "%s", result(attempt(fd)));
	afterwards(fd);
}

/* --- non-blocking -------------------------------------------------------------------------- */

static unsigned select_wait(int fd, int ms)
{
	struct timeval limit = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };
	fd_set in, to, except;

	FD_ZERO(&in);
	FD_SET(fd, &in);
	to = except = in;
	if (select(fd + 1, &in, &to, &except, &limit) < 0)
		return 0;
	return (FD_ISSET(fd, &in) ? POLLIN : 0) | (FD_ISSET(fd, &to) ? POLLOUT : 0) |
	       (FD_ISSET(fd, &except) ? POLLPRI : 0);
}

static int set = -1;
static struct epoll_event watched = { .events = EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP };

static unsigned epoll_for(int fd, int ms)
{
	struct epoll_event event = { 0 };

	/* A new socket has events (OUT and HUP), which use up the one shot. */
	if (watched.events & EPOLLONESHOT)
		epoll_ctl(set, EPOLL_CTL_MOD, fd, &watched);
	return epoll_wait(set, &event, 1, ms) == 1 ? event.events : 0;
}

/* Registered before connect(). */
static void watch(int fd, unsigned how)
{
	watched.events |= how;
	set = epoll_create1(EPOLL_CLOEXEC);
	epoll_ctl(set, EPOLL_CTL_ADD, fd, &watched);
}

static void nonblocking(int fd, unsigned (*wait_for)(int, int))
{
	int connecting;

	say("events of a new socket", "%s", events(wait_for(fd, 0)));
	names(fd, "of a new socket");
	connecting = attempt(fd);
	say("connect", "%s", result(connecting));
	if (waits()) {
		say("events while pending", "%s", events(wait_for(fd, QUIET_MS)));
		while_pending(fd);
		say("connect while pending", "%s", result(attempt(fd)));
		say("events still", "%s", events(wait_for(fd, 0)));
		tell_parent();
	}
	if (connecting == 0 || errno == EINPROGRESS || waits())
		say("events", "%s", events(settled(fd, wait_for)));
	say("events again", "%s", events(wait_for(fd, 0)));
	afterwards(fd);
}

static void with_poll(void)
{
	nonblocking(fresh(true), polled);
}

static void with_select(void)
{
	nonblocking(fresh(true), select_wait);
}

static void with_epoll(void)
{
	int fd = fresh(true);

	watch(fd, 0);
	nonblocking(fd, epoll_for);
}

static void with_epoll_edge(void)
{
	int fd = fresh(true);

	watch(fd, EPOLLET);
	nonblocking(fd, epoll_for);
}

static void with_epoll_oneshot(void)
{
	int fd = fresh(true);

	watch(fd, EPOLLONESHOT);
	nonblocking(fd, epoll_for);
}

/* The outcome by repeated connect() instead of SO_ERROR, and then another attempt. */
static void again(void)
{
	static const char *const each[] = { "connect again", "connect after that", "and after that" };
	int fd = fresh(true);
	int connecting = attempt(fd);

	say("connect", "%s", result(connecting));
	if (waits())
		tell_parent();
	if (connecting < 0 && errno == EINPROGRESS)
		say("events", "%s", events(settled(fd, polled)));
	for (int i = 0; i < 2; i++)
		say(each[i], "%s", result(attempt(fd)));
	/* A third one would race against the second's outcome, if that has begun a new attempt. */
	say("events of that", "%s", events(settled(fd, polled)));
	say(each[2], "%s", result(attempt(fd)));
	close(fd);
}

/* connect() with AF_UNSPEC leaves a socket that connects once more. */
static void dissolved(void)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	int fd = fresh(true);

	say("connect", "%s", result(attempt(fd)));
	say("dissolve", "%s", result(connect(fd, &none, sizeof(none))));
	names(fd, "dissolved");
	say("SO_ERROR dissolved", "%s", so_error(fd));
	say("connect again", "%s", result(attempt(fd)));
	if (waits())
		tell_parent();
	say("events", "%s", events(settled(fd, polled)));
	afterwards(fd);
}

static void user_timeout(void)
{
	unsigned ms = 1500;
	int fd = fresh(true);

	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
	say("connect", "%s", result(attempt(fd)));
	tell_parent();
	say("events", "%s", events(settled(fd, polled)));
	afterwards(fd);
}

/* --- options ------------------------------------------------------------------------------- */

static const struct option {
	const char *name;
	int level, number, value;
} options[] = {
	{ "SO_KEEPALIVE", SOL_SOCKET, SO_KEEPALIVE, 1 },
	{ "SO_OOBINLINE", SOL_SOCKET, SO_OOBINLINE, 1 },
	{ "SO_PRIORITY", SOL_SOCKET, SO_PRIORITY, 4 },
	{ "SO_RCVBUF", SOL_SOCKET, SO_RCVBUF, 50000 },
	{ "SO_RCVLOWAT", SOL_SOCKET, SO_RCVLOWAT, 2 },
	{ "SO_REUSEADDR", SOL_SOCKET, SO_REUSEADDR, 1 },
	{ "SO_SNDBUF", SOL_SOCKET, SO_SNDBUF, 50000 },
	{ "SO_TIMESTAMP", SOL_SOCKET, SO_TIMESTAMP, 1 },
	{ "TCP_DEFER_ACCEPT", IPPROTO_TCP, TCP_DEFER_ACCEPT, 0 },
	{ "TCP_KEEPCNT", IPPROTO_TCP, TCP_KEEPCNT, 7 },
	{ "TCP_KEEPIDLE", IPPROTO_TCP, TCP_KEEPIDLE, 77 },
	{ "TCP_KEEPINTVL", IPPROTO_TCP, TCP_KEEPINTVL, 17 },
	{ "TCP_LINGER2", IPPROTO_TCP, TCP_LINGER2, 9 },
	{ "TCP_NODELAY", IPPROTO_TCP, TCP_NODELAY, 1 },
	{ "TCP_NOTSENT_LOWAT", IPPROTO_TCP, TCP_NOTSENT_LOWAT, 1 << 20 },
	{ "TCP_SYNCNT", IPPROTO_TCP, TCP_SYNCNT, 5 },
	{ "TCP_USER_TIMEOUT", IPPROTO_TCP, TCP_USER_TIMEOUT, 54321 },
	{ "IP_MTU_DISCOVER", IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO },
	{ "IP_RECVERR", IPPROTO_IP, IP_RECVERR, 1 },
	{ "IP_TOS", IPPROTO_IP, IP_TOS, 0x10 },
	{ "IP_TTL", IPPROTO_IP, IP_TTL, 99 },
	{ "IPV6_TCLASS", IPPROTO_IPV6, IPV6_TCLASS, 0x20 },
	{ "IPV6_UNICAST_HOPS", IPPROTO_IPV6, IPV6_UNICAST_HOPS, 98 },
	{ "IPV6_V6ONLY", IPPROTO_IPV6, IPV6_V6ONLY, 0 },
	{ "SO_ACCEPTCONN", SOL_SOCKET, SO_ACCEPTCONN, -1 },
	{ "SO_DOMAIN", SOL_SOCKET, SO_DOMAIN, -1 },
	{ "SO_PROTOCOL", SOL_SOCKET, SO_PROTOCOL, -1 },
	{ "SO_TYPE", SOL_SOCKET, SO_TYPE, -1 },
	{ "TCP_QUICKACK", IPPROTO_TCP, TCP_QUICKACK, -2 },
	{ "nonsense", IPPROTO_TCP, 9999, 1 },
};

static void show(int fd, const char *when)
{
	struct linger linger = { 0 };
	struct tcp_info info = { 0 };
	char text[32] = "", what[64];
	socklen_t len;

	for (size_t i = 0; i < sizeof(options) / sizeof(*options); i++) {
		int value = -1;

		len = sizeof(value);
		/* Whether acknowledgements are delayed is a matter of the moment. */
		if (options[i].value == -2)
			continue;
		snprintf(what, sizeof(what), "%s %s", options[i].name, when);
		if (getsockopt(fd, options[i].level, options[i].number, &value, &len) < 0)
			say(what, "%s", name(errno));
		else
			say(what, "%d (%d bytes)", value, len);
	}
	len = sizeof(linger);
	getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &len);
	snprintf(what, sizeof(what), "SO_LINGER %s", when);
	say(what, "%d, %d s", linger.l_onoff, linger.l_linger);
	len = sizeof(text);
	snprintf(what, sizeof(what), "TCP_CONGESTION %s", when);
	say(what, "%s %s", result(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, text, &len)), text);
	len = sizeof(info);
	snprintf(what, sizeof(what), "TCP_INFO %s", when);
	say(what, "%s, state %d", result(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len)), info.tcpi_state);
	/* A short buffer cuts the value and says so. */
	len = 2;
	snprintf(what, sizeof(what), "TCP_NODELAY in two bytes %s", when);
	say(what, "%s, %d bytes", result(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, text, &len)), len);
}

static void set_all(int fd, const char *when)
{
	struct linger linger = { .l_onoff = 1, .l_linger = 5 };
	char what[64];

	for (size_t i = 0; i < sizeof(options) / sizeof(*options); i++) {
		const struct option *o = &options[i];
		int value = abs(o->value);

		if (o->value == -1)
			continue;
		/* It would end the family "mapped". */
		if (o->level == IPPROTO_IPV6 && o->number == IPV6_V6ONLY)
			value = strcmp(family, "mapped") != 0;
		snprintf(what, sizeof(what), "set %s %s", o->name, when);
		say(what, "%s", result(setsockopt(fd, o->level, o->number, &value, sizeof(value))));
	}
	snprintf(what, sizeof(what), "set SO_LINGER %s", when);
	say(what, "%s", result(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger))));
	snprintf(what, sizeof(what), "set TCP_CONGESTION %s", when);
	say(what, "%s", result(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4)));
	snprintf(what, sizeof(what), "set one byte of TCP_NODELAY %s", when);
	say(what, "%s", result(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, "", 1)));
}

static void options_before(void)
{
	int fd = fresh(false);

	show(fd, "of a new socket");
	set_all(fd, "before");
	show(fd, "set before");
	say("connect", "%s", result(attempt(fd)));
	show(fd, "set before, then connected");
	talk(fd);
}

static void options_after(void)
{
	int fd = fresh(false);

	say("connect", "%s", result(attempt(fd)));
	set_all(fd, "after");
	show(fd, "set after");
	talk(fd);
}

static void options_pending(void)
{
	int fd = fresh(true);

	say("connect", "%s", result(attempt(fd)));
	set_all(fd, "while pending");
	show(fd, "set while pending");
	say("events while pending", "%s", events(polled(fd, QUIET_MS)));
	tell_parent();
	say("events", "%s", events(settled(fd, polled)));
	show(fd, "set while pending, then decided");
}

/* --- abrupt -------------------------------------------------------------------------------- */

/* Where the reset shows depends on the moment; that it shows once, and as what, does not. */
static void abrupt(bool nonblock)
{
	int fd = fresh(nonblock);
	int error = attempt(fd) < 0 && errno != EINPROGRESS ? errno : 0;
	char byte;

	if (!error) {
		say("ends", "%s", poll_reset(fd) & POLLHUP ? "yes" : "no");
		if (recv(fd, &byte, 1, MSG_DONTWAIT) < 0)
			error = errno;
	} else {
		say("ends", "yes");
	}
	say("reset", "%s", name(error));
	say("SO_ERROR", "%s", so_error(fd));
}

static void abrupt_blocking(void)
{
	abrupt(false);
}

static void abrupt_nonblocking(void)
{
	abrupt(true);
}

/* ------------------------------------------------------------------------------------------- */

enum { ANSWER = 1, FAIL = 2, LATE = 4, SILENT = 8, RESET = 16, ABRUPT = 32, RARE = 64, ALL = 31 };

static const struct way {
	const char *name;
	void (*run)(void);
	int outcomes;
	/* Tells the parent when it knows that nothing has come. */
	bool tells;
} ways[] = {
	{ "abrupt-blocking", abrupt_blocking, ABRUPT, false },
	{ "abrupt-nonblocking", abrupt_nonblocking, ABRUPT, false },
	{ "again", again, ANSWER | FAIL | LATE | SILENT, true },
	{ "blocking", blocking, ALL | RARE, false },
	{ "blocking-again", blocking_again, ANSWER | FAIL, false },
	{ "dissolved", dissolved, LATE | SILENT, true },
	{ "epoll", with_epoll, ALL, true },
	{ "epoll-edge", with_epoll_edge, ALL, true },
	{ "epoll-oneshot", with_epoll_oneshot, ALL, true },
	{ "options-after", options_after, ANSWER, false },
	{ "options-before", options_before, ANSWER, false },
	{ "options-pending", options_pending, LATE, true },
	{ "poll", with_poll, ALL, true },
	{ "select", with_select, ALL, true },
	{ "signal", signal_interrupts, LATE | SILENT, true },
	{ "signal-blocked", signal_blocked, LATE | SILENT, false },
	{ "signal-ignored", signal_ignored, LATE | SILENT, false },
	{ "signal-restart", signal_restarts, LATE | SILENT, true },
	{ "sndtimeo", sndtimeo, ANSWER | LATE | SILENT | RESET, true },
	{ "user-timeout", user_timeout, SILENT, true },
};

static int outcome_bit(void)
{
	static const char *const known[] = { "answer", "fail", "late", "silent", "reset", "abrupt", "rare" };

	for (int i = 0; i < 7; i++)
		if (is(known[i]))
			return 1 << i;
	fprintf(stderr, "no outcome %s\n", outcome);
	exit(2);
}

static void aim(char **argv, int which)
{
	struct sockaddr_in *four = (struct sockaddr_in *)&target;
	struct sockaddr_in6 *six = (struct sockaddr_in6 *)&target;
	char mapped[64];

	memset(&target, 0, sizeof(target));
	family = (const char *[]){ "v4", "v6", "mapped" }[which];
	if (which == 0) {
		target_len = sizeof(*four);
		four->sin_family = AF_INET;
		four->sin_port = htons(atoi(argv[2]));
		inet_pton(AF_INET, argv[3], &four->sin_addr);
		return;
	}
	target_len = sizeof(*six);
	six->sin6_family = AF_INET6;
	six->sin6_port = htons(atoi(argv[2]));
	snprintf(mapped, sizeof(mapped), "::ffff:%s", argv[3]);
	inet_pton(AF_INET6, which == 1 ? argv[4] : mapped, &six->sin6_addr);
}

static void child(const struct way *one)
{
	char *text = NULL;
	size_t size = 0;

	way = one->name;
	out = open_memstream(&text, &size);
	one->run();
	fclose(out);
	/* In one piece, between those of the others. */
	_exit(write(STDOUT_FILENO, text, size) == (ssize_t)size ? 0 : 1);
}

int main(int argc, char **argv)
{
	int told = 0, children = 0, failed = 0, status;
	char byte;

	if (argc != 5)
		return 2;
	outcome = argv[1];
	if (pipe(ready) < 0)
		return 1;
	for (int which = 0; which < 3; which++) {
		aim(argv, which);
		for (size_t i = 0; i < sizeof(ways) / sizeof(*ways); i++) {
			if (!(ways[i].outcomes & outcome_bit()))
				continue;
			if (fork() == 0)
				child(&ways[i]);
			children++;
			told += ways[i].tells && waits();
		}
	}
	/* One that fails early does not tell: its end of the pipe goes with it. */
	close(ready[1]);
	while (told-- > 0 && read(ready[0], &byte, 1) == 1)
		;
	if (waits() && write(STDOUT_FILENO, "pending\n", 8) != 8)
		return 1;
	while (children-- > 0) {
		wait(&status);
		failed += status != 0;
	}
	return failed ? 1 : 0;
}
