/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the hostile programs share: where to go, and how to say what happened.
 *
 * A program prints one line "OPEN: ..." for each thing it got that it must not get, and ends with
 * "tries=N". What counts is the servers' own tally; OPEN is for what no server can see. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Where the tests put their servers; the test program has the same numbers. */
#define ALLOWED "192.0.2.10"
#define ALLOWED_PORT 7000
#define DENIED "192.0.2.11"
#define DENIED6 "2001:db8::10"
#define DENIED_PORT 7100
#define LOOPBACK "127.0.0.1"

__attribute__((unused)) static long tries;

__attribute__((unused)) static struct sockaddr_in at(const char *ip, int port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };
	inet_pton(AF_INET, ip, &a.sin_addr);
	return a;
}

__attribute__((unused)) static struct sockaddr_in6 at6(const char *ip, int port)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	inet_pton(AF_INET6, ip, &a.sin6_addr);
	return a;
}

__attribute__((unused)) static struct sockaddr_un path_name(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	strncpy(a.sun_path, path, sizeof a.sun_path - 1);
	return a;
}

/* The two servers that must never be reached. */
__attribute__((unused)) static const char *const forbidden[] = { DENIED, LOOPBACK };
#define EACH_FORBIDDEN(a)            \
	for (int i_ = 0; i_ < 2; i_++) \
		for (struct sockaddr_in a = at(forbidden[i_], DENIED_PORT), *once_ = &a; once_; once_ = NULL)

__attribute__((unused)) static int tcp(void)
{
	return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

__attribute__((unused)) static double seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* Runs `attack` in a child, which may be killed for it. */
__attribute__((unused)) static void in_child(void (*attack)(void))
{
	fflush(stdout);
	pid_t child = fork();
	if (!child) {
		attack();
		fflush(stdout);
		_exit(0);
	}
	int status = 0;
	waitpid(child, &status, 0);
	if (WIFSIGNALED(status))
		printf("killed by signal %d\n", WTERMSIG(status));
}

__attribute__((unused)) static void said(const char *what, long result)
{
	printf("%s: %ld%s%s\n", what, result, result < 0 ? " " : "", result < 0 ? strerror(errno) : "");
	tries++;
}

/* The host's own tables, whatever namespace the program enters later. */
static FILE *host_tables[2];
__attribute__((constructor)) static void open_host_tables(void)
{
	host_tables[0] = fopen("/proc/thread-self/net/tcp", "re");
	host_tables[1] = fopen("/proc/thread-self/net/tcp6", "re");
}

/* Whether a socket listens where others than the host itself could reach it: anywhere but on the private
 * loopback addresses, 127.64.0.0/10, where a listener waits for the supervisor. */
__attribute__((unused)) static int listens_openly(int s)
{
	struct stat stat;
	char line[256], local[64];
	unsigned long inode;
	unsigned state;
	int open = 0;
	if (fstat(s, &stat))
		return 0;
	for (int v6 = 0; v6 < 2; v6++) {
		FILE *table = host_tables[v6];
		if (table)
			rewind(table);
		while (table && fgets(line, sizeof line, table)) {
			if (sscanf(line, "%*d: %63[0-9A-F]:%*x %*x:%*x %x %*x:%*x %*x:%*x %*x %*d %*d %lu", local,
				   &state, &inode) != 3 &&
			    sscanf(line, "%*d: %63[0-9A-F]:%*x %*[0-9A-F]:%*x %x %*x:%*x %*x:%*x %*x %*d %*d %lu",
				   local, &state, &inode) != 3)
				continue;
			if (inode != stat.st_ino || state != 0x0a)
				continue;
			/* Words of the machine's own order. */
			unsigned long word = strtoul(local + strlen(local) - 8, NULL, 16);
			int mapped = !v6 || !strncmp(local, "0000000000000000FFFF0000", 24);
			if (!mapped || (word & 0xff) != 127 || (word >> 8 & 0xc0) != 0x40)
				open = 1;
		}
	}
	return open;
}

struct attack {
	const char *name;
	void (*run)(void);
};

/* Runs the attack named by the first argument. */
__attribute__((unused)) static int dispatch(const struct attack *attacks, int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);
	for (; argc > 1 && attacks->name; attacks++) {
		if (strcmp(attacks->name, argv[1]))
			continue;
		attacks->run();
		printf("tries=%ld\n", tries);
		return 0;
	}
	fprintf(stderr, "no such attack\n");
	return 2;
}
