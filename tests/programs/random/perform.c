// SPDX-License-Identifier: MIT OR Apache-2.0
/* One call, performed and told. */
#define _GNU_SOURCE
#include "random.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

int fds[SLOTS] = { -1, -1, -1, -1, -1 };

static int epoll = -1;

/* A blocking call that nothing ends is ended by this. */
static const struct timeval PATIENCE = { .tv_usec = 40000 };

#define BAD ((void *)16)

static const int FAMILIES[] = { AF_INET, AF_INET6, AF_UNIX, AF_UNSPEC, 99 };
static const int TYPES[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_RDM, 0, 11 };

static int domain_of(int s)
{
	int domain = AF_UNSPEC;
	socklen_t len = sizeof domain;

	getsockopt(s, SOL_SOCKET, SO_DOMAIN, &domain, &len);
	return domain;
}

static int type_of(int s)
{
	int type = 0;
	socklen_t len = sizeof type;

	getsockopt(s, SOL_SOCKET, SO_TYPE, &type, &len);
	return type;
}

static void become(int slot, int fd)
{
	int one = 1;

	if (fds[slot] >= 0)
		close(fds[slot]);
	fds[slot] = fd;
	/* How long little waits for more is a matter of timers. Fails for others than TCP. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	/* Whether it blocks is the sequence's to say, but not for ever. */
	if (!(fcntl(fd, F_GETFL) & O_NONBLOCK)) {
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &PATIENCE, sizeof PATIENCE);
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &PATIENCE, sizeof PATIENCE);
	}
}

/* Whether a call that waits for `events` is to be let wait: seldom. */
static bool would_only_wait(int s, short events, uint32_t chance)
{
	struct pollfd p = { .fd = s, .events = events };

	return chance % 64 && !(fcntl(s, F_GETFL) & O_NONBLOCK) && poll(&p, 1, 0) == 0;
}

static socklen_t length(uint32_t w, socklen_t right)
{
	static const socklen_t lengths[] = { 8, 0, 200, -1, 1, 16 };
	uint32_t at = w % 64;

	return at < sizeof lengths / sizeof *lengths ? lengths[at] : right;
}

static const void *pointer(uint32_t w, const void *right)
{
	switch (w / 64 % 64) {
	case 0:
		return NULL;
	case 1:
		return BAD;
	}
	return right;
}

static void add_name(const void *bytes, socklen_t asked, socklen_t len)
{
	add(" %s, %u bytes", shown_address(bytes, len < asked ? len : asked), len);
}

static void make(const struct call *call)
{
	/* Small numbers are the generator's. */
	int family = FAMILIES[call->x < 5 ? call->x : call->x % 64 < 2 ? 3 + call->x % 2 : call->x % 3];
	int type = TYPES[call->y < 6 ? call->y : call->y % 64 < 3 ? 3 + call->y % 3 : call->y % 3];
	static const int protocols[] = { 0, 0, 0, 0, 0, IPPROTO_TCP, IPPROTO_UDP, 1, 77 };
	int protocol = protocols[call->z % 16 < 9 ? call->z % 16 : 0];
	int flags = (call->w % 4 ? SOCK_NONBLOCK : 0) | (call->w % 3 ? 0 : SOCK_CLOEXEC), fd;

	add("socket s%d %d %d %d%s%s", call->slot, family, type, protocol, flags & SOCK_NONBLOCK ? " NONBLOCK" : "",
	    flags & SOCK_CLOEXEC ? " CLOEXEC" : "");
	fd = socket(family, type | flags, protocol);
	add_result(fd < 0 ? fd : 0);
	if (fd >= 0)
		become(call->slot, fd);
}

static void pair(const struct call *call)
{
	int two[2] = { -1, -1 }, n;
	int family = call->y % 8 ? AF_UNIX : AF_INET, type = TYPES[call->x % 3];

	add("socketpair s%d s%d %d %d", call->slot, call->other, family, type);
	n = socketpair(family, type | (call->w % 2 ? SOCK_NONBLOCK : 0), 0, two);
	add_result(n);
	if (n)
		return;
	become(call->slot, two[0]);
	become(call->slot == call->other ? (call->slot + 1) % SLOTS : call->other, two[1]);
}

static void with_address(const struct call *call, int (*function)(int, const struct sockaddr *, socklen_t),
			 const char *name, bool outward)
{
	int s = fds[call->slot];
	struct address a = local_address(call, domain_of(s), outward ? fds[call->other] : s, outward);
	socklen_t len = length(call->w, a.len);
	const void *where = pointer(call->w, &a.bytes);

	add("%s s%d %s", name, call->slot, shown_address(&a.bytes, a.len));
	if (len != a.len)
		add(" length %d", (int)len);
	if (where != &a.bytes)
		add(" at %s", where ? "bad" : "null");
	add_result(function(s, where, len));
}

static void do_accept(const struct call *call)
{
	int s = fds[call->slot], fd, flags = (call->y % 3 ? SOCK_NONBLOCK : 0) | (call->y % 32 == 31 ? 1 : 0);
	struct sockaddr_storage a = { 0 };
	socklen_t asked = length(call->w, sizeof a), len = asked;

	add("accept s%d s%d %x%s", call->slot, call->other, flags, call->x % 4 ? "" : " null");
	if (asked != sizeof a)
		add(" length %d", (int)asked);
	if (would_only_wait(s, POLLIN, call->z)) {
		add(" would wait");
		add_result(0);
		return;
	}
	fd = call->x % 4 ? accept4(s, (void *)&a, &len, flags) : accept4(s, NULL, NULL, flags);
	add_result(fd < 0 ? fd : 0);
	if (fd < 0)
		return;
	if (call->x % 4)
		add_name(&a, asked, len);
	become(call->other, fd);
}

static int some_flags(uint32_t z, const int *flags, int n)
{
	return z % 2 ? 0 : flags[z / 2 % n] | (z % 16 ? 0 : flags[z / 32 % n]);
}

/* What is told by name: flags that change what the peer sees. */
static const char *special(int s, int flags)
{
	if (type_of(s) == SOCK_STREAM && domain_of(s) != AF_UNIX && flags & MSG_OOB)
		return " urgent";
	return flags & MSG_MORE ? " more" : "";
}

static void do_send(const struct call *call)
{
	static const int flags[] = { MSG_DONTWAIT, MSG_NOSIGNAL, MSG_OOB, MSG_MORE, MSG_PEEK, MSG_DONTROUTE,
				     MSG_CONFIRM, MSG_EOR, MSG_ERRQUEUE, MSG_TRUNC };
	static const size_t lengths[] = { 1, 5, 5, 100, 100, 1000, 0, 20000 };
	static char data[70000];
	int s = fds[call->slot], flag = some_flags(call->z / 16, flags, 10);
	/* Only a datagram's length has a limit. */
	size_t len = call->y % 100 == 0 && type_of(s) == SOCK_DGRAM ? sizeof data : lengths[call->y / 128 % 8];
	struct address a = local_address(call, domain_of(s), fds[call->other], true);
	struct iovec iov[2];
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = 2 };
	struct mmsghdr two[2];
	const void *from = call->y / 128 / 8 % 64 ? data : BAD;
	socklen_t name_len = length(call->w, a.len);
	const void *name = pointer(call->w, &a.bytes);

	if (flag & MSG_OOB && type_of(s) == SOCK_STREAM && domain_of(s) != AF_UNIX)
		len = 1;
	/* How long it holds what is there so far is a matter of timers. */
	if (type_of(s) != SOCK_DGRAM)
		flag &= ~MSG_MORE;
	iov[0] = (struct iovec){ data, len / 2 };
	iov[1] = (struct iovec){ data + len / 2, len - len / 2 };
	memset(data, 'a' + call->y % 26, sizeof data);
	switch (call->x / 16 % 6) {
	case 0:
		add("write s%d %zu", call->slot, len);
		add_result(write(s, from, len));
		return;
	case 1:
		add("send s%d %zu flags %x%s%s", call->slot, len, flag, from == data ? "" : " bad data", special(s, flag));
		add_result(send(s, from, len, flag));
		return;
	case 2:
		add("sendmsg s%d %zu flags %x%s", call->slot, len, flag, special(s, flag));
		add_result(sendmsg(s, &m, flag));
		return;
	}
	m.msg_name = (void *)name, m.msg_namelen = name_len;
	add("%s s%d %zu flags %x%s to %s", (const char *[]){ "sendto", "sendmsg", "sendmmsg" }[call->x / 16 % 3],
	    call->slot, len, flag, special(s, flag), shown_address(&a.bytes, a.len));
	if (name_len != a.len)
		add(" length %d", (int)name_len);
	if (name != &a.bytes)
		add(" at %s", name ? "bad" : "null");
	switch (call->x / 16 % 3) {
	case 0:
		add_result(sendto(s, from, len, flag, name, name_len));
		break;
	case 1:
		add_result(sendmsg(s, &m, flag));
		break;
	case 2:
		two[0] = two[1] = (struct mmsghdr){ .msg_hdr = m };
		add_result(sendmmsg(s, two, 2, flag));
		break;
	}
}

static void add_data(const char *data, ssize_t n)
{
	ssize_t run;

	/* Each run of a character and its length. */
	for (ssize_t at = 0, times = 0; at < n && times < 6; at += run, times++) {
		for (run = 1; at + run < n && data[at + run] == data[at]; run++)
			;
		add(" %c%zd", data[at] ? data[at] : '0', run);
	}
}

static void add_controls(struct msghdr *m)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		int value = 0;

		memcpy(&value, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0) < 4 ? c->cmsg_len - CMSG_LEN(0) : 4);
		add(" control %d %d %zu", c->cmsg_level, c->cmsg_type, c->cmsg_len);
		if ((c->cmsg_level == IPPROTO_IP || c->cmsg_level == IPPROTO_IPV6) && c->cmsg_len == CMSG_LEN(4))
			add("=%d", value);
	}
}

static void do_receive(const struct call *call)
{
	static const int flags[] = { MSG_DONTWAIT, MSG_PEEK, MSG_PEEK, MSG_TRUNC,	 MSG_WAITALL,
				     MSG_OOB,	   MSG_ERRQUEUE, MSG_DONTROUTE, MSG_CMSG_CLOEXEC };
	static const size_t lengths[] = { 70000, 70000, 70000, 3, 1, 0, 50, 150 };
	static char data[70000], control[512];
	int s = fds[call->slot], flag = some_flags(call->z / 16, flags, 9);
	size_t len = lengths[call->y % 8];
	struct sockaddr_storage a = { 0 };
	socklen_t asked = length(call->w, sizeof a), name_len = asked;
	struct iovec iov[2] = { { data, len / 2 }, { data + len / 2, len - len / 2 } };
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = 2, .msg_control = control };
	struct mmsghdr two[2];
	void *into = call->y / 8 % 64 ? data : BAD;
	ssize_t n;

	m.msg_controllen = call->y / 512 % 8 ? sizeof control : 4;
	if (call->x % 3)
		m.msg_name = &a, m.msg_namelen = asked <= sizeof a ? asked : sizeof a;
	add("%s s%d %zu",
	    (const char *[]){ "read", "recv", "recvfrom", "recvfrom", "recvmsg", "recvmsg", "recvmmsg" }[call->x / 16 % 7],
	    call->slot, len);
	if (call->x / 16 % 7)
		add(" flags %x", flag);
	if (into != data)
		add(" bad data");
	if (asked != sizeof a)
		add(" length %d", (int)asked);
	memset(data, 0, sizeof data);
	if (!(flag & MSG_DONTWAIT) && would_only_wait(s, POLLIN, call->z / 8192)) {
		add(" would wait");
		add_result(0);
		return;
	}
	switch (call->x / 16 % 7) {
	case 0:
		n = read(s, into, len);
		break;
	case 1:
		n = recv(s, into, len, flag);
		break;
	case 2:
	case 3:
		n = recvfrom(s, into, len, flag, (void *)&a, &name_len);
		break;
	case 6:
		m.msg_control = NULL, m.msg_controllen = 0;
		two[0] = two[1] = (struct mmsghdr){ .msg_hdr = m };
		n = recvmmsg(s, two, 2, flag | MSG_DONTWAIT, NULL);
		add_result(n);
		for (int i = 0; i < n; i++) {
			add(" %u flags %x", two[i].msg_len, two[i].msg_hdr.msg_flags);
			if (m.msg_name)
				add(" name %u", two[i].msg_hdr.msg_namelen);
		}
		return;
	default:
		n = recvmsg(s, &m, flag);
	}
	add_result(n);
	if (n >= 0)
		add_data(data, n < (ssize_t)len ? n : (ssize_t)len);
	if (call->x / 16 % 7 < 4 && call->x / 16 % 7 >= 2 && n >= 0)
		add_name(&a, asked, name_len);
	if (call->x / 16 % 7 >= 4 && n >= 0) {
		add(" flags %x", m.msg_flags);
		if (m.msg_name)
			add_name(&a, sizeof a, m.msg_namelen);
		add_controls(&m);
	}
}

static void name(const struct call *call)
{
	struct sockaddr_storage a = { 0 };
	bool peer = call->y % 2;
	socklen_t asked = length(call->w, sizeof a), len = asked;
	void *into = (void *)pointer(call->w, &a);
	int n;

	add("%s s%d", peer ? "getpeername" : "getsockname", call->slot);
	if (asked != sizeof a)
		add(" length %d", (int)asked);
	if (into != &a)
		add(" at %s", into ? "bad" : "null");
	n = (peer ? getpeername : getsockname)(fds[call->slot], into, &len);
	add_result(n);
	if (n == 0 && into == &a)
		add_name(&a, asked, len);
}

static void control_epoll(const struct call *call)
{
	static const int operations[] = { EPOLL_CTL_ADD, EPOLL_CTL_ADD, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL };
	static const uint32_t ways[] = { 0, 0, EPOLLET, EPOLLET, EPOLLONESHOT, EPOLLEXCLUSIVE };
	static const uint32_t wanted[] = { EPOLLIN, EPOLLOUT, EPOLLIN | EPOLLOUT | EPOLLRDHUP, EPOLLIN | EPOLLPRI, 0 };
	struct epoll_event event = { .data.u32 = call->slot };
	int operation = operations[call->y % 5];

	event.events = ways[call->z % 6] | wanted[call->w % 5];
	if (epoll < 0)
		epoll = epoll_create1(0);
	add("epoll_ctl %d s%d %x", operation, call->slot, event.events);
	add_result(epoll_ctl(epoll, operation, fds[call->slot], &event));
}

static void wait_epoll(void)
{
	struct epoll_event events[SLOTS * 2];
	uint32_t of[SLOTS] = { 0 };
	int n;

	if (epoll < 0)
		epoll = epoll_create1(0);
	add("epoll_wait");
	n = epoll_wait(epoll, events, SLOTS * 2, 0);
	add_result(n);
	for (int i = 0; i < n; i++)
		of[events[i].data.u32] |= events[i].events;
	for (int i = 0; i < SLOTS; i++)
		if (of[i])
			add(" s%d:%x", i, of[i]);
}

static void do_select(void)
{
	fd_set sets[3];
	struct timeval now = { 0 };
	int n;

	for (int set = 0; set < 3; set++) {
		FD_ZERO(&sets[set]);
		for (int i = 0; i < SLOTS; i++)
			if (fds[i] >= 0)
				FD_SET(fds[i], &sets[set]);
	}
	add("select");
	n = select(FD_SETSIZE, &sets[0], &sets[1], &sets[2], &now);
	add_result(n);
	for (int set = 0; set < 3 && n > 0; set++)
		for (int i = 0; i < SLOTS; i++)
			if (fds[i] >= 0 && FD_ISSET(fds[i], &sets[set]))
				add(" %c%d", "rwx"[set], i);
}

static void do_fcntl(const struct call *call)
{
	int s = fds[call->slot], flags = fcntl(s, F_GETFL);

	switch (call->y % 4) {
	case 0:
		add("fcntl s%d GETFL", call->slot);
		add_result(flags);
		break;
	case 1:
		add("fcntl s%d GETFD", call->slot);
		add_result(fcntl(s, F_GETFD));
		break;
	default:
		add("fcntl s%d SETFL %x", call->slot, flags ^ O_NONBLOCK);
		if (flags >= 0 && flags & O_NONBLOCK) {
			setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &PATIENCE, sizeof PATIENCE);
			setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &PATIENCE, sizeof PATIENCE);
		}
		add_result(fcntl(s, F_SETFL, flags ^ O_NONBLOCK));
	}
}

static void duplicate(const struct call *call)
{
	int from = fds[call->slot], to = fds[call->other], fd;

	add("%s s%d s%d", call->kind == DUP ? "dup" : "dup2", call->slot, call->other);
	if (call->kind == DUP || to < 0) {
		fd = dup(from);
		add_result(fd < 0 ? -1 : 0);
		if (fd >= 0)
			become(call->other, fd);
	} else {
		add_result(dup2(from, to) < 0 ? -1 : 0);
	}
}

void perform(const struct call *call)
{
	static const int hows[] = { SHUT_RD, SHUT_WR, SHUT_WR, SHUT_RDWR, SHUT_RDWR, 3, -1, SHUT_RD };
	static const int backlogs[] = { 5, 1, 0, -1, 128, 5 };
	int s = fds[call->slot];

	switch (call->kind) {
	case ACCEPT:
		do_accept(call);
		break;
	case BIND:
		with_address(call, bind, "bind", false);
		break;
	case CLOSE:
		add("close s%d", call->slot);
		add_result(close(s));
		fds[call->slot] = -1;
		break;
	case CONNECT:
		with_address(call, connect, "connect", true);
		break;
	case DUP:
	case DUP2:
		duplicate(call);
		break;
	case EPOLL_CTL:
		control_epoll(call);
		break;
	case EPOLL_WAIT:
		wait_epoll();
		break;
	case FCNTL:
		do_fcntl(call);
		break;
	case GETSOCKOPT:
		get_option(s, call);
		break;
	case IOCTL:
		ask_ioctl(s, call);
		break;
	case LISTEN:
		add("listen s%d %d", call->slot, backlogs[call->x % 6]);
		add_result(listen(s, backlogs[call->x % 6]));
		break;
	case NAME:
		name(call);
		break;
	case PAIR:
		pair(call);
		break;
	case RECEIVE:
		do_receive(call);
		break;
	case SELECT:
		do_select();
		break;
	case SEND:
		do_send(call);
		break;
	case SETSOCKOPT:
		set_option(s, call);
		break;
	case SHUTDOWN:
		add("shutdown s%d %d", call->slot, hows[call->y % 8]);
		add_result(shutdown(s, hows[call->y % 8]));
		break;
	case SOCKET:
		make(call);
		break;
	}
}

void finish(void)
{
	for (int i = 0; i < SLOTS; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = -1;
	}
	if (epoll >= 0)
		close(epoll);
	epoll = -1;
	remove_paths();
}
