/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _LK_IRQFLAGS_H
#define _LK_IRQFLAGS_H

/* "Interrupts" are polled at well-known points only, so a flag is all we need. */
extern unsigned long lk_irq_on;
#define ARCH_IRQ_DISABLED	0
#define ARCH_IRQ_ENABLED	1

static inline unsigned long arch_local_save_flags(void)
{
	return lk_irq_on;
}
#define arch_local_save_flags arch_local_save_flags

static inline void arch_local_irq_restore(unsigned long flags)
{
	__asm__ __volatile__("" ::: "memory");
	lk_irq_on = flags;
	__asm__ __volatile__("" ::: "memory");
}
#define arch_local_irq_restore arch_local_irq_restore

#include <asm-generic/irqflags.h>

#endif
