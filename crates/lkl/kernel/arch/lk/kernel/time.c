// SPDX-License-Identifier: GPL-2.0-only
/* The host's clock, and a timer that is polled: the only "interrupt" there is. */
#include <linux/clockchips.h>
#include <linux/clocksource.h>
#include <linux/delay.h>
#include <linux/hardirq.h>
#include <linux/init.h>
#include <linux/interrupt.h>
#include <linux/sched/clock.h>
#include <linux/timekeeping.h>
#include <asm/irq_regs.h>
#include <asm/ptrace.h>
#include "lk_int.h"

u64 lk_next_event = ~0ULL;
u64 lk_nr_timer;

static u64 lk_clock_read(struct clocksource *cs)
{
	return lk_ops.time_ns();
}

static struct clocksource lk_clock = {
	.name = "host",
	.rating = 400,
	.read = lk_clock_read,
	.mask = CLOCKSOURCE_MASK(64),
	.flags = CLOCK_SOURCE_IS_CONTINUOUS | CLOCK_SOURCE_VALID_FOR_HRES,
};

static int lk_timer_set(unsigned long delta, struct clock_event_device *ce)
{
	lk_next_event = lk_ops.time_ns() + delta;
	return 0;
}

static int lk_timer_off(struct clock_event_device *ce)
{
	lk_next_event = ~0ULL;
	return 0;
}

static struct clock_event_device lk_timer = {
	.name = "host",
	.rating = 400,
	.features = CLOCK_EVT_FEAT_ONESHOT,
	.set_next_event = lk_timer_set,
	.set_state_shutdown = lk_timer_off,
	.set_state_oneshot = lk_timer_off,
	/* without it NO_HZ never stops the tick */
	.set_state_oneshot_stopped = lk_timer_off,
};

void lk_timer_poll(void)
{
	struct pt_regs *old;
	unsigned long flags;

	if (lk_next_event == ~0ULL || lk_ops.time_ns() < lk_next_event)
		return;
	local_irq_save(flags);
	lk_next_event = ~0ULL;
	lk_nr_timer++;
	/*
	 * Without registers tick_nohz_handler() skips update_process_times(): jiffies advance, but
	 * no timer of the timer wheel ever fires, and all looks well until a packet is lost.
	 */
	old = set_irq_regs(&lk_dummy_regs);
	irq_enter();
	lk_timer.event_handler(&lk_timer);
	irq_exit();
	set_irq_regs(old);
	local_irq_restore(flags);
}

void __init time_init(void)
{
	/* Delays are measured by the clock, not by loops: any value saves the calibration. */
	lpj_fine = 4000000;
	lk_timer.cpumask = cpumask_of(0);
	clocksource_register_hz(&lk_clock, NSEC_PER_SEC);
	clockevents_config_and_register(&lk_timer, NSEC_PER_SEC, 1, LONG_MAX);
}

unsigned long long notrace sched_clock(void)
{
	return lk_ops.time_ns();
}

void read_persistent_clock64(struct timespec64 *ts)
{
	*ts = ns_to_timespec64(lk_ops.realtime_ns());
}

/*
 * The wall clock is read when the kernel boots, before there is a clock that counts on, and the host's may be set and
 * adjusted later. Packets are stamped with it (SO_TIMESTAMP), and programs compare that with the host's.
 */
void lk_wall_clock_poll(void)
{
	static u64 next;
	u64 now = lk_ops.time_ns();
	struct timespec64 wall;

	if (now < next)
		return;
	next = now + NSEC_PER_SEC;
	wall = ns_to_timespec64(lk_ops.realtime_ns());
	/* Refused if the host's is near 1970: then it stays as it is. */
	do_settimeofday64(&wall);
}

static void lk_spin(u64 ns)
{
	u64 end = lk_ops.time_ns() + ns;

	while (lk_ops.time_ns() < end)
		cpu_relax();
}

void __ndelay(unsigned long n)
{
	lk_spin(n);
}

void __udelay(unsigned long n)
{
	lk_spin((u64)n * 1000);
}

void __const_udelay(unsigned long x)
{
	lk_spin((u64)x * 1000 / 4295);	/* x is usecs * 2^32 / 10^6 */
}

void __delay(unsigned long n)
{
}
