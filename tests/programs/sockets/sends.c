/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* sendto, sendmsg and sendmmsg over AF_UNIX, told line by line: natively and under netshunt the
 * lines must be the same. Streams twice: before there is a datagram socket, and after. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void tell(const char *what, long result)
{
	printf("%s: %ld %s\n", what, result, result < 0 ? strerrorname_np(errno) : "");
}

static struct sockaddr_un name(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	strncpy(a.sun_path, path, sizeof a.sun_path - 1);
	return a;
}

static int bound(int type, const char *path)
{
	struct sockaddr_un a = name(path);
	int s = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	unlink(path);
	if (bind(s, (void *)&a, sizeof a))
		perror(path);
	return s;
}

static long message(int s, const char *to, const char *data, int flags)
{
	struct sockaddr_un a = name(to ? to : "");
	struct iovec parts[2] = { { (void *)data, 1 }, { (void *)(data + 1), strlen(data) - 1 } };
	struct msghdr m = { .msg_iov = parts, .msg_iovlen = 2 };
	if (to)
		m.msg_name = &a, m.msg_namelen = sizeof a;
	return sendmsg(s, &m, flags);
}

/* With one control message. */
static long with_control(int s, int type, const void *value, size_t size, size_t claimed)
{
	char control[CMSG_SPACE(64)] = { 0 };
	struct iovec data = { "attached", 8 };
	struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control };
	struct cmsghdr *c = (void *)control;
	m.msg_controllen = CMSG_SPACE(size);
	c->cmsg_level = SOL_SOCKET, c->cmsg_type = type, c->cmsg_len = claimed ? claimed : CMSG_LEN(size);
	memcpy(CMSG_DATA(c), value, size);
	return sendmsg(s, &m, MSG_NOSIGNAL);
}

/* Receives a message, and reads from the descriptor that came with it. */
static void receive(const char *what, int s)
{
	char control[CMSG_SPACE(64)], text[128] = { 0 }, behind[64] = { 0 };
	struct sockaddr_un from = { 0 };
	struct iovec data = { text, sizeof text - 1 };
	struct msghdr m = { .msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &data, .msg_iovlen = 1,
			    .msg_control = control, .msg_controllen = sizeof control };
	tell(what, recvmsg(s, &m, MSG_DONTWAIT));
	printf("  '%s' from '%s'\n", text, m.msg_namelen > 2 ? from.sun_path : "");
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		int fd;
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		memcpy(&fd, CMSG_DATA(c), sizeof fd);
		lseek(fd, 0, SEEK_SET);
		printf("  descriptor with '%s'\n", read(fd, behind, sizeof behind - 1) > 0 ? behind : "");
		close(fd);
	}
}

static int signals;

static void count(int number)
{
	(void)number;
	signals++;
}

static void handle(int number)
{
	struct sigaction action = { .sa_handler = count };
	sigaction(number, &action, NULL);
	signals = 0;
}

static int a_file(void)
{
	FILE *file = tmpfile();
	fputs("the file", file);
	fflush(file);
	return fileno(file);
}

static void mistakes(int s)
{
	struct iovec none[1] = { { "x", 1 } };
	struct msghdr m = { .msg_iov = none, .msg_iovlen = 1025 };
	int bad = 999;
	tell("no descriptor", message(999, NULL, "xy", 0));
	tell("no socket", message(STDOUT_FILENO, NULL, "xy", 0));
	tell("no message", sendmsg(s, NULL, 0));
	tell("too many parts", sendmsg(s, &m, 0));
	m.msg_iovlen = 1, m.msg_name = &m, m.msg_namelen = -1;
	tell("a negative address", sendmsg(s, &m, 0));
	m.msg_namelen = 0, none[0].iov_base = NULL;
	tell("no data", sendmsg(s, &m, MSG_DONTWAIT));
	none[0].iov_base = "x", none[0].iov_len = -1;
	tell("negative data", sendmsg(s, &m, MSG_DONTWAIT));
	tell("a descriptor that is not", with_control(s, SCM_RIGHTS, &bad, 4, 0));
	tell("a control message cut", with_control(s, SCM_RIGHTS, &bad, 4, 90));
	tell("an unknown control message", with_control(s, 77, &bad, 4, 0));
}

static void *drain(void *arg)
{
	static char buffer[65536];
	long total = 0, sum = 0, n;
	while ((n = read(*(int *)arg, buffer, sizeof buffer)) > 0)
		for (total += n; n--;)
			sum += buffer[n];
	return (void *)(total ^ sum << 32);
}

static void streams(void)
{
	static char big[3 << 20];
	struct iovec data = { big, sizeof big };
	struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1 };
	struct mmsghdr two[2] = { 0 };
	struct ucred own = { getpid(), getuid(), getgid() };
	struct timeval wait = { 0, 40000 };
	int pair[2], file = a_file();
	pthread_t reader;
	void *sum;
	for (size_t i = 0; i < sizeof big; i++)
		big[i] = i * 7 >> 3;

	socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
	tell("stream", message(pair[0], NULL, "stream", 0));
	receive("stream received", pair[1]);
	tell("stream with descriptor", with_control(pair[0], SCM_RIGHTS, &file, 4, 0));
	receive("stream received", pair[1]);
	tell("own credentials", with_control(pair[0], SCM_CREDENTIALS, &own, sizeof own, 0));
	receive("stream received", pair[1]);
	own.pid = 1;
	if (getuid())
		tell("another's credentials", with_control(pair[0], SCM_CREDENTIALS, &own, sizeof own, 0));
	tell("stream with address", message(pair[0], "nowhere", "x", 0));
	mistakes(pair[0]);
	two[0].msg_hdr = two[1].msg_hdr = (struct msghdr){ .msg_iov = (struct iovec[]){ { "abc", 3 } }, .msg_iovlen = 1 };
	tell("two over a stream", sendmmsg(pair[0], two, 2, 0));
	printf("  %u and %u\n", two[0].msg_len, two[1].msg_len);
	receive("stream received", pair[1]);

	tell("what fits", sendmsg(pair[0], &m, MSG_DONTWAIT) > 0);
	tell("what does not", sendmsg(pair[0], &m, MSG_DONTWAIT));
	setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
	tell("not in time", sendmsg(pair[0], &m, 0));
	wait.tv_usec = 0;
	setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
	close(pair[0]), close(pair[1]);

	socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
	pthread_create(&reader, NULL, drain, &pair[1]);
	tell("more than fits", sendmsg(pair[0], &m, 0));
	shutdown(pair[0], SHUT_WR);
	pthread_join(reader, &sum);
	tell("arrived", (long)sum & 0x7fffffffffffffff);
	close(pair[1]);
	handle(SIGPIPE);
	tell("pipe broken", message(pair[0], NULL, "xy", 0));
	tell("signals", signals);
	tell("quietly", message(pair[0], NULL, "xy", MSG_NOSIGNAL));
	tell("signals", signals);
	close(pair[0]);

	socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair);
	tell("packet", message(pair[0], "ignored", "packet", 0));
	receive("packet received", pair[1]);
	tell("too long a packet", sendmsg(pair[0], &m, 0));
	close(pair[0]), close(pair[1]);
	pair[0] = socket(AF_UNIX, SOCK_STREAM, 0);
	tell("unconnected", message(pair[0], NULL, "xy", MSG_NOSIGNAL));
	tell("unconnected with address", message(pair[0], "nowhere", "xy", MSG_NOSIGNAL));
	close(pair[0]);
	close(file);
}

static void *receive_late(void *arg)
{
	char byte[8];
	nanosleep(&(struct timespec){ 0, 100000000 }, NULL);
	while (recv(*(int *)arg, byte, sizeof byte, 0) > 0 && byte[0] != 'e')
		;
	return NULL;
}

static void full_queues(int from, int to)
{
	struct timeval wait = { 0, 40000 };
	struct itimerval soon = { { 0, 30000 }, { 0, 30000 } }, never = { 0 };
	struct sockaddr_un a = name("inside");
	pthread_t reader;
	long sent = 0;
	while (sendto(from, "full", 4, MSG_DONTWAIT, (void *)&a, sizeof a) == 4)
		sent++;
	tell("until full", sent);
	tell("full", message(from, "inside", "xy", MSG_DONTWAIT));
	setsockopt(from, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
	tell("not in time", message(from, "inside", "xy", 0));
	wait.tv_usec = 0;
	setsockopt(from, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
	handle(SIGALRM);
	setitimer(ITIMER_REAL, &soon, NULL);
	tell("interrupted", message(from, "inside", "xy", 0));
	setitimer(ITIMER_REAL, &never, NULL);
	pthread_create(&reader, NULL, receive_late, &to);
	tell("room at last", message(from, "inside", "end", 0));
	pthread_join(reader, NULL);
}

static void datagrams(void)
{
	static char big[1 << 20];
	int from = bound(SOCK_DGRAM, "from"), to = bound(SOCK_DGRAM, "inside"), other = bound(SOCK_DGRAM, "other");
	int stream = bound(SOCK_STREAM, "stream"), picky = bound(SOCK_DGRAM, "picky"), file = a_file(), pair[2];
	struct sockaddr_un in = name("inside"), gone = name("nowhere"), hidden = { .sun_family = AF_UNIX };
	struct sockaddr_in internet = { .sin_family = AF_INET };
	struct iovec data = { "many", 4 };
	struct mmsghdr m[3] = { 0 };
	listen(stream, 1);
	tell("sendto", sendto(from, "sendto", 6, 0, (void *)&in, sizeof in));
	receive("received", to);
	tell("nothing", sendto(from, "", 0, 0, (void *)&in, sizeof in));
	receive("received", to);
	tell("sendmsg", message(from, "inside", "sendmsg", 0));
	receive("received", to);
	tell("to a link", symlink("inside", "link") ? -1 : message(from, "link", "by link", 0));
	receive("received", to);
	unlink("link");
	tell("nowhere", message(from, "nowhere", "xy", 0));
	tell("to a stream", message(from, "stream", "xy", 0));
	tell("to a file", message(from, "/etc/passwd", "xy", 0));
	tell("to the internet", sendto(from, "xy", 2, 0, (void *)&internet, sizeof internet));
	tell("to no name", sendto(from, "xy", 2, 0, (void *)&in, 2));
	tell("too long a name", sendto(from, "xy", 2, 0, (void *)&in, 200));
	tell("too long", sendto(from, big, sizeof big, 0, (void *)&in, sizeof in));
	tell("without address", message(from, NULL, "xy", 0));
	tell("out of band", message(from, "inside", "xy", MSG_OOB));
	mistakes(from);

	tell("connect", connect(picky, (void *)&in, sizeof in));
	tell("to one with another peer", message(from, "picky", "xy", 0));
	tell("from one with another peer", message(picky, "other", "other", 0));
	receive("received", other);
	tell("to its peer", message(picky, NULL, "peer", 0));
	receive("received", to);
	tell("with descriptor", with_control(picky, SCM_RIGHTS, &file, 4, 0));
	receive("received", to);

	for (int i = 0; i < 3; i++)
		m[i].msg_hdr = (struct msghdr){ .msg_name = &in, .msg_namelen = sizeof in, .msg_iov = &data, .msg_iovlen = 1 };
	tell("three", sendmmsg(from, m, 3, 0));
	printf("  %u %u %u\n", m[0].msg_len, m[1].msg_len, m[2].msg_len);
	m[1].msg_hdr.msg_name = &gone, m[0].msg_len = m[1].msg_len = m[2].msg_len = 99;
	tell("one of three", sendmmsg(from, m, 3, 0));
	printf("  %u %u %u\n", m[0].msg_len, m[1].msg_len, m[2].msg_len);
	m[0].msg_hdr.msg_name = &gone;
	tell("none of three", sendmmsg(from, m, 3, 0));
	tell("no messages", sendmmsg(from, m, 0, 0));
	for (int i = 0; i < 4; i++)
		receive("received", to);

	snprintf(hidden.sun_path + 1, 40, "netshunt-sends-%d", getpid());
	close(other);
	other = socket(AF_UNIX, SOCK_DGRAM, 0);
	tell("bind", bind(other, (void *)&hidden, 40));
	tell("abstract", sendto(from, "abstract", 8, 0, (void *)&hidden, 40));
	receive("received", other);
	close(other);
	tell("abstract, gone", sendto(from, "abstract", 8, 0, (void *)&hidden, 40));

	tell("pair", socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
	tell("to the other end", message(pair[0], NULL, "pair", 0));
	receive("received", pair[1]);
	tell("to another", message(pair[0], "inside", "not the pair", 0));
	receive("received", to);
	full_queues(from, to);
	close(to);
	tell("closed", message(from, "inside", "xy", 0));
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	streams();
	datagrams();
	streams();
	return 0;
}
