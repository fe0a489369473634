// SPDX-License-Identifier: MIT OR Apache-2.0
/* What bind(2), listen(2) and accept(2) look like from inside, each case by each family, client and server in one
 * program over the loopback. Prints lines "FAMILY CASE: WHAT=VALUE" that depend on nothing but how servers behave, so
 * that the output of two runs can be compared. Port numbers are told only as far as they are a program's own.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sockets.h"

enum { SOON_MS = 5000, QUIET_MS = 100, SIGNAL_MS = 100 };

static int family;
static const char *test;

__attribute__((format(printf, 2, 3))) static void say(const char *what, const char *format, ...)
{
	va_list values;

	printf("%s %s: %s=", family == AF_INET ? "v4" : "v6", test, what);
	va_start(values, format);
	vprintf(format, values);
	va_end(values);
	putchar('\n');
}

static const char *result(long value)
{
	return value < 0 ? strerrorname_np(errno) : "ok";
}

static struct address loopback(int port)
{
	return address(family, family == AF_INET ? "127.0.0.1" : "::1", port);
}

static struct address any(int port)
{
	return address(family, family == AF_INET ? "0.0.0.0" : "::", port);
}

static int port_of(const struct address *a)
{
	return ntohs(((const struct sockaddr_in *)&a->bytes)->sin_port);
}

static struct address local(int s)
{
	struct address a = { .len = sizeof a.bytes };

	if (getsockname(s, (void *)&a.bytes, &a.len))
		a.len = 0;
	return a;
}

/* An address without its port, unless that is 0. */
static const char *text(const struct address *a)
{
	static char shown[4][80];
	static int n;
	char ip[INET6_ADDRSTRLEN] = "?";
	char *into = shown[n++ % 4];

	if (a->bytes.ss_family == AF_INET)
		inet_ntop(AF_INET, &((const struct sockaddr_in *)&a->bytes)->sin_addr, ip, sizeof ip);
	else if (a->bytes.ss_family == AF_INET6)
		inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)&a->bytes)->sin6_addr, ip, sizeof ip);
	snprintf(into, 80, "%s %s, %u bytes", ip, port_of(a) ? "some port" : "port 0", a->len);
	return into;
}

static int tcp(int flags)
{
	return socket(family, SOCK_STREAM | flags, 0);
}

static long option(int s, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof value;

	return getsockopt(s, level, name, &value, &len) ? -errno : value;
}

static int set(int s, int level, int name, int value)
{
	return setsockopt(s, level, name, &value, sizeof value);
}

static int bind_to(int s, struct address a)
{
	return bind(s, (void *)&a.bytes, a.len);
}

static int connect_to(int s, struct address a)
{
	return connect(s, (void *)&a.bytes, a.len);
}

/* A listener on a port of the kernel's choice, and that port. */
static int listener(int flags, int *port)
{
	int s = tcp(flags);
	struct address a;

	if (bind_to(s, any(0)) || listen(s, 16)) {
		say("no listener", "%s", strerrorname_np(errno));
		exit(1);
	}
	a = local(s);
	*port = port_of(&a);
	return s;
}

static int client(int port)
{
	int s = tcp(0);

	if (connect_to(s, loopback(port))) {
		say("no client", "%s", strerrorname_np(errno));
		exit(1);
	}
	return s;
}

/* What poll(2) says, waiting for the first event if `ms` says so. */
static const char *events(int s, int ms)
{
	static char shown[64];
	struct pollfd p = { .fd = s, .events = POLLIN | POLLOUT | POLLRDHUP };

	poll(&p, 1, ms);
	snprintf(shown, sizeof shown, "%s%s%s%s%s", p.revents & POLLIN ? "IN " : "", p.revents & POLLOUT ? "OUT " : "",
		 p.revents & POLLRDHUP ? "RDHUP " : "", p.revents & POLLERR ? "ERR " : "",
		 p.revents & POLLHUP ? "HUP " : "");
	return shown;
}

static bool readable(int s, int ms)
{
	struct pollfd p = { .fd = s, .events = POLLIN };

	return poll(&p, 1, ms) == 1;
}

static const char *received(int s)
{
	static char shown[64];
	char data[32];
	ssize_t n = readable(s, SOON_MS) ? recv(s, data, sizeof data - 1, 0) : (errno = ETIME, -1);

	if (n < 0)
		return strerrorname_np(errno);
	data[n] = 0;
	snprintf(shown, sizeof shown, "%zd <%s>", n, data);
	return shown;
}

static void nothing(int number)
{
	(void)number;
}

static void binding(void)
{
	struct address a = loopback(0), short_one = a, other = address(family == AF_INET ? AF_INET6 : AF_INET, "", 0);
	int s = tcp(0), t = tcp(0), port;

	say("unbound", "%s", text(&(struct address[]){ local(s) }[0]));
	short_one.len -= family == AF_INET ? 1 : 5;
	say("too short", "%s", result(bind_to(s, short_one)));
	say("too long", "%s", result(bind(s, (void *)&a.bytes, 200)));
	say("negative", "%s", result(bind(s, (void *)&a.bytes, -1)));
	say("bad pointer", "%s", result(bind(s, (void *)8, a.len)));
	say("other family", "%s", result(bind_to(s, other)));
	say("of nobody", "%s", result(bind_to(s, address(family, family == AF_INET ? "203.0.113.9" : "2001:db8:9::9", 0))));
	say("multicast", "%s", result(bind_to(tcp(0), address(family, family == AF_INET ? "224.0.0.9" : "ff02::9", 0))));
	say("bad descriptor", "%s", result(bind(-1, (void *)&a.bytes, a.len)));
	say("no socket", "%s", result(bind(0, (void *)&a.bytes, a.len)));
	say("bind", "%s", result(bind_to(s, a)));
	a = local(s);
	port = port_of(&a);
	say("name", "%s", text(&a));
	say("again", "%s", result(bind_to(s, loopback(0))));
	say("events", "%s", events(s, 0));
	say("taken", "%s", result(bind_to(t, loopback(port))));
	say("taken by any", "%s", result(bind_to(t, any(port))));
	say("no listener", "%s", result(connect_to(tcp(0), loopback(port))));
	close(s);
	close(t);
	t = tcp(0);
	say("free again", "%s", result(bind_to(t, loopback(port))));
	say("connect from there", "%s", result(connect_to(t, loopback(1))));
	say("still there", "%d", (a = local(t), port_of(&a) == port || port_of(&a) == 0));
	close(t);
}

static void sharing(void)
{
	int s = tcp(0), t = tcp(0), u = tcp(0), port;
	struct address a;

	set(s, SOL_SOCKET, SO_REUSEADDR, 1), set(t, SOL_SOCKET, SO_REUSEADDR, 1);
	bind_to(s, loopback(0));
	a = local(s), port = port_of(&a);
	say("second bind", "%s", result(bind_to(t, a)));
	say("third without", "%s", result(bind_to(u, a)));
	say("first listen", "%s", result(listen(s, 1)));
	say("second listen", "%s", result(listen(t, 1)));
	close(s), close(t), close(u);

	s = tcp(0), t = tcp(0), u = tcp(0);
	say("before", "%ld", option(s, SOL_SOCKET, SO_REUSEPORT));
	say("set", "%s", result(set(s, SOL_SOCKET, SO_REUSEPORT, 1) | set(t, SOL_SOCKET, SO_REUSEPORT, 1)));
	say("after", "%ld", option(s, SOL_SOCKET, SO_REUSEPORT));
	bind_to(s, any(port)), listen(s, 5);
	say("bound", "%ld", option(s, SOL_SOCKET, SO_REUSEPORT));
	say("with SO_REUSEPORT", "%s", result(bind_to(t, any(port)) | listen(t, 5)));
	say("without", "%s", result(bind_to(u, any(port))));
	close(t);
	/* All that is left goes to the other. */
	for (int i = 0; i < 4; i++)
		close(client(port));
	for (int i = 0; i < 4; i++)
		close(accept(s, NULL, NULL));
	say("all came", "%d", !readable(s, 0));
	close(s), close(u);

	/* A server that ends first leaves TIME_WAIT behind. */
	s = listener(0, &port), t = client(port), u = accept(s, NULL, NULL);
	close(u), received(t), close(t), close(s);
	s = tcp(0);
	say("after a connection", "%s", result(bind_to(s, any(port))));
	set(s, SOL_SOCKET, SO_REUSEADDR, 1);
	say("after a connection, SO_REUSEADDR", "%s", result(bind_to(s, any(port)) | listen(s, 5)));
	close(s);
	/* Connections that live on do not keep the port from the next server. */
	s = tcp(0), set(s, SOL_SOCKET, SO_REUSEADDR, 1), bind_to(s, any(0)), listen(s, 5);
	a = local(s), port = port_of(&a);
	t = client(port), u = accept(s, NULL, NULL);
	close(s);
	s = tcp(0), set(s, SOL_SOCKET, SO_REUSEADDR, 1);
	say("beside a connection", "%s", result(bind_to(s, any(port)) | listen(s, 5)));
	say("the connection", "%s", (send(u, "x", 1, 0), received(t)));
	close(s), close(t), close(u);

	/* Clients too may share a port, if their servers differ. */
	int servers[2], clients[2], ports[2];
	for (int i = 0; i < 2; i++) {
		servers[i] = listener(0, &ports[i]), clients[i] = tcp(0);
		set(clients[i], SOL_SOCKET, SO_REUSEADDR, 1);
	}
	say("first client", "%s", result(bind_to(clients[0], loopback(0)) | connect_to(clients[0], loopback(ports[0]))));
	a = local(clients[0]);
	say("second client", "%s", result(bind_to(clients[1], a)));
	say("connected", "%s", result(connect_to(clients[1], loopback(ports[1]))));
	for (int i = 0; i < 2; i++)
		close(servers[i]), close(clients[i]);
}

static void listening(void)
{
	struct address a, none = { .len = sizeof(sa_family_t) };
	int port, s = tcp(0);

	say("accepting unbound", "%s", result(accept(s, NULL, NULL)));
	say("SO_ACCEPTCONN", "%ld", option(s, SOL_SOCKET, SO_ACCEPTCONN));
	say("unbound", "%s", result(listen(s, 5)));
	a = local(s), port = port_of(&a);
	say("bound by itself", "%s", text(&a));
	say("connected", "%s", result(close(client(port))));
	say("SO_ACCEPTCONN then", "%ld", option(s, SOL_SOCKET, SO_ACCEPTCONN));
	close(accept(s, NULL, NULL));
	say("again", "%s", result(listen(s, 100)));
	say("negative", "%s", result(listen(s, -1)));
	say("same port", "%d", (a = local(s), port_of(&a) == port));
	say("peer", "%s", result(getpeername(s, (void *)&a.bytes, &a.len)));
	say("connect", "%s", result(connect_to(s, loopback(port))));
	say("bind", "%s", result(bind_to(s, any(0))));
	say("send", "%s", result(send(s, "x", 1, MSG_NOSIGNAL)));
	say("recv", "%s", result(recv(s, &port, 1, 0)));
	say("events", "%s", events(s, 0));
	say("SO_ERROR", "%ld", option(s, SOL_SOCKET, SO_ERROR));
	say("bad descriptor", "%s", result(listen(-1, 5)));
	say("no socket", "%s", result(listen(0, 5)));
	port = port_of(&(struct address[]){ local(s) }[0]);
	say("dissolved", "%s", result(connect_to(s, none)));
	say("then", "%s", result(connect_to(tcp(0), loopback(port))));
	say("events then", "%s", events(s, 0));
	close(s);

	int t, u;
	s = listener(0, &port), t = client(port), u = accept(s, NULL, NULL);
	say("on a connection", "%s", result(listen(t, 5)));
	say("on an accepted one", "%s", result(listen(u, 5)));
	close(s), close(t), close(u);

	/* A port that connect(2) may have taken from elsewhere is still a server's. */
	s = tcp(0), bind_to(s, loopback(0)), a = local(s);
	say("bound, then", "%s", result(listen(s, 0)));
	say("its port", "%d", port_of(&a) == port_of(&(struct address[]){ local(s) }[0]));
	close(s);
}

static void accepting(void)
{
	struct address from, to;
	int port, s = listener(SOCK_NONBLOCK, &port), t, u;
	socklen_t len;

	set(s, IPPROTO_TCP, TCP_NODELAY, 1), set(s, SOL_SOCKET, SO_KEEPALIVE, 1);
	say("nobody", "%s", result(accept(s, NULL, NULL)));
	say("bad flags", "%s", result(accept4(s, NULL, NULL, 1)));
	say("bad descriptor", "%s", result(accept(-1, NULL, NULL)));
	say("no socket", "%s", result(accept(0, NULL, NULL)));
	say("events", "%s", events(s, 0));
	t = client(port);
	say("somebody: events", "%s", events(s, SOON_MS));
	from.len = sizeof from.bytes;
	u = accept4(s, (void *)&from.bytes, &from.len, 0);
	say("accept4", "%s", result(u));
	to = local(t);
	say("from", "%s", text(&from));
	say("the client's", "%d", from.len == to.len && !memcmp(&from.bytes, &to.bytes, to.len));
	to.len = sizeof to.bytes, getpeername(u, (void *)&to.bytes, &to.len);
	say("as getpeername", "%d", from.len == to.len && !memcmp(&from.bytes, &to.bytes, to.len));
	from = local(u);
	say("at", "%s", text(&from));
	to.len = sizeof to.bytes, getpeername(t, (void *)&to.bytes, &to.len);
	say("the client's peer", "%d", from.len == to.len && !memcmp(&from.bytes, &to.bytes, to.len));
	say("flags", "%o %o", fcntl(u, F_GETFL), fcntl(u, F_GETFD));
	say("TCP_NODELAY", "%ld", option(u, IPPROTO_TCP, TCP_NODELAY));
	say("SO_KEEPALIVE", "%ld", option(u, SOL_SOCKET, SO_KEEPALIVE));
	say("SO_ACCEPTCONN", "%ld", option(u, SOL_SOCKET, SO_ACCEPTCONN));
	say("events of it", "%s", events(u, 0));
	say("sent", "%s", (send(t, "ping", 4, 0), received(u)));
	say("answered", "%s", (send(u, "pong", 4, 0), received(t)));
	shutdown(t, SHUT_WR);
	say("ended", "%s", received(u));
	say("after that", "%s", (send(u, "late", 4, 0), received(t)));
	close(u);
	say("closed", "%s", received(t));
	close(t);

	t = client(port), readable(s, SOON_MS);
	u = accept4(s, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	say("flags asked for", "%o %o", fcntl(u, F_GETFL), fcntl(u, F_GETFD));
	struct linger reset = { 1, 0 };
	setsockopt(u, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), close(u);
	say("reset", "%s", received(t));
	close(t);

	t = client(port), readable(s, SOON_MS);
	memset(&from, 0x55, sizeof from), len = 4;
	u = accept(s, (void *)&from.bytes, &len);
	say("little room", "%s, %u, %02x", result(u), len, ((unsigned char *)&from.bytes)[4]);
	close(t), close(u);
	t = client(port), readable(s, SOON_MS), len = -1;
	say("negative room", "%s", result(accept(s, (void *)&from.bytes, &len)));
	say("it is lost", "%s", (result(accept(s, NULL, NULL))));
	close(t);
	t = client(port), readable(s, SOON_MS), len = 16;
	say("bad pointer", "%s", result(accept(s, (void *)8, &len)));
	say("that is lost too", "%s", (result(accept(s, NULL, NULL))));
	say("its client", "%s", received(t));
	close(t);
	t = client(port), readable(s, SOON_MS);
	say("bad length pointer", "%s", result(accept(s, (void *)&from.bytes, (void *)8)));
	close(t);

	/* What came and went waits to be accepted all the same. */
	t = client(port), send(t, "bye", 3, 0), close(t), readable(s, SOON_MS);
	u = accept(s, NULL, NULL);
	say("gone again", "%s", result(u));
	say("what it said", "%s", received(u));
	say("and then", "%s", received(u));
	close(u);

	/* Several at once, and edges. */
	struct epoll_event event = { .events = EPOLLIN | EPOLLET };
	int e = epoll_create1(0), clients[5], count = 0;
	epoll_ctl(e, EPOLL_CTL_ADD, s, &event);
	say("epoll before", "%d", epoll_wait(e, &event, 1, QUIET_MS));
	for (int i = 0; i < 5; i++)
		clients[i] = client(port);
	say("epoll", "%d %x", epoll_wait(e, &event, 1, SOON_MS), event.events);
	while (count < 5 && readable(s, SOON_MS) && (u = accept(s, NULL, NULL)) >= 0)
		close(u), count++;
	say("accepted", "%d", count);
	say("nobody more", "%s", result(accept(s, NULL, NULL)));
	for (int i = 0; i < 5; i++)
		close(clients[i]);
	close(e), close(s);
}

static void ending(void)
{
	struct address a = { .len = sizeof a.bytes };
	int port, s = listener(0, &port), t = client(port), u;

	readable(s, SOON_MS), close(s);
	say("queued: client", "%s", received(t));
	close(t);
	/* However many wait. */
	static int crowd[400];
	int lost = 0;
	s = listener(0, &port), listen(s, 1000);
	for (int i = 0; i < 400; i++)
		crowd[i] = client(port);
	close(s);
	for (int i = 0; i < 400; i++)
		lost += !strcmp(received(crowd[i]), "ECONNRESET"), close(crowd[i]);
	say("reset of 400", "%d", lost);
	say("refused", "%s", result(connect_to(tcp(0), loopback(port))));
	s = tcp(0);
	set(s, SOL_SOCKET, SO_REUSEADDR, 1);
	say("rebound", "%s", result(bind_to(s, any(port)) | listen(s, 5)));
	/* Somebody else has it still. */
	u = dup(s), close(s);
	t = client(port);
	say("by the duplicate", "%s", result(accept(u, NULL, NULL)));
	close(t);
	say("shutdown", "%s", result(shutdown(u, SHUT_RD)));
	say("events", "%s", events(u, 0));
	say("accept then", "%s", result(accept(u, NULL, NULL)));
	say("connect then", "%s", result(connect_to(tcp(0), loopback(port))));
	close(u);

	/* Of what is written to a peer that has closed already, only the event of the reset tells. */
	s = listener(0, &port), t = client(port), u = accept(s, NULL, NULL);
	close(u);
	say("closed by the server", "%s", received(t));
	say("written then", "%s", result(send(t, "x", 1, 0)));
	struct pollfd reset = { .fd = t };
	say("reset", "%d", poll(&reset, 1, SOON_MS));
	say("events then", "%s", events(t, 0));
	close(s), close(t);

	/* No address is the loopback's, and no place to connect to twice. */
	s = listener(0, &port), t = tcp(0);
	say("connected to no address", "%s", result(connect_to(t, any(port))));
	a.len = sizeof a.bytes;
	getpeername(t, (void *)&a.bytes, &a.len);
	say("which is", "%s", text(&a));
	close(s), close(t);
	t = tcp(SOCK_NONBLOCK);
	connect_to(t, loopback(port)), readable(t, SOON_MS);
	say("SO_ERROR", "%ld", option(t, SOL_SOCKET, SO_ERROR));
	say("connected again", "%s", result(connect_to(t, loopback(port))));
	close(t);

	/* In another process. */
	s = listener(0, &port);
	pid_t child = fork();
	if (!child) {
		u = accept(s, (void *)&a.bytes, &a.len);
		send(u, "child", 5, 0);
		_exit(0);
	}
	close(s);
	t = client(port);
	say("of the child", "%s", received(t));
	waitpid(child, NULL, 0);
	say("after the child", "%s", result(connect_to(tcp(0), loopback(port))));
	s = tcp(0), set(s, SOL_SOCKET, SO_REUSEADDR, 1);
	say("after the child: bind", "%s", result(bind_to(s, any(port)) | listen(s, 5)));
	close(t), close(s);

	/* Killed while it waits. */
	s = listener(0, &port);
	child = fork();
	if (!child) {
		accept(s, NULL, NULL);
		_exit(0);
	}
	close(s);
	usleep(SIGNAL_MS * 1000);
	kill(child, SIGKILL), waitpid(child, NULL, 0);
	s = tcp(0);
	say("after a kill", "%s", result(bind_to(s, any(port)) | listen(s, 5)));
	close(s);
}

static bool pressing(int s, int ms)
{
	struct pollfd p = { .fd = s, .events = POLLPRI };

	return poll(&p, 1, ms) == 1 && p.revents & POLLPRI;
}

/* Urgent bytes (tcp(7)), both ways, in their place and beside the others. */
static void urgent(void)
{
	int port, s = listener(0, &port), c = client(port), t = accept(s, NULL, NULL);
	char byte = 0;

	for (int i = 0; i < 2; i++) {
		int from = i ? t : c, to = i ? c : t;

		send(from, "before", 6, 0), send(from, "!", 1, MSG_OOB);
		say("POLLPRI", "%d", pressing(to, SOON_MS));
		send(from, "behind", 6, 0);
		say("before it", "%s", received(to));
		say("at the mark", "%d", sockatmark(to));
		say("the byte", "%s", result(recv(to, &byte, 1, MSG_OOB)));
		say("which is", "<%c>", byte);
		say("behind it", "%s", received(to));
		say("no more", "%s", result(recv(to, &byte, 1, MSG_OOB)));

		set(to, SOL_SOCKET, SO_OOBINLINE, 1);
		send(from, "at", 2, 0), send(from, "?", 1, MSG_OOB);
		say("inline: POLLPRI", "%d", pressing(to, SOON_MS));
		say("inline: before it", "%s", received(to));
		say("inline: at the mark", "%d", sockatmark(to));
		say("inline: the byte", "%s", received(to));
		say("inline: past the mark", "%d %d", sockatmark(to), pressing(to, 0));
		say("inline: MSG_OOB", "%s", result(recv(to, &byte, 1, MSG_OOB)));
	}
	close(s), close(c), close(t);
}

/* The unspecified address as a destination is the machine itself. */
static void unspecified(void)
{
	struct address a = { .len = sizeof a.bytes };
	int port, s = listener(0, &port), c = tcp(0);

	say("connect", "%s", result(connect_to(c, any(port))));
	say("peer", "%s", getpeername(c, (void *)&a.bytes, &a.len) ? "none" : text(&a));
	a = local(c);
	say("local", "%s", text(&a));
	say("accept", "%s", result(accept(s, NULL, NULL)));
	close(c), close(s);
	say("nobody there", "%s", result(connect_to(tcp(0), any(port))));

	s = socket(family, SOCK_DGRAM, 0), bind_to(s, any(0)), a = local(s), port = port_of(&a);
	c = socket(family, SOCK_DGRAM, 0), a = any(port);
	say("datagram", "%s", result(sendto(c, "x", 1, 0, (void *)&a.bytes, a.len)));
	say("comes", "%s", received(s));
	say("datagram connect", "%s", result(connect_to(c, any(port))));
	a.len = sizeof a.bytes, getpeername(c, (void *)&a.bytes, &a.len);
	say("datagram peer", "%s", text(&a));
	close(s), close(c);
}

/* UDP-Lite (RFC 3828) among the machine's own addresses. */
static void lite(void)
{
	struct address a, from = { .len = sizeof from.bytes };
	int s = socket(family, SOCK_DGRAM, IPPROTO_UDPLITE), c = socket(family, SOCK_DGRAM, IPPROTO_UDPLITE);
	char data[16];

	say("protocol", "%ld", option(s, SOL_SOCKET, SO_PROTOCOL));
	say("bind", "%s", result(bind_to(s, loopback(0))));
	a = local(s);
	/* Options of RFC 3828, 3.1: UDPLITE_SEND_CSCOV and UDPLITE_RECV_CSCOV. */
	say("set coverage", "%s", result(set(c, IPPROTO_UDPLITE, 10, 20)));
	say("set the least coverage", "%s", result(set(s, IPPROTO_UDPLITE, 11, 20)));
	say("coverage", "%ld, %ld", option(c, IPPROTO_UDPLITE, 10), option(s, IPPROTO_UDPLITE, 11));
	say("sendto", "%s", result(sendto(c, "lite", 4, 0, (void *)&a.bytes, a.len)));
	readable(s, SOON_MS);
	say("recvfrom", "%s", result(recvfrom(s, data, sizeof data, MSG_DONTWAIT, (void *)&from.bytes, &from.len)));
	say("from", "%s", text(&from));
	close(s), close(c);
}

static int waiting_port;

static void *connect_soon(void *ms)
{
	usleep((intptr_t)ms * 1000);
	close(client(waiting_port));
	return NULL;
}

static void *shut_down_soon(void *s)
{
	usleep(SIGNAL_MS * 1000);
	shutdown((intptr_t)s, SHUT_RD);
	return NULL;
}

static void *close_soon(void *s)
{
	usleep(SIGNAL_MS * 1000);
	close((intptr_t)s);
	usleep(SIGNAL_MS * 1000);
	close(client(waiting_port));
	return NULL;
}

static void *name_soon(void *s)
{
	struct address a;
	usleep(SIGNAL_MS * 1000);
	double start = now();
	a = local((intptr_t)s);
	say("name beside it", "%s, %s", text(&a), now() - start < 0.5 ? "at once" : "late");
	close(client(waiting_port));
	return NULL;
}

static void alarm_in(int ms)
{
	struct itimerval t = { .it_value = { ms / 1000, ms % 1000 * 1000 } };
	setitimer(ITIMER_REAL, &t, NULL);
}

static const char *waited(double start, double ms)
{
	double took = (now() - start) * 1000;
	return took < ms * 0.8 ? "too early" : took > ms + 2000 ? "too late" : "in time";
}

static void waiting(void)
{
	struct timeval limit = { 0, 200000 };
	struct sigaction action = { .sa_handler = nothing };
	pthread_t thread;
	double start = now();
	int s = listener(0, &waiting_port), u;

	pthread_create(&thread, NULL, connect_soon, (void *)SIGNAL_MS);
	u = accept(s, NULL, NULL);
	say("served", "%s, %s", result(u), waited(start, SIGNAL_MS));
	close(u), pthread_join(thread, NULL);

	pthread_create(&thread, NULL, name_soon, (void *)(intptr_t)s);
	say("served beside a name", "%s", result(u = accept(s, NULL, NULL)));
	close(u), pthread_join(thread, NULL);

	sigaction(SIGALRM, &action, NULL);
	start = now(), alarm_in(SIGNAL_MS);
	say("signal", "%s, %s", result(accept(s, NULL, NULL)), waited(start, SIGNAL_MS));
	action.sa_flags = SA_RESTART;
	sigaction(SIGALRM, &action, NULL);
	pid_t child = fork();
	if (!child) {
		usleep(3 * SIGNAL_MS * 1000);
		close(client(waiting_port));
		_exit(0);
	}
	start = now(), alarm_in(SIGNAL_MS);
	say("signal and restart", "%s, %s", result(u = accept(s, NULL, NULL)), waited(start, 3 * SIGNAL_MS));
	close(u), waitpid(child, NULL, 0);

	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	start = now();
	say("time-out", "%s, %s", result(accept(s, NULL, NULL)), waited(start, 200));
	start = now(), alarm_in(SIGNAL_MS);
	say("signal before a time-out", "%s, %s", result(accept(s, NULL, NULL)), waited(start, SIGNAL_MS));
	limit.tv_usec = 0;
	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	pthread_create(&thread, NULL, shut_down_soon, (void *)(intptr_t)s);
	start = now();
	say("shut down", "%s, %s", result(accept(s, NULL, NULL)), waited(start, SIGNAL_MS));
	pthread_join(thread, NULL), close(s);

	s = listener(0, &waiting_port);
	pthread_create(&thread, NULL, close_soon, (void *)(intptr_t)s);
	say("closed meanwhile", "%s", result(u = accept(s, NULL, NULL)));
	pthread_join(thread, NULL), close(u);
	say("and refused then", "%s", result(connect_to(tcp(0), loopback(waiting_port))));

	/* Several wait; each is served. */
	int served = 0, status;
	s = listener(0, &waiting_port);
	for (int i = 0; i < 4; i++)
		if (!fork())
			_exit(accept(s, NULL, NULL) < 0);
	for (int i = 0; i < 4; i++)
		close(client(waiting_port));
	for (int i = 0; i < 4; i++)
		served += waitpid(-1, &status, 0) > 0 && status == 0;
	say("four processes", "%d", served);
	close(s);
}

static void limits(void)
{
	struct rlimit old, tight;
	int port, s = listener(SOCK_NONBLOCK, &port), t = client(port), u, lowest = dup(s);

	close(lowest);
	send(t, "still here", 10, 0), readable(s, SOON_MS);
	getrlimit(RLIMIT_NOFILE, &old);
	tight = old, tight.rlim_cur = lowest;
	setrlimit(RLIMIT_NOFILE, &tight);
	for (int i = 0; i < 3; i++)
		say("no descriptor", "%s", result(accept(s, NULL, NULL)));
	say("events", "%s", events(s, SOON_MS));
	setrlimit(RLIMIT_NOFILE, &old);
	u = accept(s, NULL, NULL);
	say("then", "%s", result(u));
	say("said", "%s", received(u));
	say("answered", "%s", (send(u, "pong", 4, 0), received(t)));
	say("nobody more", "%s", result(accept(s, NULL, NULL)));
	close(u);
	say("closed", "%s", received(t));
	close(t), close(s);
}

static void unix_domain(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX }, from;
	socklen_t len = sizeof a;
	int s = socket(AF_UNIX, SOCK_STREAM, 0), t = socket(AF_UNIX, SOCK_STREAM, 0), u, p[2];

	bind(s, (void *)&a, sizeof(sa_family_t));
	getsockname(s, (void *)&a, &len);
	say("listen", "%s", result(listen(s, 5)));
	say("connect", "%s", result(connect(t, (void *)&a, len)));
	len = sizeof from;
	u = accept4(s, (void *)&from, &len, SOCK_CLOEXEC);
	say("accept4", "%s, family %d, %u bytes, flags %o", result(u), from.sun_family, len, fcntl(u, F_GETFD));
	say("bytes", "%s", (send(t, "unix", 4, 0), received(u)));
	socketpair(AF_UNIX, SOCK_STREAM, 0, p);
	say("of a pair", "%s", result(accept(p[0], NULL, NULL)));
	close(s), close(t), close(u);
}

/* Listeners of IPv6 that take IPv4 too, or do not. */
static void both(void)
{
	struct address a = { .len = sizeof a.bytes };
	int s, t, u, port;

	if (family == AF_INET)
		return;
	s = listener(0, &port);
	say("V6ONLY", "%ld", option(s, IPPROTO_IPV6, IPV6_V6ONLY));
	t = socket(AF_INET, SOCK_STREAM, 0);
	say("by IPv4", "%s", result(connect_to(t, address(AF_INET, "127.0.0.1", port))));
	u = accept(s, (void *)&a.bytes, &a.len);
	say("from", "%s", text(&a));
	a = local(u);
	say("at", "%s", text(&a));
	a = address(AF_INET6, "::", port);
	close(t);
	t = socket(AF_INET, SOCK_STREAM, 0);
	say("IPv4 beside it", "%s", result(bind_to(t, address(AF_INET, "0.0.0.0", port))));
	close(s), close(t), close(u);

	s = tcp(0);
	say("set V6ONLY", "%s", result(set(s, IPPROTO_IPV6, IPV6_V6ONLY, 1)));
	bind_to(s, any(0)), listen(s, 5), a = local(s), port = port_of(&a);
	say("V6ONLY then", "%ld", option(s, IPPROTO_IPV6, IPV6_V6ONLY));
	say("too late", "%s", result(set(s, IPPROTO_IPV6, IPV6_V6ONLY, 0)));
	say("by IPv4 alone", "%s", result(connect_to(socket(AF_INET, SOCK_STREAM, 0), address(AF_INET, "127.0.0.1", port))));
	t = socket(AF_INET, SOCK_STREAM, 0);
	say("both beside each other", "%s", result(bind_to(t, address(AF_INET, "0.0.0.0", port)) | listen(t, 5)));
	u = client(port);
	say("by IPv6", "%s", result(accept(s, NULL, NULL)));
	close(s), close(t), close(u);

	s = tcp(0);
	say("a mapped address", "%s", result(bind_to(s, address(AF_INET6, "::ffff:127.0.0.1", 0)) | listen(s, 5)));
	a = local(s);
	say("its name", "%s", text(&a));
	t = socket(AF_INET, SOCK_STREAM, 0);
	say("reached", "%s", result(connect_to(t, address(AF_INET, "127.0.0.1", port_of(&a)))));
	say("accepted", "%s", result(u = accept(s, NULL, NULL)));
	close(s), close(t), close(u);
	/* From the wildcard address of both families. */
	s = listener(0, &port), t = tcp(0);
	say("bound to ::", "%s", result(bind_to(t, any(0))));
	say("to a mapped address", "%s", result(connect_to(t, address(AF_INET6, "::ffff:127.0.0.1", port))));
	a = local(t);
	say("then at", "%s", text(&a));
	close(s), close(t);

	s = tcp(0), set(s, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	say("mapped and V6ONLY", "%s", result(bind_to(s, address(AF_INET6, "::ffff:127.0.0.1", 0))));
	close(s);
}

int main(void)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} tests[] = {
		{ "accepting", accepting }, { "binding", binding }, { "both", both }, { "ending", ending },
		{ "limits", limits }, { "listening", listening }, { "lite", lite }, { "sharing", sharing },
		{ "unix", unix_domain }, { "unspecified", unspecified }, { "urgent", urgent }, { "waiting", waiting },
	};

	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 0; i < 2; i++)
		for (size_t n = 0; n < sizeof tests / sizeof *tests; n++) {
			family = i ? AF_INET6 : AF_INET, test = tests[n].name;
			fflush(stdout);
			pid_t child = fork();
			if (!child) {
				alarm(30);
				signal(SIGALRM, SIG_DFL);
				tests[n].run();
				fflush(stdout);
				_exit(0);
			}
			int status;
			waitpid(child, &status, 0);
			say("ends", "%d", status);
		}
	return 0;
}
