// SPDX-License-Identifier: MIT OR Apache-2.0
/* Sockets in every kind of process that there is: threads, children that share some of what their parents have, daemons,
 * programs executed over a socket, processes in namespaces of their own. Prints a line "PROCESS: WHAT=RESULT" for each,
 * which depends on nothing but how sockets behave, so that the output of two runs can be compared.
 *
 *   processes echo PORT       the far side: says what it is told, TCP and UDP
 *   processes PORT FAR4 CROWD
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SOON_MS = 15000 };

static struct sockaddr_in far_side;
static const char *self, *port_text, *far_text;

/* What each process finds: made before it was. */
struct sockets {
	int connected, fresh, datagram, listener;
};

static const char *result(long value)
{
	return value < 0 ? strerrorname_np(errno) : "ok";
}

static bool readable(int s)
{
	struct pollfd p = { .fd = s, .events = POLLIN };

	return poll(&p, 1, SOON_MS) == 1;
}

static const char *echoed(int s, const char *word)
{
	char got[32] = "";

	if (send(s, word, strlen(word), MSG_NOSIGNAL) < 0)
		return strerrorname_np(errno);
	if (!readable(s))
		return "silence";
	if (recv(s, got, sizeof got - 1, 0) < 0)
		return strerrorname_np(errno);
	return strcmp(got, word) ? "something else" : "echoed";
}

static const char *echoed_datagram(int s, const char *word)
{
	struct sockaddr_in from = { 0 };
	socklen_t len = sizeof from;
	char got[32] = "";

	/* What is lost is sent again. */
	for (int i = 0; i < 5; i++) {
		struct pollfd p = { .fd = s, .events = POLLIN };

		if (sendto(s, word, strlen(word), 0, (void *)&far_side, sizeof far_side) < 0)
			return strerrorname_np(errno);
		if (poll(&p, 1, SOON_MS / 5) != 1)
			continue;
		if (recvfrom(s, got, sizeof got - 1, 0, (void *)&from, &len) < 0)
			return strerrorname_np(errno);
		if (from.sin_port != far_side.sin_port || from.sin_addr.s_addr != far_side.sin_addr.s_addr)
			return "from elsewhere";
		return strcmp(got, word) ? "something else" : "echoed";
	}
	return "silence";
}

static int far_connect(int s)
{
	return connect(s, (void *)&far_side, sizeof far_side);
}

static int make_listener(void)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int s = socket(AF_INET, SOCK_STREAM, 0);

	return bind(s, (void *)&any, sizeof any) || listen(s, 5) ? -1 : s;
}

static const char *accepted(int listener)
{
	struct sockaddr_in at, own, from;
	socklen_t len = sizeof at;
	int t = socket(AF_INET, SOCK_STREAM, 0), u;
	const char *end;

	if (getsockname(listener, (void *)&at, &len) || connect(t, (void *)&at, sizeof at))
		return strerrorname_np(errno);
	len = sizeof from, u = accept(listener, (void *)&from, &len);
	if (u < 0)
		return strerrorname_np(errno);
	len = sizeof own, getsockname(t, (void *)&own, &len);
	end = own.sin_port == from.sin_port ? "accepted" : "somebody else";
	close(t), close(u);
	return end;
}

static struct sockets prepare(void)
{
	struct sockets s = { socket(AF_INET, SOCK_STREAM, 0), socket(AF_INET, SOCK_STREAM, 0),
			     socket(AF_INET, SOCK_DGRAM, 0), make_listener() };

	if (s.datagram < 0 || s.listener < 0 || far_connect(s.connected)) {
		printf("nothing to begin with=%s\n", strerrorname_np(errno));
		exit(1);
	}
	return s;
}

static void leave(struct sockets s)
{
	close(s.connected), close(s.fresh), close(s.datagram), close(s.listener);
}

/* All that a process may do with sockets, those that it has and its own. */
static void use(const char *process, struct sockets s)
{
	struct sockaddr_in peer = { 0 };
	socklen_t len = sizeof peer;
	struct sockets own = { -1, socket(AF_INET, SOCK_STREAM, 0), socket(AF_INET, SOCK_DGRAM, 0), make_listener() };

	printf("%s: connection=%s\n", process, echoed(s.connected, "one"));
	printf("%s: its peer=%s\n", process, result(getpeername(s.connected, (void *)&peer, &len)));
	printf("%s: the right one=%d\n", process, peer.sin_port == far_side.sin_port);
	printf("%s: connect=%s\n", process, result(far_connect(s.fresh)));
	printf("%s: connected=%s\n", process, echoed(s.fresh, "two"));
	printf("%s: datagram=%s\n", process, echoed_datagram(s.datagram, "three"));
	printf("%s: accept=%s\n", process, accepted(s.listener));
	printf("%s: own connect=%s\n", process, result(far_connect(own.fresh)));
	printf("%s: own connected=%s\n", process, echoed(own.fresh, "four"));
	printf("%s: own datagram=%s\n", process, echoed_datagram(own.datagram, "five"));
	printf("%s: own accept=%s\n", process, accepted(own.listener));
	fflush(stdout);
	leave(own);
}

static struct sockets given;
static const char *name;

static int use_given(void *unused)
{
	(void)unused;
	use(name, given);
	return 0;
}

static void *use_in_thread(void *unused)
{
	use_given(unused);
	return NULL;
}

static void *use_own_table(void *unused)
{
	if (unshare(CLONE_FILES))
		printf("%s: unshare=%s\n", name, strerrorname_np(errno));
	use_given(unused);
	return NULL;
}

static void in_thread(void *(*run)(void *))
{
	pthread_t thread;

	pthread_create(&thread, NULL, run, NULL);
	pthread_join(thread, NULL);
}

static void in_clone(int flags)
{
	char *stack = mmap(NULL, 1 << 18, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int status = -1;

	fflush(stdout);
	waitpid(clone(use_given, stack + (1 << 18), flags | SIGCHLD, NULL), &status, 0);
	printf("%s: ended=%d\n", name, status);
}

static void *outlive(void *unused)
{
	/* The leader is a zombie by now. */
	char path[64], text[256] = "", *state;

	for (int i = 0; i < SOON_MS; i++) {
		int n, fd;

		snprintf(path, sizeof path, "/proc/self/stat");
		fd = open(path, O_RDONLY), n = read(fd, text, sizeof text - 1), close(fd);
		state = n > 0 ? strrchr(text, ')') : NULL;
		if (state && state[2] == 'Z')
			break;
		usleep(1000);
	}
	use_given(unused);
	exit(0);
}

static void without_leader(void)
{
	pthread_t thread;

	pthread_create(&thread, NULL, outlive, NULL);
	pthread_exit(NULL);
}

static void daemonized(void)
{
	/* Twice, and away from the session; somebody waits for it all the same. */
	int done[2];
	char byte;

	fflush(stdout);
	if (pipe(done))
		exit(1);
	if (!fork()) {
		setsid();
		if (!fork()) {
			close(done[0]);
			use_given(NULL);
			_exit(0);
		}
		_exit(0);
	}
	wait(NULL);
	close(done[1]);
	printf("%s: ended=%zd\n", name, read(done[0], &byte, 1));
	close(done[0]);
}

static void executed(bool closed)
{
	char numbers[4][16];

	fflush(stdout);
	snprintf(numbers[0], 16, "%d", given.connected), snprintf(numbers[1], 16, "%d", given.fresh);
	snprintf(numbers[2], 16, "%d", given.datagram), snprintf(numbers[3], 16, "%d", given.listener);
	for (int i = 0; i < 4; i++)
		fcntl(((int *)&given)[i], F_SETFD, closed ? FD_CLOEXEC : 0);
	if (!fork()) {
		execl(self, self, "use", name, port_text, far_text, numbers[0], numbers[1], numbers[2], numbers[3], NULL);
		_exit(127);
	}
	wait(NULL);
	for (int i = 0; i < 4; i++)
		fcntl(((int *)&given)[i], F_SETFD, 0);
}

static void passed(void)
{
	/* By SCM_RIGHTS, to one that does not have them. */
	int pair[2];
	char byte = 'x', room[CMSG_SPACE(sizeof given)] = { 0 };
	struct iovec part = { &byte, 1 };
	struct msghdr m = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room };
	struct cmsghdr *head = CMSG_FIRSTHDR(&m);

	fflush(stdout);
	socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
	if (!fork()) {
		leave(given);
		if (recvmsg(pair[1], &m, 0) == 1)
			memcpy(&given, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof given);
		use_given(NULL);
		_exit(0);
	}
	*head = (struct cmsghdr){ CMSG_LEN(sizeof given), SOL_SOCKET, SCM_RIGHTS };
	memcpy(CMSG_DATA(head), &given, sizeof given);
	printf("%s: sent=%s\n", name, result(sendmsg(pair[0], &m, 0)));
	fflush(stdout);
	wait(NULL);
	close(pair[0]), close(pair[1]);
}

/* Each with a connection, a listener and a datagram socket, at once. */
static void crowd(int count)
{
	int ready[2], go[2], ends[2], connected = 0, sent = 0, served = 0;
	char byte = 'x', what[3];

	fflush(stdout);
	if (pipe(ready) || pipe(go) || pipe(ends))
		exit(1);
	for (int i = 0; i < count; i++) {
		pid_t pid = fork();

		if (pid < 0)
			printf("a crowd: fork=%s\n", strerrorname_np(errno)), exit(1);
		if (!pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			close(go[1]);
			struct sockets s = { socket(AF_INET, SOCK_STREAM, 0), -1, socket(AF_INET, SOCK_DGRAM, 0), make_listener() };
			int r = far_connect(s.connected);

			if (write(ready[1], &byte, 1) != 1 || read(go[0], &byte, 1) != 0)
				_exit(1);
			what[0] = !r && !strcmp(echoed(s.connected, "crowd"), "echoed");
			what[1] = !strcmp(echoed_datagram(s.datagram, "crowd"), "echoed");
			what[2] = !strcmp(accepted(s.listener), "accepted");
			_exit(write(ends[1], what, 3) != 3);
		}
	}
	close(ready[1]);
	for (int i = 0; i < count && read(ready[0], &byte, 1) == 1; i++)
		;
	close(go[0]), close(go[1]), close(ends[1]);
	while (read(ends[0], what, 3) == 3)
		connected += what[0], sent += what[1], served += what[2];
	while (wait(NULL) > 0)
		;
	printf("a crowd: connections, datagrams, servers=%d, %d, %d\n", connected, sent, served);
}

static void each(const char *process, void (*run)(void))
{
	/* In a child, which may do with itself what it likes. */
	fflush(stdout);
	if (fork()) {
		while (wait(NULL) > 0)
			;
		return;
	}
	name = process, given = prepare();
	run();
	leave(given);
	exit(0);
}

static void alone(void)
{
	use_given(NULL);
}

static void forked(void)
{
	fflush(stdout);
	if (!fork())
		exit(use_given(NULL));
	/* The child has them now. */
	leave(given);
	wait(NULL);
}

static void forked_and_shared(void)
{
	fflush(stdout);
	if (!fork())
		exit(use_given(NULL));
	wait(NULL);
	printf("%s: the connection afterwards=%s\n", name, echoed(given.connected, "after"));
	printf("%s: the child's afterwards=%s\n", name, echoed(given.fresh, "after"));
	printf("%s: datagram afterwards=%s\n", name, echoed_datagram(given.datagram, "after"));
}

static void threaded(void)
{
	in_thread(use_in_thread);
}

static void threaded_apart(void)
{
	in_thread(use_own_table);
	printf("%s: the leader's=%s\n", name, echoed(given.fresh, "after"));
}

static void vforked(void)
{
	in_clone(CLONE_VM | CLONE_VFORK);
}

static void cloned_files(void)
{
	in_clone(CLONE_FILES);
	printf("%s: the child's afterwards=%s\n", name, echoed(given.fresh, "after"));
}

static void cloned_all(void)
{
	in_clone(CLONE_FILES | CLONE_VM | CLONE_FS);
}

static void executed_open(void)
{
	executed(false);
}

static void executed_closed(void)
{
	executed(true);
}

static void undumpable(void)
{
	printf("%s: prctl=%s\n", name, result(prctl(PR_SET_DUMPABLE, 0)));
	use_given(NULL);
}

static void own_user(void)
{
	if (unshare(CLONE_NEWUSER))
		printf("%s: unshare=%s\n", name, strerrorname_np(errno));
	use_given(NULL);
}

/* What it has is where it was made; its own sockets know no network. */
static void own_network(void)
{
	if (unshare(CLONE_NEWUSER | CLONE_NEWNET))
		printf("%s: unshare=%s\n", name, strerrorname_np(errno));
	use_given(NULL);
}

static void own_processes(void)
{
	if (unshare(CLONE_NEWUSER | CLONE_NEWPID))
		printf("%s: unshare=%s\n", name, strerrorname_np(errno));
	forked_and_shared();
}

/* The far side. */
static void *echo_one(void *s)
{
	char bytes[64];
	ssize_t n;

	while ((n = recv((long)s, bytes, sizeof bytes, 0)) > 0)
		send((long)s, bytes, n, MSG_NOSIGNAL);
	close((long)s);
	return NULL;
}

static void *echo_datagrams(void *s)
{
	struct sockaddr_in from;
	char bytes[64];

	for (;;) {
		socklen_t len = sizeof from;
		ssize_t n = recvfrom((long)s, bytes, sizeof bytes, 0, (void *)&from, &len);

		if (n >= 0)
			sendto((long)s, bytes, n, 0, (void *)&from, len);
	}
	return NULL;
}

static void detached(void *(*run)(void *), int s)
{
	pthread_attr_t small;
	pthread_t thread;

	pthread_attr_init(&small), pthread_attr_setstacksize(&small, 1 << 16);
	pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
	pthread_create(&thread, &small, run, (void *)(long)s);
}

static int echo(int port)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(port) };
	int s = socket(AF_INET, SOCK_STREAM, 0), u = socket(AF_INET, SOCK_DGRAM, 0), one = 1, t;

	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(s, (void *)&any, sizeof any) || listen(s, 4096) || bind(u, (void *)&any, sizeof any))
		return 1;
	detached(echo_datagrams, u);
	puts("ready"), fflush(stdout);
	while ((t = accept(s, NULL, NULL)) >= 0)
		detached(echo_one, t);
	return 1;
}

int main(int argc, char **argv)
{
	struct rlimit files;

	getrlimit(RLIMIT_NOFILE, &files), files.rlim_cur = files.rlim_max, setrlimit(RLIMIT_NOFILE, &files);
	if (argc == 3)
		return echo(atoi(argv[2]));
	self = "/proc/self/exe";
	far_side.sin_family = AF_INET;
	if (argc == 9) {
		far_side.sin_port = htons(atoi(argv[3])), inet_pton(AF_INET, argv[4], &far_side.sin_addr);
		use(argv[2], (struct sockets){ atoi(argv[5]), atoi(argv[6]), atoi(argv[7]), atoi(argv[8]) });
		return 0;
	}
	if (argc != 4)
		return 2;
	port_text = argv[1], far_text = argv[2];
	far_side.sin_port = htons(atoi(port_text)), inet_pton(AF_INET, far_text, &far_side.sin_addr);
	/* Daemons' ends are waited for. */
	each("alone", alone);
	each("a thread", threaded);
	each("a thread with a table of its own", threaded_apart);
	each("a thread without its leader", without_leader);
	each("a child", forked);
	each("a child beside its parent", forked_and_shared);
	each("a child by vfork", vforked);
	each("a child with its parent's descriptors", cloned_files);
	each("a child with its parent's all", cloned_all);
	each("a daemon", daemonized);
	each("a program", executed_open);
	each("a program that has none", executed_closed);
	each("a process that they were passed to", passed);
	each("a process that is not dumpable", undumpable);
	each("a process in a user namespace", own_user);
	each("a process in a network namespace", own_network);
	each("a process in a process namespace", own_processes);
	crowd(atoi(argv[3]));
	return 0;
}
