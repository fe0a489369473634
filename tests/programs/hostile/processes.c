/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Processes against each other and against what is outside: one table of descriptors between two of them, descriptors
 * taken from another, terminals, interfaces, and crowds of servers that are killed while connections come. */
#include "hostile.h"
#include <linux/sched.h>

enum { SLOT = 100, CROWD = 16 };

static long clone_process(uint64_t flags)
{
	struct clone_args arguments = { .flags = flags, .exit_signal = SIGCHLD };
	fflush(stdout);
	return syscall(SYS_clone3, &arguments, sizeof arguments);
}

/* Another process, not a thread, puts other sockets in the place of the one that a call is about. */
static void shared_table(void)
{
	const struct sockaddr none = { AF_UNSPEC };
	struct sockaddr_in open = at(ALLOWED, ALLOWED_PORT);
	int sockets[5] = { tcp(), tcp(), socket(AF_UNIX, SOCK_DGRAM, 0), socket(AF_INET, SOCK_DGRAM, 0),
			   socket(AF_INET6, SOCK_STREAM, 0) };
	volatile long *changes = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	long overlaps = 0;
	connect(sockets[1], (void *)&open, sizeof open);
	dup2(sockets[0], SLOT);
	pid_t child = clone_process(CLONE_FILES);
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (long n = 0;; n++) {
			dup2(sockets[n % 5], SLOT);
			*changes = n;
		}
	}
	for (double until = seconds() + 1.5; seconds() < until; tries++) {
		struct sockaddr_in to = at(forbidden[tries & 1], DENIED_PORT), any = at("0.0.0.0", 0);
		struct iovec data = { "x", 1 };
		struct msghdr message = { .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &data, .msg_iovlen = 1 };
		long before = *changes;
		fcntl(SLOT, F_SETFL, O_NONBLOCK);
		switch (tries / 2 % 7) {
		case 0: connect(SLOT, (void *)&to, sizeof to); break;
		case 1: sendto(SLOT, "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL, (void *)&to, sizeof to); break;
		case 2: sendmsg(SLOT, &message, MSG_DONTWAIT | MSG_NOSIGNAL); break;
		case 3: bind(SLOT, (void *)&any, sizeof any); break;
		case 4: listen(SLOT, 5); break;
		case 5: connect(SLOT, &none, sizeof none); break;
		default: sendto(SLOT, "x", 1, MSG_FASTOPEN | MSG_DONTWAIT | MSG_NOSIGNAL, (void *)&to, sizeof to); break;
		}
		overlaps += *changes != before;
		/* The tables are long to read. */
		for (int i = 0; i < 5 && tries % 256 == 0; i++)
			if (listens_openly(sockets[i])) {
				printf("OPEN: a socket listens on the host\n");
				until = 0;
			}
	}
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	printf("overlaps=%ld\n", overlaps);
}

/* Sockets of a child that is in a network namespace of its own, and of one that is not. */
static void taken(void)
{
	for (int own = 0; own < 2; own++) {
		int ready[2];
		char byte;
		if (pipe(ready))
			return;
		fflush(stdout);
		pid_t child = fork();
		if (!child) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			dup2(tcp(), SLOT), dup2(tcp(), SLOT + 1);
			if (own)
				unshare(CLONE_NEWUSER | CLONE_NEWNET);
			dup2(tcp(), SLOT + 2), dup2(tcp(), SLOT + 3);
			if (write(ready[1], "x", 1) == 1)
				pause();
			_exit(1);
		}
		if (read(ready[0], &byte, 1) < 1)
			return;
		int pidfd = syscall(SYS_pidfd_open, child, 0), number = SLOT;
		for (int i = 0; i < 2; i++)
			EACH_FORBIDDEN(a) {
				int s = syscall(SYS_pidfd_getfd, pidfd, number++, 0);
				said("taken", s);
				said("connect", connect(s, (void *)&a, sizeof a));
			}
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
}

/* Typed into the terminal, as if by whoever sits there. */
static void terminal(void)
{
	int ends = posix_openpt(O_RDWR | O_NOCTTY);
	if (ends < 0 || grantpt(ends) || unlockpt(ends) || setsid() < 0)
		return;
	int s = open(ptsname(ends), O_RDWR);
	said("TIOCSCTTY", ioctl(s, TIOCSCTTY, 0));
	for (uint64_t high = 0; high < 2; high++) {
		long r = syscall(SYS_ioctl, s, high << 32 | TIOCSTI, "x");
		said("TIOCSTI", r);
		if (!r)
			printf("OPEN: typed into a terminal\n");
	}
	said("TIOCLINUX", syscall(SYS_ioctl, s, 0x541c, "\3"));
}

static void command(const char *format, int pid)
{
	char line[256];
	int at = snprintf(line, sizeof line, format, pid);
	snprintf(line + at, sizeof line - at, " >/dev/null 2>&1");
	int r = system(line);
	said(line, r);
	if (r == 0)
		printf("OPEN: %s\n", line);
}

/* Interfaces, addresses and routes of the host's; from here, and from a namespace of our own. */
static void interfaces(void)
{
	const int parent = getppid();
	command("ip address add 192.0.2.77/24 dev near", 0);
	command("ip route add 198.18.0.0/15 via 192.0.2.10", 0);
	command("ip link add hostile0 type veth peer name hostile1 && ip link del hostile0", 0);
	command("ip link set near mtu 1400 && ip link set near mtu 1500", 0);
	if (unshare(CLONE_NEWUSER | CLONE_NEWNET))
		return;
	int map = open("/proc/self/uid_map", O_WRONLY);
	/* Only an unprivileged process can map itself alone; whoever else is nobody there. */
	said("uid_map", dprintf(map, "0 %d 1\n", geteuid()));
	close(map);
	command("ip link add hostile0 type veth peer name hostile1 netns %d", parent);
	command("ip link add hostile2 type veth peer name hostile3 && ip link set hostile3 netns %d", parent);
	EACH_FORBIDDEN(a)
		said("connect", connect(tcp(), (void *)&a, sizeof a));
}

static int serve(int *port)
{
	struct sockaddr_in a = at(LOOPBACK, 0);
	socklen_t size = sizeof a;
	int s = tcp();
	if (bind(s, (void *)&a, sizeof a) || listen(s, 64))
		said("a server", -1);
	getsockname(s, (void *)&a, &size);
	*port = ntohs(a.sin_port);
	return s;
}

/* Connections come to servers that are killed, half of them in accept(2); others take their place. */
static void storm(void)
{
	pid_t each[CROWD] = { 0 };
	double worst = 0;
	unsigned seed = 1;
	signal(SIGCHLD, SIG_IGN);
	for (double until = seconds() + 4; seconds() < until;) {
		pid_t *one = each + rand_r(&seed) % CROWD;
		if (*one)
			kill(-*one, SIGKILL);
		fflush(stdout);
		if (!(*one = fork())) {
			int port, s;
			setpgid(0, 0);
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			s = serve(&port);
			for (int i = 0; i < 2; i++)
				if (!fork()) {
					struct sockaddr_in to = at(LOOPBACK, port);
					prctl(PR_SET_PDEATHSIG, SIGKILL);
					for (int n = 0;; n++) {
						int t = socket(AF_INET, SOCK_STREAM | (n & 1 ? SOCK_NONBLOCK : 0), 0);
						connect(t, (void *)&to, sizeof to);
						send(t, "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
						close(t);
						usleep(2000);
					}
				}
			for (int n = 0;; n++) {
				int t = accept(s, NULL, NULL);
				if (t < 0)
					usleep(2000);
				/* Some are kept, and end with us. */
				if (n & 3)
					close(t);
			}
		}
		setpgid(*one, *one);
		/* Meanwhile somebody innocent. */
		double start = seconds();
		int port, s = serve(&port), t = tcp(), u;
		struct sockaddr_in to = at(LOOPBACK, port);
		if (connect(t, (void *)&to, sizeof to)) {
			said("nobody listens here", -1);
		} else {
			struct sockaddr_in from = { 0 }, own = { 0 };
			socklen_t size = sizeof from;
			u = accept(s, (void *)&from, &size);
			size = sizeof own;
			getsockname(t, (void *)&own, &size);
			if (u < 0 || from.sin_port != own.sin_port)
				printf("OPEN: accepted somebody else\n");
			close(u);
		}
		close(s), close(t);
		if (seconds() - start > worst)
			worst = seconds() - start;
		tries++;
	}
	for (int i = 0; i < CROWD; i++)
		if (each[i])
			kill(-each[i], SIGKILL);
	printf("worst=%.3f\n", worst);
	if (worst > 4)
		printf("OPEN: others were held up\n");
}

/* More processes than the supervisor has threads wait to connect to a queue that is full, and are killed. */
static void abandoned(void)
{
	enum { WAITING = 300 };
	struct sockaddr_un full = path_name("abandoned-full"), other = path_name("abandoned-other");
	int s = socket(AF_UNIX, SOCK_STREAM, 0), t = socket(AF_UNIX, SOCK_STREAM, 0), kept[64], n = 0, ready[2];
	pid_t each[WAITING];
	unlink(full.sun_path), unlink(other.sun_path);
	if (bind(s, (void *)&full, sizeof full) || listen(s, 0) || bind(t, (void *)&other, sizeof other) || listen(t, 5) ||
	    pipe(ready))
		return;
	do
		kept[n] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	while (!connect(kept[n], (void *)&full, sizeof full) && ++n < 64);
	fflush(stdout);
	for (int i = 0; i < WAITING; i++)
		if (!(each[i] = fork())) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			int u = socket(AF_UNIX, SOCK_STREAM, 0);
			if (write(ready[1], "x", 1) == 1)
				connect(u, (void *)&full, sizeof full);
			pause();
		}
	for (int i = 0; i < WAITING; i++)
		if (read(ready[0], &(char){ 0 }, 1) != 1)
			return;
	/* As many as may wait do by now, or the next comes through. */
	int r = 0;
	for (double until = seconds() + 3; !r && seconds() < until; tries++) {
		int u = socket(AF_UNIX, SOCK_STREAM, 0);
		if (!(r = connect(u, (void *)&other, sizeof other)))
			close(accept(t, NULL, NULL));
		close(u);
	}
	for (int i = 0; i < WAITING; i++)
		kill(each[i], SIGKILL);
	for (int i = 0; i < WAITING; i++)
		waitpid(each[i], NULL, 0);
	r = -1;
	for (double until = seconds() + 5; r && seconds() < until; tries++) {
		int u = socket(AF_UNIX, SOCK_STREAM, 0);
		r = connect(u, (void *)&other, sizeof other);
		close(u);
		usleep(20000);
	}
	said("then", r);
	if (r)
		printf("OPEN: the dead keep the living waiting\n");
}

/* Where a socket of the host's listens: in the machine's own order. */
static int listens_at(unsigned long inode, int nth, struct sockaddr_in *a)
{
	char line[256];
	FILE *table = host_tables[0];
	if (!table)
		return 0;
	rewind(table);
	while (fgets(line, sizeof line, table)) {
		unsigned ip, port, state;
		unsigned long number;
		if (sscanf(line, "%*d: %x:%x %*x:%*x %x %*x:%*x %*x:%*x %*x %*d %*d %lu", &ip, &port, &state, &number) != 4)
			continue;
		if (state != 0x0a || (inode ? number != inode : (ip & 0xc0ff) != 0x407f))
			continue;
		if (nth-- > 0)
			continue;
		*a = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = ip };
		return 1;
	}
	return 0;
}

/* The private place of a listener, which /proc/net/tcp tells, is nobody's to connect to or to share. */
static void place(void)
{
	int port, s = serve(&port), one = 1, t;
	struct sockaddr_in a;
	struct stat stat;
	fcntl(s, F_SETFL, O_NONBLOCK);
	if (fstat(s, &stat) || !listens_at(stat.st_ino, 0, &a)) {
		said("it listens nowhere", -1);
		return;
	}
	for (int i = 0; i < 3; i++) {
		t = socket(AF_INET, SOCK_STREAM | (i & 1 ? SOCK_NONBLOCK : 0), 0);
		if (i == 2)
			setsockopt(t, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one),
				setsockopt(t, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one),
				said("shared", bind(t, (void *)&a, sizeof a)), said("listen", listen(t, 5));
		said("connect", connect(t, (void *)&a, sizeof a));
		said("send", send(t, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT));
		if (listens_openly(t))
			printf("OPEN: a socket listens on the host\n");
		struct pollfd p = { s, POLLIN, 0 };
		poll(&p, 1, 200);
		if (accept(s, NULL, NULL) >= 0)
			printf("OPEN: somebody came to the place itself\n");
	}
	unshare(CLONE_NEWUSER | CLONE_NEWNET);
	said("from a namespace", connect(tcp(), (void *)&a, sizeof a));
	if (accept(s, NULL, NULL) >= 0)
		printf("OPEN: somebody came to the place itself\n");
}

/* A server whose place strangers on the host connect to (see `knock`): it serves those who come through the stack. */
static void besieged(void)
{
	int port, s = serve(&port);
	struct sockaddr_in to = at(LOOPBACK, port);
	double slowest = 0;
	pid_t child;
	fflush(stdout);
	if (!(child = fork())) {
		char byte;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;) {
			int t = accept(s, NULL, NULL);
			if (t >= 0 && recv(t, &byte, 1, 0) == 1 && byte == 'H')
				printf("OPEN: a stranger was accepted\n");
			send(t, "x", 1, MSG_NOSIGNAL);
			close(t);
		}
	}
	puts("ready");
	for (double until = seconds() + 4; seconds() < until; tries++) {
		double start = seconds();
		char byte;
		int t = tcp();
		if (connect(t, (void *)&to, sizeof to) || send(t, "G", 1, 0) != 1 || recv(t, &byte, 1, 0) != 1)
			printf("OPEN: a client was not served\n");
		close(t);
		if (seconds() - start > slowest)
			slowest = seconds() - start;
		usleep(1000);
	}
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	printf("slowest=%.3f\n", slowest);
}

/* The stranger: no guest. */
static void knock(void)
{
	long knocked = 0;
	for (double until = seconds() + 3; seconds() < until; tries++) {
		struct sockaddr_in a;
		for (int i = 0; listens_at(0, i, &a); i++) {
			int t = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
			/* As one of the supervisor's own would come. */
			struct sockaddr_in from = { .sin_family = AF_INET, .sin_addr = a.sin_addr };
			setsockopt(t, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
			bind(t, (void *)&from, sizeof from);
			if (!connect(t, (void *)&a, sizeof a) || errno == EINPROGRESS)
				knocked += send(t, "H", 1, MSG_NOSIGNAL) == 1;
			close(t);
			t = socket(AF_INET, SOCK_STREAM, 0);
			setsockopt(t, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
			if (!bind(t, (void *)&a, sizeof a) && !listen(t, 5))
				printf("shared a place\n");
			close(t);
		}
		usleep(500);
	}
	printf("knocked=%ld\n", knocked);
}

int main(int argc, char **argv)
{
	static const struct attack attacks[] = {
		{ "abandoned", abandoned }, { "besieged", besieged }, { "interfaces", interfaces }, { "knock", knock }, { "place", place },
		{ "shared_table", shared_table }, { "storm", storm }, { "taken", taken }, { "terminal", terminal }, { 0 },
	};
	return dispatch(attacks, argc, argv);
}
