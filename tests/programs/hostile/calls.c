/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* System calls that reach, or might reach, a server past the verdict. One attack a run. */
#include "hostile.h"
#include <linux/io_uring.h>
#include <net/if.h>

static void plain(void)
{
	EACH_FORBIDDEN(a) {
		int s = tcp();
		said("connect", connect(s, (void *)&a, sizeof a));
		close(s);
	}
	struct sockaddr_in6 a6 = at6(DENIED6, DENIED_PORT);
	struct sockaddr_in6 mapped = at6("::ffff:" LOOPBACK, DENIED_PORT);
	struct sockaddr_in6 *each[] = { &a6, &mapped };
	for (int i = 0; i < 2; i++)
		/* 24: the size of RFC 2133, without a scope. */
		for (int size = 24; size <= 28; size += 4) {
			int s = socket(AF_INET6, SOCK_STREAM, 0);
			said("connect6", connect(s, (void *)each[i], size));
			close(s);
		}
}

static void high_halves(void)
{
	const long garbage = 0x8900000400000000;
	EACH_FORBIDDEN(a) {
		long s = syscall(SYS_socket, garbage | AF_INET, garbage | SOCK_STREAM, garbage);
		said("socket", s);
		said("connect", syscall(SYS_connect, garbage | s, &a, garbage | sizeof a));
		said("sendto", syscall(SYS_sendto, garbage | s, "x", 1, garbage | MSG_FASTOPEN, &a, garbage | 16));
		long u = syscall(SYS_socket, garbage | AF_INET, garbage | SOCK_DGRAM, garbage);
		said("datagram", u);
		said("sendto", syscall(SYS_sendto, garbage | u, "x", 1, garbage, &a, garbage | sizeof a));
	}
}

/* io_uring, by hand: one entry. */
static int ring_do(int ring, char *rings, struct io_uring_params *p, struct io_uring_sqe *slot,
		   const struct io_uring_sqe *entry)
{
	unsigned *tail = (void *)(rings + p->sq_off.tail), *array = (void *)(rings + p->sq_off.array);
	unsigned *head = (void *)(rings + p->cq_off.head), mask = *(unsigned *)(rings + p->cq_off.ring_mask);
	unsigned index = *tail & *(unsigned *)(rings + p->sq_off.ring_mask);
	slot[index] = *entry;
	array[index] = index;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0);
	struct io_uring_cqe *done = (void *)(rings + p->cq_off.cqes);
	int result = done[*head & mask].res;
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	return result;
}

static void io_uring(void)
{
	EACH_FORBIDDEN(a) {
		struct io_uring_params p = { 0 };
		int ring = syscall(SYS_io_uring_setup, 4, &p);
		said("io_uring_setup", ring);
		said("io_uring_register", syscall(SYS_io_uring_register, ring, 0, NULL, 0));
		said("io_uring_enter", syscall(SYS_io_uring_enter, ring, 0, 0, 0, NULL, 0));
		if (ring < 0)
			continue;
		char *rings = mmap(0, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe) + 4096,
				   PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
		struct io_uring_sqe *slot = mmap(0, p.sq_entries * sizeof *slot, PROT_READ | PROT_WRITE,
						 MAP_SHARED, ring, IORING_OFF_SQES);
		struct io_uring_sqe e = { .opcode = 45 /* SOCKET */, .fd = AF_INET, .off = SOCK_STREAM };
		int s = ring_do(ring, rings, &p, slot, &e);
		e = (struct io_uring_sqe){ .opcode = IORING_OP_CONNECT, .fd = s, .addr = (uintptr_t)&a,
					   .off = sizeof a };
		said("ring connect", ring_do(ring, rings, &p, slot, &e));
	}
}

static void fast_open(void)
{
	EACH_FORBIDDEN(a) {
		struct iovec data = { "x", 1 };
		struct mmsghdr m = { .msg_hdr = { &a, sizeof a, &data, 1 } };
		int s = tcp();
		said("sendto", sendto(s, "x", 1, MSG_FASTOPEN | MSG_NOSIGNAL, (void *)&a, sizeof a));
		close(s);
		s = tcp();
		said("sendmsg", sendmsg(s, &m.msg_hdr, MSG_FASTOPEN | MSG_NOSIGNAL));
		close(s);
		s = tcp();
		said("sendmmsg", sendmmsg(s, &m, 1, MSG_FASTOPEN | MSG_NOSIGNAL));
		close(s);
		/* The header's own flags are an output: nothing may come of them. */
		s = tcp();
		m.msg_hdr.msg_flags = MSG_FASTOPEN;
		said("sendmsg, flags inside", sendmsg(s, &m.msg_hdr, MSG_NOSIGNAL));
		said("sendto without the flag", sendto(s, "x", 1, MSG_NOSIGNAL, (void *)&a, sizeof a));
		close(s);
	}
}

static void fast_open_connect(void)
{
	EACH_FORBIDDEN(a) {
		int s = tcp(), one = 1;
		said("TCP_FASTOPEN_CONNECT", setsockopt(s, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &one, 4));
		said("connect", connect(s, (void *)&a, sizeof a));
		said("write", send(s, "x", 1, MSG_NOSIGNAL));
		close(s);
	}
}

static long call32(long number, long a, long b, long c)
{
	long result;
	__asm__ volatile("push %%rbx; mov %2, %%rbx; int $0x80; pop %%rbx"
			 : "=a"(result)
			 : "0"(number), "r"(a), "c"(b), "d"(c)
			 : "memory", "r8", "r9", "r10", "r11");
	return result;
}

static void int80_each(void)
{
	unsigned *low = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	EACH_FORBIDDEN(a) {
		memcpy(low, &a, sizeof a);
		long s = call32(359, AF_INET, SOCK_STREAM, 0);
		said("socket", s);
		said("connect", call32(362, s, (long)low, sizeof a));
	}
}

static void int80_socketcall(void)
{
	unsigned *low = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	EACH_FORBIDDEN(a) {
		/* A socket of the right kind is at hand: only the connect goes the other way. */
		memcpy(low, &a, sizeof a);
		low[32] = tcp(), low[33] = (uintptr_t)low, low[34] = sizeof a;
		said("socketcall(SYS_CONNECT)", call32(102, 3, (long)&low[32], 0));
	}
}

static void int80(void)
{
	tries += 2;
	in_child(int80_each);
	in_child(int80_socketcall);
}

static void x32_each(void)
{
	EACH_FORBIDDEN(a) {
		int s = tcp();
		said("x32 connect", syscall(0x40000000 | SYS_connect, s, &a, sizeof a));
		said("x32 sendmsg", syscall(0x40000000 | 518, s, &a, sizeof a));
	}
}

static void x32(void)
{
	tries++;
	in_child(x32_each);
}

static void other_protocols(void)
{
	static const int kinds[][3] = {
		{ AF_INET, SOCK_STREAM, 262 /* MPTCP */ }, { AF_INET, SOCK_DGRAM, 0 },
		{ AF_INET, SOCK_DGRAM, IPPROTO_UDP },	   { AF_INET, SOCK_DGRAM, 136 /* UDPLITE */ },
		{ AF_INET, SOCK_DGRAM, IPPROTO_ICMP },	   { AF_INET, SOCK_STREAM, 132 /* SCTP */ },
		{ AF_INET, SOCK_SEQPACKET, 132 },	   { AF_INET, 6 /* DCCP */, 33 },
		{ AF_INET, SOCK_STREAM, 256 /* SMC */ },   { 43 /* AF_SMC */, SOCK_STREAM, 0 },
		{ AF_INET, SOCK_DGRAM, 115 /* L2TP */ },   { 21 /* AF_RDS */, SOCK_SEQPACKET, 0 },
		{ AF_INET, SOCK_STREAM | 0x10, 0 },	   { 30 /* AF_TIPC */, SOCK_STREAM, 0 },
	};
	EACH_FORBIDDEN(a)
		for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++) {
			int s = socket(kinds[i][0], kinds[i][1] | SOCK_NONBLOCK, kinds[i][2]);
			said("socket", s);
			if (s < 0)
				continue;
			said("connect", connect(s, (void *)&a, sizeof a));
			said("sendto", sendto(s, "datagram", 8, MSG_NOSIGNAL, (void *)&a, sizeof a));
			struct pollfd p = { s, POLLOUT, 0 };
			poll(&p, 1, 200);
			close(s);
		}
	int pair[2];
	said("socketpair", socketpair(AF_INET, SOCK_STREAM, 0, pair));
	said("socketpair", socketpair(30 /* AF_TIPC */, SOCK_RDM, 0, pair));
}

/* A UDP datagram with its own IPv4 header, and the same to a device. */
static void raw_and_packet(void)
{
	unsigned char frame[] = { 0x45, 0, 0, 29, 0, 1, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
				  0x1b, 0xbc, 0, 0, 0, 9, 0, 0, 'x' };
	EACH_FORBIDDEN(a) {
		memcpy(frame + 16, &a.sin_addr, 4);
		memcpy(frame + 12, &a.sin_addr, 4);
		memcpy(frame + 22, &a.sin_port, 2);
		int s = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
		said("raw", s);
		said("sendto", sendto(s, frame, sizeof frame, 0, (void *)&a, sizeof a));
		said("raw TCP", socket(AF_INET, SOCK_RAW, IPPROTO_TCP));
		said("raw 6", socket(AF_INET6, SOCK_RAW, IPPROTO_RAW));
	}
	said("packet", socket(AF_PACKET, SOCK_RAW, htons(3)));
	said("packet", socket(AF_PACKET, SOCK_DGRAM, htons(0x800)));
	said("netlink", socket(AF_NETLINK, SOCK_RAW, 0));
	said("xdp", socket(44, SOCK_RAW, 0));
	said("vsock", socket(40, SOCK_STREAM, 0));
}

/* Options that lead a packet elsewhere. Where one is accepted, an allowed connection follows. */
static void options(void)
{
	unsigned char route[] = { 131, 7, 4, 192, 0, 2, 11, 0 };
	int one = 1, index = 1;
	struct sockaddr_in allowed = at(ALLOWED, ALLOWED_PORT);
	const struct {
		int level, name;
		const void *value;
		int size;
	} each[] = {
		{ IPPROTO_IP, IP_OPTIONS, route, 8 },	  { IPPROTO_IPV6, IPV6_RTHDR, route, 8 },
		{ IPPROTO_IPV6, IPV6_2292PKTOPTIONS, route, 8 },
		{ SOL_SOCKET, SO_BINDTODEVICE, "lo", 3 }, { SOL_SOCKET, 62 /* BINDTOIFINDEX */, &index, 4 },
		{ SOL_SOCKET, SO_MARK, &one, 4 },	  { IPPROTO_IP, IP_TRANSPARENT, &one, 4 },
		{ IPPROTO_IP, IP_FREEBIND, &one, 4 },	  { IPPROTO_TCP, TCP_REPAIR, &one, 4 },
		{ IPPROTO_IPV6, 1 /* ADDRFORM */, &one, 4 }, { IPPROTO_IP, 50 /* UNICAST_IF */, &index, 4 },
	};
	for (unsigned i = 0; i < sizeof each / sizeof *each; i++) {
		int s = socket(i % 2 ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
		int r = setsockopt(s, each[i].level, each[i].name, each[i].value, each[i].size);
		said("setsockopt", r);
		if (!r)
			printf("OPEN: option %d of level %d\n", each[i].name, each[i].level);
		close(s);
		s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		setsockopt(s, each[i].level, each[i].name, each[i].value, each[i].size);
		connect(s, (void *)&allowed, sizeof allowed);
		poll(&(struct pollfd){ s, POLLOUT, 0 }, 1, 200);
		close(s);
	}
	EACH_FORBIDDEN(a) {
		int s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		setsockopt(s, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3);
		said("connect", connect(s, (void *)&a, sizeof a));
		poll(&(struct pollfd){ s, POLLOUT, 0 }, 1, 200);
	}
}

/* A connection dissolved and made again, also through a duplicate. */
static void unspec(void)
{
	struct sockaddr_in allowed = at(ALLOWED, ALLOWED_PORT);
	struct sockaddr none = { AF_UNSPEC };
	for (int i = 0; i < 20; i++)
		EACH_FORBIDDEN(a) {
			int s = tcp(), copy = dup(s);
			said("allowed", connect(s, (void *)&allowed, sizeof allowed));
			said("AF_UNSPEC", connect(copy, &none, i % 2 ? sizeof none : 2));
			said("denied", connect(s, (void *)&a, sizeof a));
			said("write", send(copy, "x", 1, MSG_NOSIGNAL));
			close(s), close(copy);
		}
}

/* listen(2) binds by itself. A port that is open to the host is what must not come of it. */
static void auto_bind(void)
{
	struct sockaddr_in any = at("0.0.0.0", 0);
	for (int i = 0; i < 4; i++) {
		int s = socket(i % 2 ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
		if (i / 2)
			said("bind", bind(s, (void *)&any, sizeof any));
		said("listen", listen(s, 5));
		if (listens_openly(s))
			printf("OPEN: a port of the host\n");
	}
}

static void bpf(void)
{
	char attributes[128] = { 0 };
	for (int command = 0; command < 6; command++) {
		long r = syscall(SYS_bpf, command, attributes, sizeof attributes);
		said("bpf", r);
		if (r >= 0 || errno != EPERM)
			printf("OPEN: bpf command %d\n", command);
	}
}

/* Addresses that the host gets only now. */
static void late_address(void)
{
	static const char *const each[] = { "192.0.2.77", "198.18.0.5" };
	char byte;
	puts("ready");
	if (read(0, &byte, 1) != 1)
		return;
	for (int i = 0; i < 2; i++) {
		struct sockaddr_in a = at(each[i], DENIED_PORT + 2);
		said(each[i], connect(tcp(), (void *)&a, sizeof a));
	}
}

int main(int argc, char **argv)
{
	static const struct attack attacks[] = {
		{ "auto_bind", auto_bind }, { "bpf", bpf }, { "fast_open", fast_open },
		{ "fast_open_connect", fast_open_connect }, { "high_halves", high_halves }, { "int80", int80 },
		{ "io_uring", io_uring }, { "late_address", late_address }, { "options", options }, { "other_protocols", other_protocols },
		{ "plain", plain }, { "raw_and_packet", raw_and_packet }, { "unspec", unspec }, { "x32", x32 }, { 0 },
	};
	return dispatch(attacks, argc, argv);
}
