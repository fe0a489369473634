// SPDX-License-Identifier: MIT OR Apache-2.0
/* Options of sockets, and ioctl(2). */
#define _GNU_SOURCE
#include "random.h"

#include <net/if.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <linux/sockios.h>

#define OPTION(level, name) { level, name, #name }

static const struct option {
	int level, name;
	const char *text;
} OPTIONS[] = {
	OPTION(SOL_SOCKET, SO_ACCEPTCONN),
	OPTION(SOL_SOCKET, SO_BROADCAST),
	OPTION(SOL_SOCKET, SO_DOMAIN),
	OPTION(SOL_SOCKET, SO_DONTROUTE),
	OPTION(SOL_SOCKET, SO_ERROR),
	OPTION(SOL_SOCKET, SO_ERROR),
	OPTION(SOL_SOCKET, SO_ERROR),
	OPTION(SOL_SOCKET, SO_KEEPALIVE),
	OPTION(SOL_SOCKET, SO_LINGER),
	OPTION(SOL_SOCKET, SO_NO_CHECK),
	OPTION(SOL_SOCKET, SO_OOBINLINE),
	OPTION(SOL_SOCKET, SO_PASSCRED),
	OPTION(SOL_SOCKET, SO_PRIORITY),
	OPTION(SOL_SOCKET, SO_PROTOCOL),
	OPTION(SOL_SOCKET, SO_RCVLOWAT),
	OPTION(SOL_SOCKET, SO_RCVTIMEO),
	OPTION(SOL_SOCKET, SO_REUSEADDR),
	OPTION(SOL_SOCKET, SO_REUSEPORT),
	OPTION(SOL_SOCKET, SO_RXQ_OVFL),
	OPTION(SOL_SOCKET, SO_SNDTIMEO),
	OPTION(SOL_SOCKET, SO_TYPE),
	OPTION(SOL_SOCKET, 999),
	OPTION(999, 1),
	OPTION(IPPROTO_TCP, TCP_CORK),
	OPTION(IPPROTO_TCP, TCP_DEFER_ACCEPT),
	OPTION(IPPROTO_TCP, TCP_FASTOPEN),
	OPTION(IPPROTO_TCP, TCP_KEEPCNT),
	OPTION(IPPROTO_TCP, TCP_KEEPIDLE),
	OPTION(IPPROTO_TCP, TCP_KEEPINTVL),
	OPTION(IPPROTO_TCP, TCP_LINGER2),
	OPTION(IPPROTO_TCP, TCP_NODELAY),
	OPTION(IPPROTO_TCP, TCP_NOTSENT_LOWAT),
	OPTION(IPPROTO_TCP, TCP_SYNCNT),
	OPTION(IPPROTO_TCP, TCP_USER_TIMEOUT),
	OPTION(IPPROTO_TCP, 999),
	OPTION(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT),
	OPTION(IPPROTO_IP, IP_MTU),
	OPTION(IPPROTO_IP, IP_MTU_DISCOVER),
	OPTION(IPPROTO_IP, IP_MULTICAST_LOOP),
	OPTION(IPPROTO_IP, IP_MULTICAST_TTL),
	OPTION(IPPROTO_IP, IP_PKTINFO),
	OPTION(IPPROTO_IP, IP_RECVERR),
	OPTION(IPPROTO_IP, IP_RECVTOS),
	OPTION(IPPROTO_IP, IP_RECVTTL),
	OPTION(IPPROTO_IP, IP_TOS),
	OPTION(IPPROTO_IP, IP_TTL),
	OPTION(IPPROTO_IPV6, IPV6_MTU_DISCOVER),
	OPTION(IPPROTO_IPV6, IPV6_MULTICAST_HOPS),
	OPTION(IPPROTO_IPV6, IPV6_RECVERR),
	OPTION(IPPROTO_IPV6, IPV6_RECVHOPLIMIT),
	OPTION(IPPROTO_IPV6, IPV6_RECVPKTINFO),
	OPTION(IPPROTO_IPV6, IPV6_RECVTCLASS),
	OPTION(IPPROTO_IPV6, IPV6_TCLASS),
	OPTION(IPPROTO_IPV6, IPV6_UNICAST_HOPS),
	OPTION(IPPROTO_IPV6, IPV6_V6ONLY),
	OPTION(IPPROTO_IPV6, IPV6_V6ONLY),
	OPTION(IPPROTO_UDP, UDP_CORK),
};

/* An option; if it is not one of the socket's kind, mostly another. */
static const struct option *chosen(int s, uint32_t at)
{
	const struct option *option;
	int domain = 0, type = 0;
	socklen_t len = sizeof domain;

	getsockopt(s, SOL_SOCKET, SO_DOMAIN, &domain, &len);
	getsockopt(s, SOL_SOCKET, SO_TYPE, &type, &len);
	for (int tries = 0; tries < 6; tries++, at = at * 747796405 + 2891336453) {
		option = &OPTIONS[(at >> 8) % (sizeof OPTIONS / sizeof *OPTIONS)];
		if (option->level == SOL_SOCKET || (option->level == IPPROTO_IP && domain == AF_INET) ||
		    (option->level == IPPROTO_IPV6 && domain == AF_INET6) ||
		    (option->level == IPPROTO_TCP && type == SOCK_STREAM && domain != AF_UNIX) ||
		    (option->level == IPPROTO_UDP && type == SOCK_DGRAM && domain != AF_UNIX))
			break;
	}
	/* Whether it is for AF_UNIX only depends on the version of the kernel. */
	if (option->level == SOL_SOCKET && option->name == SO_PASSCRED && domain != AF_UNIX)
		option++;
	return option;
}

#define BAD ((void *)16)

void get_option(int s, const struct call *call)
{
	static const socklen_t lengths[] = { 1, 0, 2, 8, 64, -1 };
	const struct option *option = chosen(s, call->x);
	int value[16] = { -2, -2 }, n;
	socklen_t asked = call->y % 32 < 6 ? lengths[call->y % 32] : option->name == SO_LINGER || option->name == SO_RCVTIMEO ||
							 option->name == SO_SNDTIMEO ? 16 : 4;
	socklen_t len = asked;
	void *into = call->z % 64 ? value : BAD;

	add("getsockopt s%d %s length %d%s", call->slot, option->text, (int)asked, into == value ? "" : " bad");
	n = getsockopt(s, option->level, option->name, into, &len);
	add_result(n);
	if (n == 0 && into == value)
		add(" %d %d of %u", len > 0 ? value[0] : -2, len > 4 ? value[1] : -2, len);
}

void set_option(int s, const struct call *call)
{
	static const int values[] = { 0, 1, 1, 1, 2, 5, 64, 300, -1 };
	static const socklen_t lengths[] = { 1, 0, 2, 8 };
	const struct option *option = chosen(s, call->x);
	struct linger linger = { call->z % 2, 0 };
	struct timeval timeout = { 0, 40000 };
	int value[2] = { values[call->z % 9], 0 };
	const void *from = value;
	socklen_t len = sizeof *value;

	if (option->level == SOL_SOCKET && option->name == SO_LINGER)
		value[0] = linger.l_onoff, from = &linger, len = sizeof linger;
	if (option->level == SOL_SOCKET && (option->name == SO_RCVTIMEO || option->name == SO_SNDTIMEO))
		value[0] = 40, from = &timeout, len = sizeof timeout;
	if (call->y % 32 < 4)
		len = lengths[call->y % 32];
	if (call->w % 64 == 0)
		from = BAD;
	add("setsockopt s%d %s %d length %u%s", call->slot, option->text, value[0], len, from == BAD ? " bad" : "");
	add_result(setsockopt(s, option->level, option->name, from, len));
}

void ask_ioctl(int s, const struct call *call)
{
	struct ifreq lo = { .ifr_name = "lo" };
	int value = call->z % 2, n;

	if (call->y % 16 == 15)
		strcpy(lo.ifr_name, "none");
	switch (call->x % 9) {
	case 0:
	case 1:
		add("ioctl s%d FIONREAD", call->slot);
		n = ioctl(s, FIONREAD, &value);
		add_result(n);
		add(" %d", n ? 0 : value);
		return;
	case 2:
		add("ioctl s%d FIONBIO 1", call->slot);
		value = 1;
		add_result(ioctl(s, FIONBIO, &value));
		return;
	case 3:
		add("ioctl s%d SIOCATMARK", call->slot);
		n = ioctl(s, SIOCATMARK, &value);
		add_result(n);
		add(" %d", n ? 0 : value);
		return;
	case 4:
		add("ioctl s%d SIOCGIFINDEX %s", call->slot, lo.ifr_name);
		n = ioctl(s, SIOCGIFINDEX, &lo);
		add_result(n);
		add(" %d", n ? 0 : lo.ifr_ifindex);
		return;
	case 5:
		add("ioctl s%d SIOCGIFFLAGS %s", call->slot, lo.ifr_name);
		n = ioctl(s, SIOCGIFFLAGS, &lo);
		add_result(n);
		add(" %x", n ? 0 : lo.ifr_flags);
		return;
	case 6:
		add("ioctl s%d SIOCGIFADDR %s", call->slot, lo.ifr_name);
		n = ioctl(s, SIOCGIFADDR, &lo);
		add_result(n);
		add(" %s", n ? "" : shown_address(&lo.ifr_addr, sizeof lo.ifr_addr));
		return;
	case 7:
		lo.ifr_ifindex = 1;
		add("ioctl s%d SIOCGIFNAME", call->slot);
		n = ioctl(s, SIOCGIFNAME, &lo);
		add_result(n);
		add(" %s", n ? "" : lo.ifr_name);
		return;
	default:
		add("ioctl s%d 0x1234", call->slot);
		add_result(ioctl(s, 0x1234, &value));
	}
}
