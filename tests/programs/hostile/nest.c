/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Namespaces: sockets carried into one, ways back out of it, and what the supervisor does for
 * sockets that live there. */
#include "hostile.h"
#include <linux/if_xdp.h>

static void enter(void)
{
	said("unshare", unshare(CLONE_NEWUSER | CLONE_NEWNET));
}

/* All that might lead a socket of the host's out, from within another namespace. */
static void use(int s, const struct sockaddr_in *a)
{
	struct sockaddr_in any = at("0.0.0.0", 0);
	said("connect", connect(s, (void *)a, sizeof *a));
	said("sendto", sendto(s, "x", 1, MSG_FASTOPEN | MSG_NOSIGNAL, (void *)a, sizeof *a));
	said("bind", bind(s, (void *)&any, sizeof any));
	said("listen", listen(s, 5));
	if (listens_openly(s))
		printf("OPEN: a socket of the host's listens\n");
	said("SO_BINDTODEVICE", setsockopt(s, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3));
	said("connect", connect(s, (void *)a, sizeof *a));
}

static void carried(void)
{
	int s[2] = { tcp(), tcp() }, i = 0;
	enter();
	EACH_FORBIDDEN(a)
		use(s[i++], &a);
}

static void carried_twice(void)
{
	int s[2] = { tcp(), tcp() }, i = 0;
	const int uid = getuid();
	enter();
	int map = open("/proc/self/uid_map", O_WRONLY);
	said("uid_map", dprintf(map, "%d %d 1\n", uid, uid));
	close(map);
	enter();
	EACH_FORBIDDEN(a)
		use(s[i++], &a);
}

/* A thread that enters; its sockets and the others' share one table. */
static void *enter_alone(void *arg)
{
	*(int *)arg = syscall(SYS_unshare, CLONE_NEWNET);
	EACH_FORBIDDEN(a)
		use(tcp(), &a);
	return NULL;
}

static void thread_enters(void)
{
	int s[2] = { tcp(), tcp() }, result = 0, i = 0;
	pthread_t thread;
	pthread_create(&thread, NULL, enter_alone, &result);
	pthread_join(thread, NULL);
	EACH_FORBIDDEN(a)
		use(s[i++], &a);
}

static void set_namespace(void)
{
	char path[64];
	int before = open("/proc/self/ns/net", O_RDONLY), fd[4], n = 0;
	fd[n++] = before;
	snprintf(path, sizeof path, "/proc/%d/ns/net", getppid());
	fd[n++] = open(path, O_RDONLY);
	fd[n++] = open("/proc/1/ns/net", O_RDONLY);
	fd[n++] = syscall(SYS_pidfd_open, getppid(), 0);
	enter();
	for (int i = 0; i < n; i++) {
		said("setns", setns(fd[i], CLONE_NEWNET));
		said("setns, any", setns(fd[i], 0));
		said("setns, two", setns(fd[i], CLONE_NEWNET | CLONE_NEWUSER));
	}
	EACH_FORBIDDEN(a)
		said("connect", connect(tcp(), (void *)&a, sizeof a));
}

/* Families that do not know network namespaces lead out of every one. */
static void family(void)
{
	enter();
	int s = socket(40 /* AF_VSOCK */, SOCK_STREAM, 0);
	said("vsock", s);
	if (s >= 0)
		printf("OPEN: a socket that speaks to the machine's hypervisor\n");
}

static int is_mapped(uintptr_t page)
{
	unsigned char resident;
	return !mincore((void *)page, 1, &resident) || errno != ENOMEM;
}

/* An option whose value holds an address: performed by the supervisor, it would mean its memory.
 * XDP_UMEM_REG pins pages, which the socket then sends as packets: its memory could be read. */
static void pointer_option(void)
{
	/* Heaps of malloc(3) start at multiples of 64 MiB. */
	const uintptr_t step = 64 << 20;
	enter();
	for (uintptr_t page = 0x7fffc0000000; page > 0x7d0000000000; page -= step) {
		if (is_mapped(page))
			continue;
		int s = socket(AF_XDP, SOCK_RAW, 0);
		struct xdp_umem_reg memory = { .addr = page, .len = 4096, .chunk_size = 4096 };
		tries++;
		if (!setsockopt(s, SOL_XDP, XDP_UMEM_REG, &memory, sizeof memory)) {
			printf("OPEN: took %#lx, which is not mapped here\n", (long)page);
			return;
		}
		close(s);
	}
}

int main(int argc, char **argv)
{
	static const struct attack attacks[] = {
		{ "carried", carried }, { "carried_twice", carried_twice }, { "family", family },
		{ "pointer_option", pointer_option }, { "set_namespace", set_namespace },
		{ "thread_enters", thread_enters }, { 0 },
	};
	return dispatch(attacks, argc, argv);
}
