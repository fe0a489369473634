// SPDX-License-Identifier: MIT OR Apache-2.0
/* Performs random sequences of socket calls and prints a line for each: what was called, what came of it, and the
 * state of all the sockets afterwards.
 *
 * Standard input has a line "SEED" or "SEED CALL,CALL,…" for each sequence, in the second form of those calls only.
 * With an argument, the output of another run with the same input, it waits after each call until the sockets are
 * as they were there: what takes a moment is waited for, and what does not come is a difference.
 */
#define _GNU_SOURCE
#include "random.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LINE = 4096 };

/* Children write into it too. */
static struct {
	char text[LINE];
	size_t len;
} *line;

static FILE *other_run;
static double patience;

/* Whether the sequence has gone another way than in the other run. */
static bool astray;

void add(const char *format, ...)
{
	va_list values;
	int saved = errno;

	va_start(values, format);
	line->len += vsnprintf(line->text + line->len, LINE - line->len, format, values);
	va_end(values);
	if (line->len >= LINE)
		abort();
	errno = saved;
}

void add_result(long value)
{
	if (value < 0)
		add(" = %s", strerrorname_np(errno) ? strerrorname_np(errno) : "unknown");
	else
		add(" = %ld", value);
}

static double now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec + at.tv_nsec / 1e9;
}

/* The events of each socket, and how much can be read. */
static void states(char *into, size_t size)
{
	struct pollfd p[SLOTS];
	size_t len = 0;

	for (int i = 0; i < SLOTS; i++)
		p[i] = (struct pollfd){ .fd = fds[i], .events = POLLIN | POLLPRI | POLLOUT | POLLRDHUP };
	poll(p, SLOTS, 0);
	*into = 0;
	for (int i = 0; i < SLOTS; i++) {
		int readable = 0;

		if (fds[i] < 0)
			continue;
		if (ioctl(fds[i], FIONREAD, &readable))
			readable = 0;
		len += snprintf(into + len, size - len, " %d:%s%s%s%s%s%s/%d", i, p[i].revents & POLLIN ? "I" : "",
				p[i].revents & POLLOUT ? "O" : "", p[i].revents & POLLPRI ? "P" : "",
				p[i].revents & POLLRDHUP ? "R" : "", p[i].revents & POLLERR ? "E" : "",
				p[i].revents & POLLHUP ? "H" : "", readable);
	}
}

/* Adds the states as they are once nothing changes any more: without another run, when two looks are equal. */
static void add_states(void)
{
	char seen[256], wanted[LINE] = "";
	const char *goal = NULL;
	double end = now() + (astray ? 0 : patience);

	if (other_run && fgets(wanted, sizeof wanted, other_run)) {
		wanted[strcspn(wanted, "\n")] = 0;
		goal = strrchr(wanted, '|');
	}
	states(seen, sizeof seen);
	for (int looks = 0;; looks++) {
		char before[256];

		if (other_run ? goal && !strcmp(goal + 1, seen) : looks && !strcmp(before, seen))
			break;
		if (now() > end) {
			astray = true;
			break;
		}
		strcpy(before, seen);
		/* Whoever else has to do something gets the processor. */
		if (other_run && looks > 2)
			usleep(50);
		states(seen, sizeof seen);
	}
	add(" |%s", seen);
}

static void in_child(const struct call *call)
{
	pid_t child;

	add("child ");
	child = fork();
	if (child == 0) {
		perform(call);
		_exit(0);
	}
	/* A tick of the clock does not end it. */
	while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
	if (child < 0)
		exit(4);
}

static void sequence(uint64_t seed, const char *only)
{
	struct call calls[MOST_CALLS];
	bool left_out[MOST_CALLS] = { false };
	int count = generate(seed, calls);

	for (int i = 0; only && i < count; i++)
		left_out[i] = true;
	for (; only && *only; only += strspn(only, ", \n")) {
		char *end;
		long number = strtol(only, &end, 10);

		if (end == only)
			break;
		if (number < count)
			left_out[number] = false;
		only = end;
	}
	forget_ports(seed);
	astray = false;
	for (int i = 0; i < count; i++) {
		if (left_out[i])
			continue;
		line->len = 0;
		add("%llu %d ", (unsigned long long)seed, i);
		if (calls[i].forked)
			in_child(&calls[i]);
		else
			perform(&calls[i]);
		add_states();
		puts(line->text);
	}
	finish();
}

static void tick(int number)
{
	(void)number;
}

int main(int argc, char **argv)
{
	struct itimerval every = { { 2, 0 }, { 2, 0 } };
	struct sigaction action = { .sa_handler = tick };
	char job[LINE];

	if (argc > 2) {
		other_run = fopen(argv[1], "r");
		patience = atoi(argv[2]) / 1e3;
		if (!other_run)
			return 2;
	} else {
		patience = 0.05;
	}
	signal(SIGPIPE, SIG_IGN);
	line = mmap(NULL, sizeof *line, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (line == MAP_FAILED)
		return 2;
	find_own_addresses();
	/* Ends calls that wait for ever, which it shows as EINTR. */
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &every, NULL);
	while (fgets(job, sizeof job, stdin)) {
		char *rest;
		uint64_t seed = strtoull(job, &rest, 10);

		sequence(seed, *rest == ' ' ? rest + 1 : NULL);
	}
	return fflush(stdout);
}
