/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * liblkl.so: Linux's network stack in the calling process. This header is the whole interface
 * between the library and its host program; bump LK_API_VERSION with every change.
 *
 * Rules, for every function but lk_api_version() and lk_version():
 * - All calls come from one host thread, the one that called lk_start().
 * - A host operation must not call back: such a call answers -EDEADLK.
 * - Before lk_start() and after lk_shutdown() calls answer -ESHUTDOWN.
 * - A stale, foreign or invented handle answers -EBADF.
 * - Errors are negative Linux errno values. Nothing blocks.
 */
#ifndef LK_API_H
#define LK_API_H

#ifdef __KERNEL__
#include <linux/types.h>
#define LK_API __attribute__((visibility("default")))
#else
#include <stddef.h>
#include <stdint.h>
typedef uint64_t u64;
typedef int64_t s64;
typedef uint32_t u32;
typedef uint16_t u16;
typedef uint8_t u8;
#define LK_API
#endif

#define LK_API_VERSION 3

/* LK_API_VERSION of the library. */
LK_API u32 lk_api_version(void);
/* The kernel release, "6.12.117". */
LK_API const char *lk_version(void);

struct lk_iov {
	const void *base;
	size_t len;
};

/*
 * What the kernel needs from the host: it makes no system calls. All are called on the host's
 * thread, but possibly on a kernel thread's stack of LK_STACK_SIZE bytes, and must return by
 * returning: unwinding or longjmp() through kernel frames is undefined.
 */
#define LK_STACK_SIZE (128 * 1024)
struct lk_host_ops {
	/* One kernel log record in the format of /dev/kmsg: "PRIO,SEQ,USEC,FLAGS;TEXT\n". */
	void (*print)(const char *s, u32 len);
	/* The kernel is dead of MSG. Must not return. */
	void (*panic)(const char *msg, u32 len);
	/* Monotonic clock, in ns. */
	u64 (*time_ns)(void);
	/* Wall clock, in ns since 1970. Read once, at boot. */
	u64 (*realtime_ns)(void);
	/* Fills BUF with entropy; returns the number of bytes, or a negative errno. */
	long (*random)(void *buf, size_t len);
	/*
	 * The kernel has to sleep inside a call: wait until time_ns() is UNTIL_NS (~0: there is
	 * nothing to wait for).
	 */
	void (*block)(u64 until_ns);
	void *(*memcpy)(void *to, const void *from, size_t len);
	void *(*memmove)(void *to, const void *from, size_t len);
	void *(*memset)(void *to, int byte, size_t len);
	int (*memcmp)(const void *a, const void *b, size_t len);
	/*
	 * Makes pages of the memory bank or of the library's data read-only (ON) or writable.
	 * Optional: NULL.
	 */
	void (*protect)(void *page, size_t len, int on);
	/* Pages of the memory bank, all zero, that are best not resident. Optional: NULL. */
	void (*discard)(void *page, size_t len);
};

/*
 * Boots. MEM is zeroed, page-aligned memory of LEN bytes that stays mapped for ever (also after
 * lk_shutdown()). -EBUSY if this library was started before, -EINVAL for too little memory.
 */
LK_API int lk_start(const struct lk_host_ops *ops, void *mem, size_t len, const char *cmdline);
/*
 * Closes every socket, lets what that sends leave, detaches every NIC. No host operation is
 * called afterwards.
 */
LK_API int lk_shutdown(void);
/* Timers, soft interrupts and kernel threads until idle. *DEADLINE: next in ns, ~0 for none. */
LK_API int lk_run(u64 *deadline);
/* The cheap variant: due timers, soft interrupts and runnable threads; no pass through idle. */
LK_API int lk_poll(void);
/* Ends the program by the kernel's own panic(), through the panic operation. */
LK_API int lk_panic(const char *msg);

enum {
	LK_STAT_SWITCHES,	/* context switches */
	LK_STAT_TIMERS,		/* timer interrupts */
	LK_STAT_FREE,		/* free memory in bytes */
};
/* A counter since boot, or a negative errno. */
LK_API s64 lk_stat(int what);

#define LK_NIC_TXCSUM	1	/* the wire takes frames with partial checksums, in pieces */
#define LK_NIC_RXCSUM	2	/* frames from the wire need no checksum verification */
#define LK_NIC_GRO	4	/* merge received segments */
struct lk_nic_cfg {
	u8 mac[6];
	u16 flags;
	u32 mtu;		/* 68 to 65520 */
	u32 pad;
	void *opaque;
	/* Takes a frame (0) or is busy (<0): then nothing is offered until lk_nic_wake(). */
	int (*xmit)(void *opaque, const struct lk_iov *iov, int n, u32 len);
};
/* Adds "ethN", down. Returns its handle. */
LK_API s64 lk_nic_add(const struct lk_nic_cfg *cfg, int *ifindex);
/* Queues a received frame for the next lk_poll() or lk_run(). -ENOBUFS, -ENOMEM: dropped. */
LK_API int lk_nic_rx(u64 nic, const void *frame, u32 len);
LK_API int lk_nic_wake(u64 nic);

/* Addresses: FAMILY is AF_INET or AF_INET6, addresses are 4 or 16 bytes in network order. */
LK_API int lk_if_up(int ifindex);
/* IPv6 addresses are usable at once: no duplicate address detection. */
LK_API int lk_addr_add(int ifindex, int family, const u8 *addr, int plen);
/* GW may be NULL. */
LK_API int lk_route_add(int ifindex, int family, const u8 *dst, int plen, const u8 *gw);

/* Files below /proc, whole: PATH like "sys/net/ipv4/tcp_rmem". Return the number of bytes. */
LK_API s64 lk_read_file(const char *path, void *buf, size_t len);
LK_API s64 lk_write_file(const char *path, const void *buf, size_t len);

/*
 * Sockets are non-blocking. FLAGS are MSG_* (DONTWAIT and NOSIGNAL are implied, ZEROCOPY is
 * ignored), addresses are struct sockaddr_* of any family, options as in setsockopt(2).
 */

/*
 * This socket, and those accepted from it, are an ordinary user's (uid and gid 65534, no
 * capabilities): its calls are refused what such a user's are, with EPERM, EACCES. Netlink requests
 * that would change something are.
 */
#define LK_SOCK_USER	1
/* LK_SOCK is LK_SOCK_USER or 0. Returns a handle. */
LK_API s64 lk_socket(int family, int type, int proto, int lk_sock, u64 cookie);
LK_API int lk_bind(u64 s, const void *addr, int len);
LK_API int lk_listen(u64 s, int backlog);
LK_API int lk_connect(u64 s, const void *addr, int len);
/* Returns a handle. ADDR, for the peer's address, is NULL or has room for 128 bytes. */
LK_API s64 lk_accept(u64 s, u64 cookie, void *addr, int *alen);

LK_API s64 lk_send(u64 s, const void *buf, size_t len, int flags);
LK_API s64 lk_recv(u64 s, void *buf, size_t len, int flags);

/* A message as in sendmsg(2) and recvmsg(2), with lengths of 0 for what is not there. */
struct lk_msg {
	void *name;
	void *control;		/* struct cmsghdr, as many as there are */
	const struct lk_iov *iov;
	u32 n;			/* of IOV, at most 1024 */
	u32 name_len;
	u32 control_len;
	u32 flags;		/* out, lk_recvmsg(): MSG_TRUNC, MSG_CTRUNC, MSG_ERRQUEUE... */
};
/*
 * Control messages are those of SOL_SOCKET, SOL_IP, SOL_IPV6 and SOL_UDP that hold plain data.
 * -EINVAL for any other: SCM_RIGHTS, and what is not known.
 */
LK_API s64 lk_sendmsg(u64 s, const struct lk_msg *msg, int flags);
/*
 * Lengths: room in, what there is out: NAME_LEN may be more than the room was, as may what this
 * returns for MSG_TRUNC among FLAGS. Unchanged after an error.
 */
LK_API s64 lk_recvmsg(u64 s, struct lk_msg *msg, int flags);

LK_API int lk_sock_shutdown(u64 s, int how);
/* Never waits: SO_LINGER with a time-out closes in the background, with 0 it aborts. */
LK_API int lk_close(u64 s);
/* Closes; a connection is reset. */
LK_API int lk_abort(u64 s);
LK_API int lk_setsockopt(u64 s, int level, int name, const void *val, int len);
LK_API int lk_getsockopt(u64 s, int level, int name, void *val, int *len);
/* ADDR has room for 128 bytes. Returns the address's length. */
LK_API int lk_getname(u64 s, void *addr, int peer);
/*
 * As ioctl(2), for SIOCGIF* (but not CONF), SIOCINQ, SIOCOUTQ, SIOCOUTQNSD, SIOCATMARK, SIOCGSTAMP*;
 * LEN is at least the size of their argument, else -EINVAL. -EPERM for a request that would change
 * something, -ENOTTY for any other.
 */
LK_API int lk_ioctl(u64 s, u32 request, void *arg, u32 len);
/* SIOCGIFCONF: as many struct ifreq as fit. Returns their bytes, or the bytes of all for BUF NULL. */
LK_API int lk_ifconf(u64 s, void *buf, int len);
/* EPOLL* bits now; arms the write edge. */
LK_API s64 lk_pollmask(u64 s);

struct lk_event {
	u64 cookie;
	u32 mask;
	u32 pad;
};
/* Edges since the last call, as EPOLLET would report them: at most MAX, returns how many. */
LK_API int lk_events(struct lk_event *ev, int max);

#endif
