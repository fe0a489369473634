// SPDX-License-Identifier: MIT OR Apache-2.0
/* What a sequence consists of, from its seed alone. */
#include "random.h"

#include <string.h>

static uint64_t state;

/* Steele and others' splitmix64. */
static uint32_t random32(void)
{
	uint64_t z = state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return (z ^ z >> 31) >> 32;
}

static int below(int n)
{
	return random32() % n;
}

static struct call *next;

/* Slots that hold a socket, as far as one knows beforehand. */
static unsigned filled;

static struct call *put(enum kind kind, int slot, int other)
{
	struct call *call = next++;

	*call = (struct call){ .kind = kind, .slot = slot, .other = other };
	if (kind == SOCKET)
		filled |= 1 << slot;
	if (kind == ACCEPT || kind == DUP)
		filled |= 1 << other;
	if (kind == PAIR)
		filled |= 1 << slot | 1 << other;
	if (kind == CLOSE)
		filled &= ~(1 << slot);
	call->x = random32(), call->y = random32(), call->z = random32(), call->w = random32();
	return call;
}

/* The numbers that choose what is plainly right; see perform.c and names.c for what they mean. */
enum { PLAIN = 15 << 4 | 15, TO_SLOT = 8 };

static void put_socket(int slot, int family, int type)
{
	struct call *call = put(SOCKET, slot, 0);

	call->x = family, call->y = type, call->z = 0;
	/* Most programs that mind more than one socket do not wait. */
	call->w = below(4) ? 1 : below(4);
}

static void put_plain(enum kind kind, int slot, int other)
{
	struct call *call = put(kind, slot, other);

	call->x = PLAIN, call->y = below(8) ? 0 : random32(), call->w = PLAIN;
	if (kind == CONNECT)
		call->z = TO_SLOT;
	if (kind == BIND)
		call->z = below(3);
}

/* How sockets come to be connected; what is random goes on from there. */
static void begin(void)
{
	int family = below(5) < 2 ? 0 : below(3), type = below(3) ? 0 : below(3);

	switch (below(8)) {
	case 0:
		put(PAIR, 0, 1)->x = below(3);
		break;
	case 1:
		break;
	case 2:
		put_socket(0, family, type);
		break;
	case 3:
	case 4:
		put_socket(0, family, 1);
		put_socket(1, family, 1);
		put_plain(BIND, 0, 0);
		if (below(2))
			put_plain(CONNECT, 1, 0);
		if (below(3) == 0)
			put_plain(CONNECT, 0, 1);
		break;
	default:
		put_socket(0, family, type);
		put_plain(BIND, 0, 0);
		put(LISTEN, 0, 0)->x = PLAIN;
		put_socket(1, family, type);
		if (below(4) == 0)
			put_plain(EPOLL_CTL, below(2), 0);
		put_plain(CONNECT, 1, 0);
		if (below(4))
			put_plain(ACCEPT, 0, 2);
	}
}

/* How often each kind of call is made. */
static const struct {
	enum kind kind;
	int weight;
} WEIGHTS[] = {
	{ ACCEPT, 5 }, { BIND, 7 },	  { CLOSE, 5 },	     { CONNECT, 9 }, { DUP, 1 },      { DUP2, 1 },
	{ EPOLL_CTL, 6 }, { EPOLL_WAIT, 6 }, { FCNTL, 3 },   { GETSOCKOPT, 9 }, { IOCTL, 3 }, { LISTEN, 4 },
	{ NAME, 8 },	{ PAIR, 1 },	  { RECEIVE, 10 },   { SELECT, 2 },  { SEND, 13 },    { SETSOCKOPT, 9 },
	{ SHUTDOWN, 4 }, { SOCKET, 5 },
};

static enum kind some_kind(void)
{
	int sum = 0, at;

	for (size_t i = 0; i < sizeof WEIGHTS / sizeof *WEIGHTS; i++)
		sum += WEIGHTS[i].weight;
	at = below(sum);
	for (size_t i = 0;; i++)
		if ((at -= WEIGHTS[i].weight) < 0)
			return WEIGHTS[i].kind;
}

/* Mostly one that holds a socket. */
static int some_slot(void)
{
	int slot = below(SLOTS);

	while (filled && !(filled & 1 << slot) && below(16))
		slot = below(SLOTS);
	return slot;
}

/* Returns how many there are. */
int generate(uint64_t seed, struct call *calls)
{
	int more;

	state = seed * 0x2545f4914f6cdd1d;
	next = calls;
	filled = 0;
	begin();
	more = 3 + below(14);
	for (int i = 0; i < more; i++) {
		enum kind kind = some_kind();
		bool new = kind == SOCKET || kind == PAIR, becomes = new || kind == ACCEPT || kind == DUP;
		int slot = new ? below(SLOTS) : some_slot(), other = becomes ? below(SLOTS) : some_slot();
		struct call *call = put(kind, slot, other);

		call->forked = below(12) == 0;
	}
	return next - calls;
}
