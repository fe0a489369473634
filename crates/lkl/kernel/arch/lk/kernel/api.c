// SPDX-License-Identifier: GPL-2.0-only
/* The life of the kernel as the host sees it: start, run, shut down. */
#include <linux/init.h>
#include <linux/interrupt.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/sched/stat.h>
#include <linux/string.h>
#include <linux/vmstat.h>
#include <asm/setup.h>
#include <generated/utsrelease.h>
#include "lk_int.h"

#define LK_MIN_MEMORY	(16UL << 20)

struct lk_host_ops lk_ops;
unsigned long lk_mem_start, lk_mem_end;

static enum { LK_NEW, LK_UP, LK_DOWN } lk_state;
static bool lk_inside;

int lk_call_begin(void)
{
	if (lk_inside)
		return -EDEADLK;
	if (lk_state != LK_UP)
		return -ESHUTDOWN;
	lk_inside = true;
	return 0;
}

void lk_call_end(const int *refused)
{
	if (!*refused)
		lk_inside = false;
}

LK_API u32 lk_api_version(void)
{
	return LK_API_VERSION;
}

LK_API const char *lk_version(void)
{
	return UTS_RELEASE;
}

LK_API int lk_start(const struct lk_host_ops *ops, void *mem, size_t len, const char *cmdline)
{
	const unsigned long bank = PAGE_SIZE << MAX_PAGE_ORDER;
	unsigned long start, end;
	size_t i;

	if (lk_state != LK_NEW || lk_inside)
		return -EBUSY;
	/* the page allocator wants its bank aligned to the largest order */
	start = ALIGN((unsigned long)mem, bank);
	end = ALIGN_DOWN((unsigned long)mem + len, bank);
	if (end < start || end - start < LK_MIN_MEMORY)
		return -EINVAL;
	/* word by word: memcpy() is one of them */
	for (i = 0; i < sizeof(*ops) / sizeof(long); i++)
		((volatile unsigned long *)&lk_ops)[i] = ((const unsigned long *)ops)[i];
	lk_inside = true;
	lk_mem_start = start;
	lk_mem_end = end;
	strscpy(boot_command_line, cmdline, COMMAND_LINE_SIZE);
	lk_enter();
	lk_state = LK_UP;
	lk_inside = false;
	return 0;
}

LK_API int lk_shutdown(void)
{
	LK_CALL(err);

	if (err)
		return err;
	lk_sock_close_all();
	lk_do_poll();
	lk_nic_detach_all();
	lk_state = LK_DOWN;
	return 0;
}

LK_API int lk_run(u64 *deadline)
{
	LK_CALL(err);

	if (!err)
		*deadline = lk_do_run();
	return err;
}

LK_API int lk_poll(void)
{
	LK_CALL(err);

	if (!err)
		lk_do_poll();
	return err;
}

LK_API int lk_panic(const char *msg)
{
	LK_CALL(err);

	if (!err)
		panic("%s", msg);
	return err;
}

LK_API s64 lk_stat(int what)
{
	LK_CALL(err);

	if (err)
		return err;
	switch (what) {
	case LK_STAT_SWITCHES:
		return lk_nr_switch;
	case LK_STAT_TIMERS:
		return lk_nr_timer;
	case LK_STAT_FREE:
		return global_zone_page_state(NR_FREE_PAGES) << PAGE_SHIFT;
	}
	return -EINVAL;
}
