// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tasks are coroutines of the host's one thread. pid 1 is the host itself: at the end of boot it
 * hands its place over to the host's stack, and from then on every API call is a plain function
 * call that runs as pid 1. When it has nothing to do, the idle task gives the thread back.
 */
#include <linux/cpu.h>
#include <linux/interrupt.h>
#include <linux/kernel.h>
#include <linux/oom.h>
#include <linux/ptrace.h>
#include <linux/sched.h>
#include <linux/sched/debug.h>
#include <linux/sched/stat.h>
#include <linux/sched/task.h>
#include <linux/sched/task_stack.h>
#include <linux/start_kernel.h>
#include <linux/tick.h>
#include "lk_int.h"

static_assert(THREAD_SIZE == LK_STACK_SIZE);

struct task_struct *lk_current = &init_task;
unsigned long lk_irq_on;
struct pt_regs lk_dummy_regs;
struct task_struct *lk_host_task;
u64 lk_nr_switch;

static bool lk_host_idling;
static u64 lk_deadline;
static unsigned long lk_host_sp;

/* switch.S */
struct task_struct *lk_swtch(struct task_struct *prev, unsigned long *save, unsigned long sp);
void lk_ret_from_fork(void);
void lk_first(void);

struct task_struct *__switch_to(struct task_struct *prev, struct task_struct *next)
{
	lk_nr_switch++;
	lk_current = next;
	return lk_swtch(prev, &prev->thread.sp, next->thread.sp);
}

/* A stack from which lk_swtch() returns to PC, with FN and ARG in rbx and r12. */
static unsigned long lk_stack(void *top, void *pc, void *fn, void *arg)
{
	unsigned long *sp = (unsigned long *)((unsigned long)top & ~15UL);

	*--sp = 0;
	*--sp = 0;			/* the ABI's alignment at pc's first instruction */
	*--sp = (unsigned long)pc;
	*--sp = 0;			/* rbp */
	*--sp = (unsigned long)fn;	/* rbx */
	*--sp = (unsigned long)arg;	/* r12 */
	*--sp = 0;			/* r13 */
	*--sp = 0;			/* r14 */
	*--sp = 0;			/* r15 */
	return (unsigned long)sp;
}

/*
 * The lowest page of a kernel thread's stack is read-only: an overflow ends the program at once.
 * Not inaccessible, for STACK_END_MAGIC lives there and is read at every switch.
 */
static void lk_guard(struct task_struct *p, int on)
{
	if (lk_ops.protect)
		lk_ops.protect(task_stack_page(p), PAGE_SIZE, on);
}

int copy_thread(struct task_struct *p, const struct kernel_clone_args *args)
{
	if (!args->fn)
		return -EINVAL;		/* kernel threads only */
	p->thread.sp = lk_stack(task_stack_page(p) + THREAD_SIZE, lk_ret_from_fork, args->fn,
				args->fn_arg);
	lk_guard(p, 1);
	/* Zeroed by the allocator, hardly used by most: all but the lowest and the topmost page. */
	if (lk_ops.discard)
		lk_ops.discard(task_stack_page(p) + PAGE_SIZE, THREAD_SIZE - 2 * PAGE_SIZE);
	return 0;
}

/* Before the stack's pages are freed, also when the fork failed after copy_thread(). */
void exit_thread(struct task_struct *p)
{
	lk_guard(p, 0);
}

static void lk_boot(void *unused)
{
	start_kernel();
}

/* Boots on the initial task's stack; comes back from lk_handover(). */
void lk_enter(void)
{
	unsigned long sp;

	sp = lk_stack((void *)init_stack + THREAD_SIZE - 64, lk_first, lk_boot, NULL);
	lk_swtch(NULL, &lk_host_sp, sp);
}

/* pid 1, at the end of boot: from here on the host's stack is pid 1, and this one is dead. */
void lk_handover(void)
{
	unsigned long parked;

	/* There is nobody to kill: let allocations fail instead of panicking. */
	oom_killer_disable(0);
	lk_host_task = current;
	lk_swtch(NULL, &parked, lk_host_sp);
	BUG();
}

void arch_cpu_idle(void)
{
	/* do_idle() stops the tick only in its second turn without work; we have one turn */
	tick_nohz_idle_stop_tick();
	if (lk_host_idling) {
		lk_deadline = lk_next_event;
		wake_up_process(lk_host_task);
		return;
	}
	/* boot, or an API call that has to sleep */
	if (lk_ops.time_ns() < lk_next_event)
		lk_ops.block(lk_next_event);
	lk_timer_poll();
}

static void lk_yield(void)
{
	lk_host_idling = true;
	set_current_state(TASK_IDLE);
	schedule();
	lk_host_idling = false;
}

void lk_do_poll(void)
{
	lk_timer_poll();
	if (local_softirq_pending())
		do_softirq();
	if (!single_task_running())
		lk_yield();
}

u64 lk_do_run(void)
{
	lk_wall_clock_poll();
	lk_timer_poll();
	if (local_softirq_pending())
		do_softirq();
	lk_yield();
	return lk_deadline;
}

unsigned long __get_wchan(struct task_struct *p)
{
	return 0;
}

void flush_thread(void)
{
}

void show_regs(struct pt_regs *regs)
{
}

/* No unwinder: the host's debugger sees the stack, it is an ordinary one. */
void show_stack(struct task_struct *t, unsigned long *sp, const char *lvl)
{
	printk("%s(no stack trace; caller %p)\n", lvl, __builtin_return_address(0));
}

void ptrace_disable(struct task_struct *t)
{
}

long arch_ptrace(struct task_struct *t, long r, unsigned long a, unsigned long d)
{
	return -EIO;
}
