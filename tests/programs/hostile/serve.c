/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Servers: whatever a guest does with bind, listen and accept at once, it opens no port of the host, reaches nobody by
 * it, and holds up nobody else. */
#include "hostile.h"

enum { SLOT = 200 };

static volatile int stop;

static int fresh(int n)
{
	int s = socket(n & 1 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	return s;
}

/* Whatever else can be done to a socket that is about to listen. */
static void *disturb(void *arg)
{
	const struct sockaddr none = { AF_UNSPEC };
	const struct sockaddr_in any = at("0.0.0.0", 0), denied = at(DENIED, DENIED_PORT);
	unsigned seed = (uintptr_t)arg;
	while (!stop) {
		int s;
		switch (rand_r(&seed) % 8) {
		case 0: connect(SLOT, &none, sizeof none); break;
		case 1: bind(SLOT, (void *)&any, sizeof any); break;
		case 2: shutdown(SLOT, SHUT_RD); break;
		case 3: listen(SLOT, 1); break;
		case 4: connect(SLOT, (void *)&denied, sizeof denied); break;
		case 5: close(accept(SLOT, NULL, NULL)); break;
		default: s = fresh(seed >> 4), dup2(s, SLOT), close(s);
		}
	}
	return NULL;
}

static void states(void)
{
	const struct sockaddr none = { AF_UNSPEC };
	pthread_t threads[3];
	double until = seconds() + 3;
	for (uintptr_t i = 0; i < 3; i++)
		pthread_create(threads + i, NULL, disturb, (void *)(i + 1));
	for (int n = 0; seconds() < until; n++) {
		int s = fresh(n >> 1), mine;
		dup2(s, SLOT), close(s);
		if (n & 1)
			connect(SLOT, &none, sizeof none);
		listen(SLOT, 5);
		/* Held, so that it is the same socket that is looked at. */
		mine = dup(SLOT);
		if (listens_openly(mine)) {
			printf("OPEN: a port of the host\n");
			until = 0;
		}
		close(mine);
		tries++;
	}
	stop = 1;
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
}

/* A bound socket, or one that listened, and then a connection. */
static void bound(void)
{
	const struct sockaddr none = { AF_UNSPEC };
	for (int i = 0; i < 40; i++)
		EACH_FORBIDDEN(a) {
			struct sockaddr_in any = at("0.0.0.0", 0);
			int s = tcp();
			if (i & 1)
				said("bind", bind(s, (void *)&any, sizeof any));
			if (i & 2)
				said("listen", listen(s, 1));
			if (i & 4)
				said("AF_UNSPEC", connect(s, &none, sizeof none));
			said("denied", connect(s, (void *)&a, sizeof a));
			said("write", send(s, "x", 1, MSG_NOSIGNAL));
			close(s);
		}
}

/* Both ends of a connection of one's own are sockets of the host's: each is dissolved, and then goes elsewhere. */
static void dissolved(void)
{
	const struct sockaddr none = { AF_UNSPEC };
	struct sockaddr_in here = at(LOOPBACK, 0);
	socklen_t size = sizeof here;
	int listener = tcp(), one = 1;
	said("bind", bind(listener, (void *)&here, sizeof here));
	said("listen", listen(listener, 16));
	getsockname(listener, (void *)&here, &size);
	for (int i = 0; i < 12; i++)
		EACH_FORBIDDEN(a) {
			int ends[2] = { tcp() }, s;
			said("its own", connect(ends[0], (void *)&here, sizeof here));
			ends[1] = accept(listener, NULL, NULL);
			s = ends[i & 1];
			said("AF_UNSPEC", connect(s, &none, sizeof none));
			switch (i >> 1) {
			case 0: said("connect", connect(s, (void *)&a, sizeof a)); break;
			case 1: said("sendto", sendto(s, "x", 1, MSG_NOSIGNAL, (void *)&a, sizeof a)); break;
			case 2: said("fast open", sendto(s, "x", 1, MSG_NOSIGNAL | MSG_FASTOPEN, (void *)&a, sizeof a)); break;
			case 3:
				setsockopt(s, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &one, sizeof one);
				said("later", connect(s, (void *)&a, sizeof a));
				break;
			case 4:
				shutdown(s, SHUT_RDWR);
				said("shut down", connect(s, (void *)&a, sizeof a));
				break;
			default:
				said("the other, too", connect(ends[~i & 1], &none, sizeof none));
				if (!connect(s, (void *)&here, sizeof here))
					close(accept(listener, NULL, NULL));
				said("AF_UNSPEC", connect(s, &none, sizeof none));
				said("connect", connect(s, (void *)&a, sizeof a));
			}
			said("write", send(s, "x", 1, MSG_NOSIGNAL));
			close(ends[0]);
			close(ends[1]);
		}
}

static int listeners[2], port;

static void *swap(void *arg)
{
	(void)arg;
	for (unsigned n = 0; !stop; n++)
		dup2(listeners[n & 1], SLOT);
	return NULL;
}

static void *accept_slot(void *arg)
{
	(void)arg;
	while (!stop) {
		int s = accept(SLOT, NULL, NULL);
		if (s >= 0)
			close(s);
	}
	return NULL;
}

static void *knock(void *arg)
{
	const struct sockaddr_in to = at("127.0.0.1", port);
	struct sockaddr_un un;
	socklen_t len = sizeof un;
	(void)arg;
	getsockname(listeners[1], (void *)&un, &len);
	while (!stop) {
		int s = tcp(), t = socket(AF_UNIX, SOCK_STREAM, 0);
		connect(s, (void *)&to, sizeof to), connect(t, (void *)&un, len);
		close(s), close(t);
	}
	return NULL;
}

/* One number, a listener of ours and one of AF_UNIX in turn: what was looked at is not what is accepted from, and
 * another call may find nobody where somebody was. Meanwhile others must be served. */
static void swapped_accept(void)
{
	struct sockaddr_in a = at("127.0.0.1", 0);
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	socklen_t len = sizeof a;
	pid_t child = fork();
	if (!child) {
		pthread_t threads[8];
		listeners[0] = tcp(), listeners[1] = socket(AF_UNIX, SOCK_STREAM, 0);
		said("bind", bind(listeners[0], (void *)&a, sizeof a) | bind(listeners[1], (void *)&un, 2));
		said("listen", listen(listeners[0], 16) | listen(listeners[1], 16));
		getsockname(listeners[0], (void *)&a, &len), port = ntohs(a.sin_port);
		dup2(listeners[0], SLOT);
		pthread_create(threads, NULL, swap, NULL);
		for (int i = 1; i < 6; i++)
			pthread_create(threads + i, NULL, accept_slot, NULL);
		for (int i = 6; i < 8; i++)
			pthread_create(threads + i, NULL, knock, NULL);
		pause();
	}
	double until = seconds() + 4, worst = 0;
	while (seconds() < until) {
		double start = seconds();
		int s = tcp();
		getsockname(s, (void *)&a, &(socklen_t){ sizeof a });
		close(s);
		if (seconds() - start > worst)
			worst = seconds() - start;
		tries++;
	}
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	printf("worst=%.3f\n", worst);
	/* A call that was made to wait is given up after a second. */
	if (worst > 3)
		printf("OPEN: others were held up\n");
}

int main(int argc, char **argv)
{
	static const struct attack attacks[] = {
		{ "bound", bound }, { "dissolved", dissolved }, { "states", states }, { "swapped_accept", swapped_accept }, { 0 },
	};
	return dispatch(attacks, argc, argv);
}
