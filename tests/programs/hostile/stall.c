/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* One guest makes the supervisor wait; another measures how long its own calls take.
 * A call of the other that takes longer than PATIENCE seconds is OPEN.
 *
 * stall ATTACK FUSE: the second is a device node that we may open. */
#include "hostile.h"
#include <linux/fuse.h>

#define PATIENCE 4.0
/* Allowed, and never answers. */
#define SILENT "203.0.113.1"

static pid_t attacker;
/* Who serves the attacker's file system: another process, whose end sets free all that wait. */
static pid_t server;

/* Connects to the allowed server until `until`, and says how long the slowest took. */
static void bystander(double length)
{
	double slowest = 0, until = seconds() + length;
	struct sockaddr_in a = at(ALLOWED, ALLOWED_PORT), b = at(DENIED, DENIED_PORT);
	do {
		double start = seconds();
		int s = tcp(), r = connect(s, (void *)&a, sizeof a);
		if (r)
			said("the allowed server", r);
		close(s);
		s = tcp();
		connect(s, (void *)&b, sizeof b);
		close(s);
		if (seconds() - start > slowest)
			slowest = seconds() - start;
		tries++;
		usleep(1000);
	} while (seconds() < until);
	printf("slowest=%.3f\n", slowest);
	if (slowest > PATIENCE)
		printf("OPEN: a bystander waited %.1f s\n", slowest);
	if (server)
		kill(server, SIGKILL);
	kill(attacker, SIGKILL);
}

/* A file system that answers what it must and then no more. */
static int fuse = -1;
static const char *fuse_device;

static void answer(uint64_t unique, const void *body, size_t size)
{
	struct fuse_out_header head = { sizeof head + size, 0, unique };
	struct iovec parts[] = { { &head, sizeof head }, { (void *)body, size } };
	if (writev(fuse, parts, 2) < 0)
		perror("fuse");
}

static void serve_fuse(void)
{
	static _Alignas(8) char request[1 << 16];
	for (;;) {
		if (read(fuse, request, sizeof request) < 0)
			return;
		struct fuse_in_header *in = (void *)request;
		/* An owner whom the namespace does not know would let nobody write. */
		const uint32_t uid = getuid(), gid = getgid();
		struct fuse_attr file = { .ino = 2, .size = 4096, .mode = S_IFREG | 0666, .nlink = 1, .uid = uid, .gid = gid };
		struct fuse_attr root = { .ino = 1, .mode = S_IFDIR | 0777, .nlink = 2, .uid = uid, .gid = gid };
		struct fuse_attr_out attributes = { .attr_valid = 999, .attr = in->nodeid == 1 ? root : file };
		struct fuse_entry_out entry = { .nodeid = 2, .entry_valid = 999, .attr_valid = 999, .attr = file };
		struct fuse_init_out init = { .major = 7, .minor = 31, .max_write = 4096 };
		struct fuse_open_out opened = { .fh = 1 };
		switch (in->opcode) {
		case FUSE_INIT:
			answer(in->unique, &init, sizeof init);
			break;
		case FUSE_GETATTR:
			answer(in->unique, &attributes, sizeof attributes);
			break;
		case FUSE_LOOKUP:
			/* "page" exists; what "never" is stays unknown. */
			if (!strcmp((char *)(in + 1), "page"))
				answer(in->unique, &entry, sizeof entry);
			break;
		case FUSE_OPEN:
			answer(in->unique, &opened, sizeof opened);
			break;
		default: /* FUSE_READ above all */
			break;
		}
	}
}

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	if (write(fd, text, strlen(text)) < 0)
		perror(path);
	close(fd);
}

static void mount_fuse(void)
{
	char options[64];
	const int uid = getuid(), gid = getgid();
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS))
		perror("unshare");
	put("/proc/self/setgroups", "deny");
	snprintf(options, sizeof options, "%d %d 1", uid, uid);
	put("/proc/self/uid_map", options);
	snprintf(options, sizeof options, "%d %d 1", gid, gid);
	put("/proc/self/gid_map", options);
	fuse = open(fuse_device, O_RDWR);
	mkdir("stalled", 0777);
	snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=%d,group_id=%d", fuse, uid, gid);
	if (fuse < 0 || mount("fuse", "stalled", "fuse", MS_NOSUID | MS_NODEV, options)) {
		printf("no FUSE here: %s\n", strerror(errno));
		exit(1);
	}
	server = fork();
	if (!server) {
		alarm(60);
		serve_fuse();
		_exit(0);
	}
	close(fuse);
}

/* A page of it, which never comes. */
static void *map_page(void)
{
	int fd = open("stalled/page", O_RDWR);
	void *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED) {
		printf("no FUSE here: %s\n", strerror(errno));
		exit(1);
	}
	/* Not closed: that would be asked of the server, too. */
	return page;
}

/* Runs `attack` in a child and a bystander beside it. */
static void beside(void (*attack)(void), double length)
{
	int ready[2];
	if (pipe(ready))
		return;
	fflush(stdout);
	attacker = fork();
	if (!attacker) {
		close(ready[0]);
		dup2(ready[1], 99);
		close(ready[1]);
		attack();
		for (;;)
			pause();
	}
	close(ready[1]);
	if (read(ready[0], &server, sizeof server) != sizeof server)
		return;
	bystander(length);
	waitpid(attacker, NULL, 0);
}

static void ready(void)
{
	if (write(99, &server, sizeof server) != sizeof server)
		_exit(1);
	close(99);
}

static void page_attack(void)
{
	mount_fuse();
	void *page = map_page();
	int s = tcp();
	ready();
	connect(s, page, sizeof(struct sockaddr_in));
	setsockopt(s, IPPROTO_TCP, TCP_NODELAY, page, 4);
}

static int datagram;
static struct msghdr *held_message;

static void send_held(void)
{
	sendmsg(datagram, held_message, 0);
}

static void receive_held(void)
{
	recvmsg(datagram, held_message, 0);
}

/* A datagram's data, where another is to go, and where one is to be received: each in a process that the page may hold. */
static void datagram_page_attack(void)
{
	static char room[16];
	static struct iovec data;
	static struct sockaddr_in to;
	static struct msghdr messages[2];
	mount_fuse();
	void *page = map_page();
	to = at(ALLOWED, ALLOWED_PORT);
	datagram = socket(AF_INET, SOCK_DGRAM, 0);
	bind(datagram, (void *)&(struct sockaddr_in){ .sin_family = AF_INET }, sizeof to);
	ready();
	data = (struct iovec){ page, 16 };
	messages[0] = (struct msghdr){ &to, sizeof to, &data, 1, NULL, 0, 0 };
	messages[1] = (struct msghdr){ page, sizeof to, &(struct iovec){ room, 16 }, 1, NULL, 0, 0 };
	for (int i = 0; i < 2; i++) {
		held_message = &messages[i];
		if (!fork())
			send_held(), _exit(0);
	}
	held_message = page;
	if (!fork())
		receive_held(), _exit(0);
}

static void path_attack(void)
{
	mount_fuse();
	struct sockaddr_un a = path_name("stalled/never");
	int s = socket(AF_UNIX, SOCK_STREAM, 0);
	ready();
	connect(s, (void *)&a, sizeof a);
}

static void uffd_attack(void)
{
	int uffd = open("/dev/userfaultfd", O_RDWR);
	uffd = uffd >= 0 ? ioctl(uffd, 0xaa00 /* USERFAULTFD_IOC_NEW */, 0) : syscall(SYS_userfaultfd, 0);
	struct { uint64_t api, features, ioctls; } api = { 0xaa };
	void *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct { uint64_t start, length, mode, ioctls; } range = { (uintptr_t)page, 4096, 1 };
	ioctl(uffd, 0xc018aa3f /* UFFDIO_API */, &api);
	printf("userfaultfd: %d\n", ioctl(uffd, 0xc020aa00 /* UFFDIO_REGISTER */, &range));
	ready();
	connect(tcp(), page, sizeof(struct sockaddr_in));
}

/* The answer "non-blocking" is not true for long. */
static int flipped;

static void *flip_flags(void *arg)
{
	(void)arg;
	for (;;) {
		fcntl(flipped, F_SETFL, O_NONBLOCK);
		for (volatile int i = 0; i < 300; i++)
			;
		fcntl(flipped, F_SETFL, 0);
	}
	return NULL;
}

static void nothing(int signal)
{
	(void)signal;
}

static void *connect_silently(void *arg)
{
	struct sockaddr_in a = at(SILENT, 9);
	(void)arg;
	for (;;) {
		int s = tcp();
		dup2(s, flipped);
		connect(flipped, (void *)&a, sizeof a);
		close(s);
	}
	return NULL;
}

static void flag_attack(void)
{
	/* Without SA_RESTART: a connect that waits by right ends when it is kicked. */
	struct sigaction kick = { .sa_handler = nothing };
	sigaction(SIGUSR1, &kick, NULL);
	pthread_t thread, connecting[2];
	flipped = dup2(tcp(), 90);
	for (int i = 0; i < 2; i++)
		pthread_create(&connecting[i], NULL, connect_silently, NULL);
	pthread_create(&thread, NULL, flip_flags, NULL);
	ready();
	for (;;) {
		usleep(5000);
		for (int i = 0; i < 2; i++)
			pthread_kill(connecting[i], SIGUSR1);
	}
}

/* More calls that wait than the supervisor has threads. */
static void *wait_for_ever(void *arg)
{
	connect(socket(AF_UNIX, SOCK_STREAM, 0), arg, sizeof(struct sockaddr_un));
	return NULL;
}

static void gather(void *(*each)(void *), void *arg)
{
	pthread_attr_t small;
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 65536);
	pthread_t thread;
	for (int i = 0; i < 700; i++)
		pthread_create(&thread, &small, each, arg);
	usleep(500000);
	ready();
}

static void crowd_attack(void)
{
	static struct sockaddr_un a;
	a = path_name("full.sock");
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);
	unlink(a.sun_path);
	bind(listener, (void *)&a, sizeof a);
	listen(listener, 0);
	gather(wait_for_ever, &a);
}

static void *connect_once(void *arg)
{
	connect(tcp(), arg, sizeof(struct sockaddr_in));
	return NULL;
}

static void connects_attack(void)
{
	static struct sockaddr_in a;
	a = at(SILENT, 9);
	gather(connect_once, &a);
}

/* Somebody copies between a socket and a page that never comes, and so holds the socket's lock. Others, of
 * processes of their own, then call what needs the lock. */
static void *stuck_page;
static int held;

static void hold(void (*copy)(void))
{
	stuck_page = map_page();
	pid_t holder = fork();
	if (!holder) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		copy();
		_exit(0);
	}
	/* Nothing tells that it has got there, only that it has not come back. */
	usleep(300000);
	if (waitpid(holder, NULL, WNOHANG))
		printf("it holds nothing\n");
	ready();
}

static void meddle(void (*call)(void))
{
	if (fork())
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	call();
	_exit(0);
}

static void send_page(void)
{
	write(held, stuck_page, 4096);
}

static void receive_page(void)
{
	read(held, stuck_page, 4096);
}

static void set_delay(void)
{
	int one = 1;
	setsockopt(held, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static void peer_name(void)
{
	struct sockaddr_storage name;
	socklen_t size = sizeof name;
	getpeername(held, (void *)&name, &size);
}

static void connect_again(void)
{
	struct sockaddr_in a = at(ALLOWED, ALLOWED_PORT + 1);
	connect(held, (void *)&a, sizeof a);
}

static void bind_it(void)
{
	struct sockaddr_in any = at("0.0.0.0", 0);
	bind(held, (void *)&any, sizeof any);
}

static void dissolve(void)
{
	struct sockaddr none = { AF_UNSPEC };
	connect(held, &none, sizeof none);
}

static void listen_to_it(void)
{
	listen(held, 1);
}

static void receive_from(void)
{
	char byte;
	struct sockaddr_storage name;
	socklen_t size = sizeof name;
	recvfrom(held, &byte, 1, 0, (void *)&name, &size);
}

/* Connected through the stack where there is one, unless it is to be `past` it. */
static void connect_held(int past)
{
	struct sockaddr_in stack = at(ALLOWED, ALLOWED_PORT + 1), host = at(ALLOWED, ALLOWED_PORT);
	held = tcp();
	if ((past || connect(held, (void *)&stack, sizeof stack)) && connect(held, (void *)&host, sizeof host))
		_exit(1);
}

static void locked(int past, void (*one)(void), void (*other)(void))
{
	connect_held(past);
	mount_fuse();
	hold(send_page);
	meddle(one);
	meddle(other);
}

static void locked_option_attack(void) { locked(0, set_delay, peer_name); }
static void locked_connect_attack(void) { locked(0, connect_again, dissolve); }
static void locked_past_attack(void) { locked(1, connect_again, set_delay); }
static void locked_bind_attack(void) { locked(1, bind_it, listen_to_it); }

/* A datagram socket with something to receive. */
static void fill_datagrams(void)
{
	struct sockaddr_in here = at(LOOPBACK, 0);
	socklen_t size = sizeof here;
	held = socket(AF_INET, SOCK_DGRAM, 0);
	bind(held, (void *)&here, sizeof here);
	getsockname(held, (void *)&here, &size);
	for (int i = 0; i < 4; i++)
		said("to itself", sendto(held, "x", 1, 0, (void *)&here, size));
}

static void locked_queue_attack(void)
{
	fill_datagrams();
	mount_fuse();
	hold(receive_page);
	/* Each from a process of its own: the second finds the first in the way. */
	for (int i = 0; i < 3; i++)
		meddle(receive_from);
}

/* The last close of a socket that lingers, with a queue that nobody empties, waits. Now and then it is the supervisor's,
 * which has a duplicate for a call under way. */
static _Atomic int lingering = -1;

static void *ask_for_ever(void *arg)
{
	int value;
	(void)arg;
	for (;;) {
		socklen_t size = sizeof value;
		getsockopt(lingering, IPPROTO_TCP, TCP_NODELAY, &value, &size);
	}
	return NULL;
}

static void *close_it(void *arg)
{
	close((int)(intptr_t)arg);
	return NULL;
}

static void linger_attack(void)
{
	static char data[65536];
	struct linger linger = { 1, 20 };
	struct sockaddr_in a = { .sin_family = AF_INET };
	socklen_t size = sizeof a;
	pthread_t thread;
	int listener = tcp();
	bind(listener, (void *)&a, sizeof a);
	listen(listener, 4096);
	getsockname(listener, (void *)&a, &size);
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	pthread_create(&thread, NULL, ask_for_ever, NULL);
	ready();
	for (int round = 0; round < 200; round++) {
		int s = tcp();
		connect(s, (void *)&a, sizeof a);
		setsockopt(s, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
		while (send(s, data, sizeof data, MSG_DONTWAIT) > 0)
			;
		lingering = s;
		usleep(2000);
		pthread_create(&thread, NULL, close_it, (void *)(intptr_t)s);
		usleep(2000);
	}
}

/* A connection from another guest that this one had no descriptor for is the supervisor's until the next accept(2). It lingers, as
 * its listener does, and nobody acknowledges its end while the other's lock is held. */
static int returning;

static void send_page_without_listener(void)
{
	close(returning);
	send_page();
}

static void returned_attack(void)
{
	struct linger linger = { 1, 20 };
	struct sockaddr_in a = at(LOOPBACK, 0);
	socklen_t size = sizeof a;
	struct rlimit all, none;
	mount_fuse();
	returning = tcp();
	setsockopt(returning, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
	bind(returning, (void *)&a, sizeof a);
	listen(returning, 1);
	getsockname(returning, (void *)&a, &size);
	held = tcp();
	connect(held, (void *)&a, sizeof a);
	getrlimit(RLIMIT_NOFILE, &all);
	none = all, none.rlim_cur = 0;
	setrlimit(RLIMIT_NOFILE, &none);
	if (accept(returning, NULL, NULL) >= 0 || errno != EMFILE)
		printf("it holds nothing\n");
	setrlimit(RLIMIT_NOFILE, &all);
	hold(send_page_without_listener);
	close(returning);
	/* Then it is missed. */
	connect(tcp(), (void *)&a, sizeof a);
}

/* A socket that is being connected is lent to a program outside, which connects it to somebody else and holds its lock. Then the
 * attempt fails. */
static void lend(int to, int socket)
{
	char control[CMSG_SPACE(sizeof socket)] = { 0 }, byte = 0;
	struct iovec data = { &byte, 1 };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
	rights->cmsg_level = SOL_SOCKET, rights->cmsg_type = SCM_RIGHTS, rights->cmsg_len = CMSG_LEN(sizeof socket);
	memcpy(CMSG_DATA(rights), &socket, sizeof socket);
	if (sendmsg(to, &message, 0) != 1)
		printf("it holds nothing\n");
}

static struct sockaddr_un borrowers_name(void)
{
	char path[100];
	snprintf(path, sizeof path, "%s.sock", fuse_device);
	return path_name(path);
}

static void lent_attack(void)
{
	int borrower = socket(AF_UNIX, SOCK_STREAM, 0), few = 1;
	struct sockaddr_un un = borrowers_name();
	struct sockaddr_in silent = at(SILENT, 9);
	held = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	setsockopt(held, IPPROTO_TCP, TCP_SYNCNT, &few, sizeof few);
	if (!connect(held, (void *)&silent, sizeof silent) || errno != EINPROGRESS)
		printf("it holds nothing\n");
	if (connect(borrower, (void *)&un, sizeof un))
		printf("it holds nothing\n");
	lend(borrower, held);
	if (read(borrower, &few, 1) != 1)
		printf("it holds nothing\n");
	ready();
	/* Before it fails, and after. */
	fcntl(held, F_SETFL, O_NONBLOCK);
	for (;;)
		connect(held, (void *)&silent, sizeof silent);
}

static void borrower(void)
{
	char control[CMSG_SPACE(sizeof held)], byte;
	struct iovec data = { &byte, 1 };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	struct sockaddr none = { AF_UNSPEC };
	struct sockaddr_un un = borrowers_name();
	struct sockaddr_in a = at(LOOPBACK, 0);
	socklen_t size = sizeof a;
	int listener = socket(AF_UNIX, SOCK_STREAM, 0), other = tcp();
	bind(other, (void *)&a, sizeof a);
	listen(other, 1);
	getsockname(other, (void *)&a, &size);
	mount_fuse();
	stuck_page = map_page();
	unlink(un.sun_path);
	bind(listener, (void *)&un, sizeof un);
	chmod(un.sun_path, 0777);
	listen(listener, 1);
	printf("ready\n");
	fflush(stdout);
	int lender = accept(listener, NULL, NULL);
	if (recvmsg(lender, &message, 0) == 1)
		memcpy(&held, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof held);
	fcntl(held, F_SETFL, 0);
	connect(held, &none, sizeof none);
	said("somebody else", connect(held, (void *)&a, sizeof a));
	pid_t holder = fork();
	if (!holder) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		send_page();
		_exit(0);
	}
	usleep(300000);
	if (waitpid(holder, NULL, WNOHANG))
		printf("it holds nothing\n");
	write(lender, &byte, 1);
	/* Until the lender has ended, but not for ever: it may wait for this. */
	struct pollfd gone = { lender, POLLIN, 0 };
	poll(&gone, 1, 15000);
	kill(server, SIGKILL);
}

#define ATTACK(name, length) static void name(void) { beside(name##_attack, length); }
ATTACK(connects, 3)
ATTACK(crowd, 3)
ATTACK(datagram_page, 6)
ATTACK(flag, 6)
ATTACK(locked_bind, 4)
ATTACK(lent, 6)
ATTACK(linger, 4)
ATTACK(locked_connect, 4)
ATTACK(locked_option, 4)
ATTACK(locked_past, 4)
ATTACK(locked_queue, 4)
ATTACK(page, 5)
ATTACK(path, 5)
ATTACK(returned, 4)
ATTACK(uffd, 5)

int main(int argc, char **argv)
{
	static const struct attack attacks[] = {
		{ "connects", connects }, { "crowd", crowd }, { "datagram_page", datagram_page }, { "flag", flag }, { "page", page },
		{ "borrower", borrower }, { "lent", lent }, { "linger", linger }, { "locked_bind", locked_bind }, { "locked_connect", locked_connect },
		{ "locked_option", locked_option }, { "locked_past", locked_past },
		{ "locked_queue", locked_queue }, { "path", path }, { "returned", returned }, { "uffd", uffd }, { 0 },
	};
	if (argc < 3)
		return 2;
	fuse_device = argv[2];
	return dispatch(attacks, argc, argv);
}
