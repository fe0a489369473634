/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _LK_CURRENT_H
#define _LK_CURRENT_H
#ifndef __ASSEMBLY__
struct task_struct;
extern struct task_struct *lk_current;
#define current lk_current
#endif
#endif
