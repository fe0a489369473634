/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _LK_PROCESSOR_H
#define _LK_PROCESSOR_H

#include <asm/page.h>

#define TASK_SIZE		(~0UL)
#define TASK_UNMAPPED_BASE	0
#define STACK_TOP		TASK_SIZE
#define STACK_TOP_MAX		STACK_TOP

#ifndef __ASSEMBLY__
struct task_struct;
struct pt_regs;

struct thread_struct {
	unsigned long sp;
};
#define INIT_THREAD	{ .sp = 0 }

/* There is no user mode: one set of registers, all zero, stands for it. */
extern struct pt_regs lk_dummy_regs;
#define task_pt_regs(t)	(&lk_dummy_regs)
#define KSTK_EIP(t)	0UL
#define KSTK_ESP(t)	0UL

static inline void start_thread(struct pt_regs *r, unsigned long pc, unsigned long sp)
{
}

unsigned long __get_wchan(struct task_struct *p);
#define cpu_relax()	__asm__ __volatile__("pause" ::: "memory")
#endif

#endif
