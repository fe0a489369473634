/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Datagrams to servers that may not be reached: by every call, with the address changed in memory, and with
 * another socket put in the place of the one that the call is about. */
#include "hostile.h"
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/udp.h>
#include <sys/sendfile.h>

static int udp(int family)
{
	int s = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int one = 1;
	setsockopt(s, SOL_SOCKET, SO_BROADCAST, &one, sizeof one);
	return s;
}

static void by_every_call(int family, void *to, socklen_t size)
{
	struct iovec data = { "x", 1 };
	struct msghdr message = { .msg_name = to, .msg_namelen = size, .msg_iov = &data, .msg_iovlen = 1 };
	struct mmsghdr two[2] = { { .msg_hdr = message }, { .msg_hdr = message } };
	int s = udp(family);
	said("sendto", sendto(s, "x", 1, 0, to, size));
	said("sendmsg", sendmsg(s, &message, 0));
	said("sendmmsg", sendmmsg(s, two, 2, 0));
	said("sendto, more to come", sendto(s, "x", 1, MSG_MORE, to, size));
	said("sendto, the rest", sendto(s, "x", 1, 0, to, size));
	close(s);
	s = udp(family);
	said("connect", connect(s, to, size));
	said("send", send(s, "x", 1, 0));
	said("write", write(s, "x", 1));
	said("sendmsg to the peer", sendmsg(s, &(struct msghdr){ .msg_iov = &data, .msg_iovlen = 1 }, 0));
	close(s);
	/* First to a place that is open, then elsewhere. */
	s = udp(family);
	struct sockaddr_in open = at(ALLOWED, ALLOWED_PORT + 1);
	said("connect to the open one", connect(s, (void *)&open, sizeof open));
	said("send to the open one", send(s, "x", 1, 0));
	said("sendto beside the peer", sendto(s, "x", 1, 0, to, size));
	said("connect again", connect(s, to, size));
	said("send to the new peer", send(s, "x", 1, 0));
	struct sockaddr none = { AF_UNSPEC };
	said("dissolve", connect(s, &none, sizeof none));
	said("sendto then", sendto(s, "x", 1, 0, to, size));
	close(s);
}

static void control_message(int level, int kind, const void *value, size_t length)
{
	struct sockaddr_in open = at(ALLOWED, ALLOWED_PORT + 1);
	struct iovec data = { "x", 1 };
	char room[256] = { 0 };
	struct msghdr message = { &open, sizeof open, &data, 1, room, CMSG_SPACE(length), 0 };
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);
	*head = (struct cmsghdr){ CMSG_LEN(length), level, kind };
	memcpy(CMSG_DATA(head), value, length);
	int s = udp(AF_INET);
	said("a control message", sendmsg(s, &message, 0));
	close(s);
}

static void calls(void)
{
	static const char *const everywhere[] = { DENIED, LOOPBACK, "0.0.0.0", "192.0.2.1", "10.0.2.2", "255.255.255.255", "192.0.2.255" };
	for (size_t i = 0; i < sizeof everywhere / sizeof *everywhere; i++) {
		struct sockaddr_in a = at(everywhere[i], DENIED_PORT);
		by_every_call(AF_INET, &a, sizeof a);
		by_every_call(AF_INET6, &a, sizeof a);
		char mapped[64];
		snprintf(mapped, sizeof mapped, "::ffff:%s", everywhere[i]);
		struct sockaddr_in6 b = at6(mapped, DENIED_PORT);
		by_every_call(AF_INET6, &b, sizeof b);
	}
	struct sockaddr_in6 far = at6(DENIED6, DENIED_PORT);
	by_every_call(AF_INET6, &far, sizeof far);
	/* A loose source route by the denied one (RFC 791). */
	unsigned char route[12] = { 131, 11, 4, 192, 0, 2, 11, 192, 0, 2, 11, 0 };
	control_message(IPPROTO_IP, IP_RETOPTS, route, sizeof route);
	int s = udp(AF_INET);
	said("a route by option", setsockopt(s, IPPROTO_IP, IP_OPTIONS, route, sizeof route));
	struct sockaddr_in open = at(ALLOWED, ALLOWED_PORT + 1);
	said("along it", sendto(s, "x", 1, 0, (void *)&open, sizeof open));
	struct in_pktinfo from = { 1, { htonl(INADDR_LOOPBACK) }, { htonl(INADDR_LOOPBACK) } };
	control_message(IPPROTO_IP, IP_PKTINFO, &from, sizeof from);
	int fds[1] = { 0 };
	control_message(SOL_SOCKET, SCM_RIGHTS, fds, sizeof fds);
}

/* Interfaces and sources that are not ours, groups, routes by every kind of header: the way a packet takes. */
static void ways(void)
{
	static const int numbers[] = { 0, 1, 2, 3, 77, -1, INT32_MAX, INT32_MIN };
	static const char *const sources[] = { "0.0.0.0", LOOPBACK, "192.0.2.1", "10.0.2.15", DENIED, "224.0.0.1", "255.255.255.255" };
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
		for (size_t j = 0; j < sizeof sources / sizeof *sources; j++) {
			struct in_pktinfo from = { numbers[i], { inet_addr(sources[j]) }, { inet_addr(DENIED) } };
			control_message(IPPROTO_IP, IP_PKTINFO, &from, sizeof from);
		}
	/* RFC 8200 (0), 6275 (2), 8754 (4), and none. */
	for (int kind = 0; kind < 6; kind++) {
		unsigned char header[24] = { 17, 2, kind, 1 };
		static const int names[] = { 3, 4, 5, IPV6_RTHDR, IPV6_HOPOPTS, IPV6_DSTOPTS, IPV6_RTHDRDSTOPTS, 6 };
		struct sockaddr_in6 open = at6("2001:db8::10", ALLOWED_PORT + 1);
		inet_pton(AF_INET6, DENIED6, header + 8);
		for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
			struct iovec data = { "x", 1 };
			char room[256] = { 0 };
			struct msghdr message = { &open, sizeof open, &data, 1, room, CMSG_SPACE(sizeof header), 0 };
			struct cmsghdr *head = CMSG_FIRSTHDR(&message);
			int s = udp(AF_INET6);
			*head = (struct cmsghdr){ CMSG_LEN(sizeof header), IPPROTO_IPV6, names[i] };
			memcpy(CMSG_DATA(head), header, sizeof header);
			if (sendmsg(s, &message, 0) == 1)
				printf("OPEN: a header %d of kind %d\n", names[i], kind);
			if (!setsockopt(s, IPPROTO_IPV6, names[i], header, sizeof header))
				printf("OPEN: an option %d of kind %d\n", names[i], kind);
			tries++;
			close(s);
		}
	}
	static const char *const groups[] = { "224.0.0.1", "224.0.0.251", "239.1.2.3" };
	for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
		struct sockaddr_in group = at(groups[i], DENIED_PORT);
		struct ip_mreqn join = { group.sin_addr, { INADDR_ANY }, 0 };
		int s = udp(AF_INET), loop = 1, ttl = 255;
		said("joined", setsockopt(s, IPPROTO_IP, IP_ADD_MEMBERSHIP, &join, sizeof join));
		said("interface", setsockopt(s, IPPROTO_IP, IP_MULTICAST_IF, &join, sizeof join));
		setsockopt(s, IPPROTO_IP, IP_MULTICAST_LOOP, &loop, sizeof loop);
		setsockopt(s, IPPROTO_IP, IP_MULTICAST_TTL, &ttl, sizeof ttl);
		if (sendto(s, "x", 1, 0, (void *)&group, sizeof group) == 1)
			printf("OPEN: sent to a group\n");
		close(s);
	}
	struct sockaddr_in open = at(ALLOWED, ALLOWED_PORT + 1);
	said("to the open one", sendto(udp(AF_INET), "x", 1, 0, (void *)&open, sizeof open));
}

/* Everything that a receive is told to write to, somewhere where nobody may write. */
static void pointers(void)
{
	struct sockaddr_in here = at(LOOPBACK, 0), open = at(ALLOWED, ALLOWED_PORT + 1);
	socklen_t size = sizeof here;
	int s = udp(AF_INET);
	bind(s, (void *)&here, sizeof here);
	getsockname(s, (void *)&here, &size);
	char *fixed = mmap(0, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	static char victim[4096];
	void *const wrong[] = { NULL, (void *)8, (void *)-1, (void *)(1L << 47), (void *)0xffffffff81000000, fixed, victim };
	static const size_t lengths[] = { 0, 1, SIZE_MAX, SIZE_MAX >> 1, 1L << 40 };
	for (int i = 0; i < 7; i++)
		for (int j = 0; j < 5; j++)
			for (int part = 0; part < 6; part++) {
				char room[64], control[64];
				struct iovec data[2] = { { room, sizeof room }, { room, sizeof room } };
				struct mmsghdr many[3] = { 0 };
				struct timespec soon = { 0, 1000000 };
				for (int n = 0; n < 3; n++)
					many[n].msg_hdr = (struct msghdr){ &here, sizeof here, data, 2, control, sizeof control, 0 };
				struct msghdr *m = &many[1].msg_hdr;
				void *at = wrong[i];
				switch (part) {
				case 0: m->msg_name = at; break;
				case 1: m->msg_iov = at, m->msg_iovlen = lengths[j]; break;
				case 2: data[1] = (struct iovec){ at, lengths[j] }; break;
				case 3: m->msg_control = at, m->msg_controllen = lengths[j]; break;
				/* Written over while it is written to. */
				case 4: data[0] = (struct iovec){ many, sizeof many }; break;
				}
				sendto(s, many, sizeof many, 0, (void *)&here, sizeof here);
				sendto(s, many, sizeof many, 0, (void *)&here, sizeof here);
				struct pollfd p = { s, POLLIN, 0 };
				poll(&p, 1, 50);
				recvmmsg(s, part == 5 ? at : many, part == 5 ? UINT32_MAX : 3, MSG_DONTWAIT, j & 1 ? at : (void *)&soon);
				sendmmsg(s, part == 5 ? at : many, 3, MSG_DONTWAIT);
				recvmsg(s, part == 5 ? at : m, MSG_DONTWAIT);
				recvfrom(s, at, lengths[j], MSG_DONTWAIT, at, at);
				here.sin_family = AF_INET, tries++;
				while (recv(s, room, sizeof room, MSG_DONTWAIT) >= 0)
					;
			}
	for (int i = 0; i < 4096; i++)
		if (fixed[i]) {
			printf("OPEN: wrote where nobody may write\n");
			break;
		}
	said("to the open one", sendto(udp(AF_INET), "x", 1, 0, (void *)&open, sizeof open));
}

static volatile struct sockaddr_in address;
static _Atomic long changes;
static _Atomic int stop;

static void *change_address(void *arg)
{
	(void)arg;
	struct sockaddr_in open = at(ALLOWED, ALLOWED_PORT + 1), shut[] = { at(DENIED, DENIED_PORT), at(LOOPBACK, DENIED_PORT) };
	for (long n = 0; !stop; n++) {
		struct sockaddr_in *next = n & 1 ? &shut[n >> 1 & 1] : &open;
		address.sin_port = next->sin_port;
		address.sin_addr.s_addr = next->sin_addr.s_addr;
		changes = n;
	}
	return NULL;
}

/* Sends to what `address` says; another thread changes that. */
static void swapped(void)
{
	pthread_t changer;
	address.sin_family = AF_INET;
	pthread_create(&changer, NULL, change_address, NULL);
	struct iovec data = { "x", 1 };
	long overlaps = 0, sent = 0;
	int s = udp(AF_INET);
	for (double end = seconds() + 1.5; seconds() < end; tries++) {
		struct msghdr message = { .msg_name = (void *)&address, .msg_namelen = sizeof address, .msg_iov = &data, .msg_iovlen = 1 };
		struct mmsghdr many[4] = { { .msg_hdr = message }, { .msg_hdr = message }, { .msg_hdr = message }, { .msg_hdr = message } };
		long before = changes, result;
		switch (tries % 4) {
		case 0: result = sendto(s, "x", 1, 0, (void *)&address, sizeof address); break;
		case 1: result = sendmsg(s, &message, 0); break;
		case 2: result = sendmmsg(s, many, 4, 0); break;
		default: result = connect(s, (void *)&address, sizeof address); send(s, "x", 1, 0); break;
		}
		overlaps += changes != before;
		sent += result >= 0;
	}
	stop = 1;
	pthread_join(changer, NULL);
	printf("sent %ld overlaps=%ld\n", sent, overlaps);
}

enum { SLOT = 100 };
static int sockets[5];

static void *change_socket(void *arg)
{
	(void)arg;
	for (long n = 0; !stop; n++) {
		dup2(sockets[n % 5], SLOT);
		changes = n;
	}
	return NULL;
}

/* The descriptor is a datagram socket of the internet, one of AF_UNIX, a connected one, or a stream's. */
static void exchanged(void)
{
	pthread_t changer;
	struct sockaddr_in open = at(ALLOWED, ALLOWED_PORT + 1);
	sockets[0] = udp(AF_INET);
	sockets[1] = socket(AF_UNIX, SOCK_DGRAM, 0);
	sockets[2] = udp(AF_INET);
	connect(sockets[2], (void *)&open, sizeof open);
	sockets[3] = tcp();
	int pair[2];
	socketpair(AF_UNIX, SOCK_DGRAM, 0, pair);
	sockets[4] = pair[0];
	pthread_create(&changer, NULL, change_socket, NULL);
	struct iovec data = { "x", 1 };
	long overlaps = 0;
	for (double end = seconds() + 1.5; seconds() < end; tries++) {
		struct sockaddr_in to = at(forbidden[tries & 1], DENIED_PORT);
		struct msghdr message = { .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &data, .msg_iovlen = 1 };
		long before = changes;
		switch (tries / 2 % 5) {
		case 0: sendto(SLOT, "x", 1, MSG_DONTWAIT, (void *)&to, sizeof to); break;
		case 1: sendmsg(SLOT, &message, MSG_DONTWAIT); break;
		case 2: bind(SLOT, (void *)&to, sizeof to); break;
		case 3: {
			struct sockaddr none = { AF_UNSPEC };
			if (tries / 10 & 1)
				connect(SLOT, &none, sizeof none);
			else
				connect(SLOT, (void *)&open, sizeof open);
			break;
		}
		default: {
			int one = 1;
			setsockopt(SLOT, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
			write(SLOT, "x", 1);
		}
		}
		overlaps += changes != before;
	}
	stop = 1;
	pthread_join(changer, NULL);
	printf("overlaps=%ld\n", overlaps);
}

/* What is done to a guest's end by itself: other families' names, the names of its pair, other ways to write. */
static void alone(void)
{
	struct sockaddr_in shut = at(DENIED, DENIED_PORT), none = { .sin_family = AF_UNSPEC };
	struct sockaddr_un own = { .sun_family = AF_UNIX, .sun_path = "\0netshunt-hostile-own" };
	const socklen_t size = offsetof(struct sockaddr_un, sun_path) + 21;
	int target = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0), s = udp(AF_INET), file = open("/etc/passwd", O_RDONLY);
	char path[64], byte;
	said("a name of its own", bind(target, (void *)&own, size));
	said("sendto a name", sendto(s, "x", 1, 0, (void *)&own, size));
	said("connect to a name", connect(s, (void *)&own, size));
	said("bind to a name", bind(s, (void *)&own, size));
	struct iovec data = { "x", 1 };
	struct msghdr named = { .msg_name = &own, .msg_namelen = size, .msg_iov = &data, .msg_iovlen = 1 };
	said("sendmsg to a name", sendmsg(s, &named, 0));
	said("dissolve", connect(s, (void *)&none, sizeof none));
	said("and then", sendto(s, "x", 1, 0, (void *)&own, size));
	said("write to nobody", write(s, "x", 1));
	said("sendfile", sendfile(s, file, NULL, 100));
	int ends[2];
	if (pipe(ends) || write(ends[1], "x", 1) != 1)
		return;
	said("splice", splice(ends[0], NULL, s, NULL, 1, 0));
	snprintf(path, sizeof path, "/proc/self/fd/%d", s);
	said("opened anew", open(path, O_RDWR));
	if (recv(target, &byte, 1, 0) >= 0)
		printf("OPEN: it sent to an AF_UNIX socket\n");
	/* Everybody's names are in /proc/net/unix. */
	FILE *names = fopen("/proc/net/unix", "re");
	char line[256], *name;
	while (names && fgets(line, sizeof line, names)) {
		struct sockaddr_un pair = { .sun_family = AF_UNIX };
		if (!(name = strchr(line, '@')))
			continue;
		name[strcspn(name, "\n")] = 0;
		snprintf(pair.sun_path + 1, sizeof pair.sun_path - 1, "%s", name + 1);
		socklen_t length = offsetof(struct sockaddr_un, sun_path) + strlen(name);
		sendto(target, "x", 1, MSG_DONTWAIT, (void *)&pair, length);
		if (!connect(target, (void *)&pair, length))
			send(target, "x", 1, MSG_DONTWAIT);
		connect(target, (void *)&none, sizeof none);
		tries++;
	}
	if (recv(s, &byte, 1, 0) >= 0)
		printf("OPEN: somebody else sent to it\n");
	/* Passed on, after its writing half was shut, and out of turn. */
	int pair[2];
	socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
	char room[CMSG_SPACE(sizeof(int))] = { 0 };
	struct msghdr passed = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room };
	struct cmsghdr *head = CMSG_FIRSTHDR(&passed);
	*head = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
	memcpy(CMSG_DATA(head), &s, sizeof s);
	said("passed on", sendmsg(pair[0], &passed, 0));
	char got;
	struct iovec into = { &got, 1 };
	struct msghdr taken = { .msg_iov = &into, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room };
	if (recvmsg(pair[1], &taken, 0) == 1 && (head = CMSG_FIRSTHDR(&taken)))
		memcpy(&s, CMSG_DATA(head), sizeof s);
	said("sendto then", sendto(s, "x", 1, 0, (void *)&shut, sizeof shut));
	said("shut", shutdown(s, SHUT_RDWR));
	said("sendto then", sendto(s, "x", 1, 0, (void *)&shut, sizeof shut));
	said("connect then", connect(s, (void *)&shut, sizeof shut));
	said("send then", send(s, "x", 1, 0));
	/* The others still work. */
	struct sockaddr_in open = at(ALLOWED, ALLOWED_PORT + 1);
	said("to the open one", sendto(udp(AF_INET), "x", 1, 0, (void *)&open, sizeof open));
}

/* One socket is filled as fast as it is emptied, by threads, and asked for something else by a process; how long
 * do others wait, who only make sockets? */
static int filled;

static void *fill(void *arg)
{
	(void)arg;
	for (;;)
		send(filled, "x", 1, 0);
	return NULL;
}

static void flood(void)
{
	struct sockaddr_in here = at(LOOPBACK, 0);
	socklen_t size = sizeof here;
	int sink = udp(AF_INET);
	bind(sink, (void *)&here, sizeof here);
	getsockname(sink, (void *)&here, &size);
	filled = socket(AF_INET, SOCK_DGRAM, 0);
	connect(filled, (void *)&here, sizeof here);
	if (!fork()) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			sendto(filled, "x", 1, 0, (void *)&here, sizeof here);
	}
	pthread_t thread;
	for (int i = 0; i < 4; i++)
		pthread_create(&thread, NULL, fill, NULL);
	double slowest = 0;
	for (double end = seconds() + 5; seconds() < end; tries++) {
		double start = seconds();
		int s = udp(AF_INET);
		getsockname(s, (void *)&here, &size);
		close(s);
		if (seconds() - start > slowest)
			slowest = seconds() - start;
		usleep(1000);
	}
	printf("slowest=%.3f\n", slowest);
	/* Some thousand, even on a machine that has other things to do. */
	if (tries < 150)
		printf("OPEN: another got %ld turns\n", tries);
}

/* Many calls that wait, each with as much to be remembered as a call can have. */
static void *want_much(void *arg)
{
	static char byte;
	static struct iovec many[1024];
	static struct mmsghdr messages[1024];
	for (int i = 0; i < 1024; i++) {
		many[i] = (struct iovec){ &byte, 1 };
		messages[i].msg_hdr = (struct msghdr){ .msg_iov = many, .msg_iovlen = 1024 };
	}
	recvmmsg(*(int *)arg, messages, 1024, 0, NULL);
	return NULL;
}

/* Sockets, held by processes that end; each step is told, and waits for a byte. */
static void step(const char *what)
{
	char byte;
	puts(what);
	fflush(stdout);
	if (read(0, &byte, 1) < 0)
		exit(1);
	tries++;
}

static void crowd(void)
{
	enum { PROCESSES = 8, EACH = 400 };
	int made[2], held[2];
	char byte;
	if (pipe(made) || pipe(held))
		exit(1);
	close(udp(AF_INET));
	step("before");
	for (int i = 0; i < PROCESSES; i++)
		if (!fork()) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			close(held[1]);
			for (int n = 0; n < EACH; n++)
				if (udp(n & 1 ? AF_INET : AF_INET6) < 0)
					exit(1);
			if (write(made[1], "x", 1) == 1)
				exit(read(held[0], &byte, 1));
		}
	for (int i = 0; i < PROCESSES; i++)
		if (read(made[0], &byte, 1) < 0)
			exit(1);
	int waited = socket(AF_INET, SOCK_DGRAM, 0);
	pid_t waiting = fork();
	if (!waiting) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pthread_t thread;
		for (int i = 0; i < 32; i++)
			pthread_create(&thread, NULL, want_much, &waited);
		pause();
	}
	step("all of them");
	kill(waiting, SIGKILL);
	close(waited);
	close(held[1]);
	while (wait(NULL) > 0)
		;
	step("gone");
}

int main(int argc, char **argv)
{
	static const struct { const char *name; void (*attack)(void); } each[] = {
		{ "alone", alone }, { "calls", calls }, { "crowd", crowd }, { "exchanged", exchanged }, { "flood", flood },
		{ "pointers", pointers }, { "swapped", swapped }, { "ways", ways }, { 0 },
	};
	signal(SIGPIPE, SIG_IGN);
	for (int i = 0; argc > 1 && each[i].name; i++)
		if (!strcmp(argv[1], each[i].name))
			each[i].attack();
	printf("tries=%ld\n", tries);
	return 0;
}
