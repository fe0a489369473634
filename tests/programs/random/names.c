// SPDX-License-Identifier: MIT OR Apache-2.0
/* Addresses: those that calls name, and how they are told so that two runs can be compared. */
#define _GNU_SOURCE
#include "random.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/un.h>
#include <unistd.h>

static struct in_addr own4;
static struct in6_addr own6 = IN6ADDR_LOOPBACK_INIT;

/* Those of the sequence, which children see too: two that calls name, the others in the order they appear. */
enum { NAMED = 2, PORTS = 64 };
static struct {
	int named[NAMED];
	int seen[PORTS];
	int count;
	uint64_t seed;
} *ports;

/* The first address that is not the loopback's: link-local ones are not by themselves an address. */
void find_own_addresses(void)
{
	struct ifaddrs *all, *one;

	ports = mmap(NULL, sizeof *ports, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (ports == MAP_FAILED || getifaddrs(&all))
		exit(3);
	for (one = all; one; one = one->ifa_next) {
		if (!one->ifa_addr || !strcmp(one->ifa_name, "lo"))
			continue;
		if (one->ifa_addr->sa_family == AF_INET)
			own4 = ((struct sockaddr_in *)one->ifa_addr)->sin_addr;
		if (one->ifa_addr->sa_family == AF_INET6) {
			struct in6_addr ip = ((struct sockaddr_in6 *)one->ifa_addr)->sin6_addr;
			if (!IN6_IS_ADDR_LINKLOCAL(&ip))
				own6 = ip;
		}
	}
	freeifaddrs(all);
}

void forget_ports(uint64_t seed)
{
	memset(ports, 0, sizeof *ports);
	ports->seed = seed;
}

/* A port that nobody uses, TIME_WAIT of an earlier sequence included. */
static int free_port(void)
{
	static int last = 2000;

	for (;;) {
		struct sockaddr_in6 any = { .sin6_family = AF_INET6 };
		int ok = 1;

		last = last < 30000 ? last + 1 : 2000;
		any.sin6_port = htons(last);
		for (int only = 0; only <= 1; only++) {
			int s = socket(only ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
			any.sin6_family = only ? AF_INET6 : AF_INET;
			ok &= bind(s, (void *)&any, only ? sizeof any : sizeof(struct sockaddr_in)) == 0;
			close(s);
		}
		if (ok)
			return last;
	}
}

static int named_port(int n)
{
	if (!ports->named[n])
		ports->named[n] = free_port();
	return ports->named[n];
}

static const char *shown_port(int port)
{
	static char text[8];

	if (!port)
		return "0";
	for (int i = 0; i < NAMED; i++)
		if (port == ports->named[i])
			return i ? "B" : "A";
	for (int i = 0; i < ports->count || ports->count == PORTS; i++)
		if (ports->seen[i] == port) {
			snprintf(text, sizeof text, "p%d", i);
			return text;
		}
	snprintf(text, sizeof text, "p%d", ports->count);
	ports->seen[ports->count++] = port;
	return text;
}

static void path_name(char *into, size_t size, int n)
{
	snprintf(into, size, "s%llu.%d", (unsigned long long)ports->seed, n);
}

void remove_paths(void)
{
	for (int n = 0; n < 2; n++) {
		char name[64];

		path_name(name, sizeof name, n);
		unlink(name);
	}
}

static int port_of(const struct sockaddr_storage *a)
{
	if (a->ss_family != AF_INET && a->ss_family != AF_INET6)
		return 0;
	return ntohs(((const struct sockaddr_in *)a)->sin_port);
}

/* Whose name is what a call says, or with `with` another socket's. `outward`: to connect or send to. */
struct address local_address(const struct call *call, int domain, int with, bool outward)
{
	struct address a = { .len = sizeof a.bytes };
	int port = 0;

	switch (call->x % 16) {
	case 0:
		domain = domain == AF_INET ? AF_INET6 : AF_INET;
		break;
	case 1:
		domain = call->x / 16 % 2 ? AF_UNSPEC : AF_UNIX;
		break;
	case 2:
		if (!outward)
			break;
		domain = AF_UNSPEC;
		break;
	}
	if (call->z % 16 >= 5 || (outward && call->z % 16 >= 3)) {
		if (getsockname(with, (void *)&a.bytes, &a.len))
			a.bytes.ss_family = AF_UNSPEC;
		else if (domain == AF_UNIX && a.bytes.ss_family == AF_UNIX)
			return a;
		port = port_of(&a.bytes);
	} else if (call->z % 16 >= 3) {
		port = named_port(call->z % 2);
	} else if (call->z % 16 == 2) {
		port = named_port(0);
	}
	memset(&a.bytes, 0, sizeof a.bytes);
	a.bytes.ss_family = domain;
	if (domain == AF_UNIX) {
		struct sockaddr_un *un = (void *)&a.bytes;

		path_name(un->sun_path + (call->y % 3 == 1), sizeof un->sun_path - 1, call->y / 4 % 2);
		a.len = sizeof(sa_family_t);
		if (call->y % 3 < 2)
			a.len += (call->y % 3 == 1) + strlen(un->sun_path + (call->y % 3 == 1));
		/* Others name the socket of nobody by themselves. */
		if (call->y % 3 == 0)
			a.len++;
	} else if (domain == AF_INET6) {
		struct sockaddr_in6 *v6 = (void *)&a.bytes;
		static const char *const hosts[] = { "::1", "::1", "::1", "::", "::", "::ffff:127.0.0.1", "own", "::2" };
		const char *host = hosts[call->y % 8];

		a.len = sizeof *v6;
		v6->sin6_port = htons(port);
		v6->sin6_addr = own6;
		if (outward && !strcmp(host, "::2"))
			host = "::ffff:0.0.0.0";
		if (strcmp(host, "own"))
			inet_pton(AF_INET6, host, &v6->sin6_addr);
		if (call->y % 97 == 0)
			v6->sin6_scope_id = 7;
	} else {
		struct sockaddr_in *v4 = (void *)&a.bytes;
		static const char *const hosts[] = { "127.0.0.1", "127.0.0.1", "127.0.0.1", "0.0.0.0",
						     "0.0.0.0",	  "127.0.0.9", "own",	    "198.18.0.1" };
		const char *host = hosts[call->y % 8];

		a.len = sizeof *v4;
		v4->sin_port = htons(port);
		v4->sin_addr = own4;
		if (outward && !strcmp(host, "198.18.0.1"))
			host = "127.0.0.1";
		if (strcmp(host, "own"))
			inet_pton(AF_INET, host, &v4->sin_addr);
	}
	return a;
}

const char *shown_address(const void *bytes, socklen_t len)
{
	static char text[200];
	struct sockaddr_storage a = { 0 };
	char ip[INET6_ADDRSTRLEN] = "?";

	memcpy(&a, bytes, len < sizeof a ? len : sizeof a);
	if (len < sizeof(sa_family_t))
		return "none";
	if (a.ss_family == AF_INET) {
		struct sockaddr_in *v4 = (void *)&a;

		inet_ntop(AF_INET, &v4->sin_addr, ip, sizeof ip);
		snprintf(text, sizeof text, "%s:%s", v4->sin_addr.s_addr == own4.s_addr ? "own" : ip,
			 shown_port(port_of(&a)));
	} else if (a.ss_family == AF_INET6) {
		struct sockaddr_in6 *v6 = (void *)&a;
		uint32_t last;

		inet_ntop(AF_INET6, &v6->sin6_addr, ip, sizeof ip);
		memcpy(&last, v6->sin6_addr.s6_addr + 12, 4);
		if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr) && last == own4.s_addr)
			strcpy(ip, "::ffff:own");
		snprintf(text, sizeof text, "[%s%%%u]:%s", IN6_ARE_ADDR_EQUAL(&v6->sin6_addr, &own6) ? "own" : ip,
			 v6->sin6_scope_id, shown_port(port_of(&a)));
	} else if (a.ss_family == AF_UNIX) {
		struct sockaddr_un *un = (void *)&a;
		int extra = len - sizeof(sa_family_t);

		if (extra == 6 && !un->sun_path[0] && un->sun_path[1] != 's')
			return "unix auto";
		snprintf(text, sizeof text, "unix %s%.*s", extra > 0 && !un->sun_path[0] ? "@" : "",
			 extra > 0 ? extra - !un->sun_path[0] : 0, un->sun_path + !un->sun_path[0]);
	} else {
		snprintf(text, sizeof text, "family %d", a.ss_family);
	}
	return text;
}
