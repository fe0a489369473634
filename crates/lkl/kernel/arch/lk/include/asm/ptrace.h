/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _LK_PTRACE_H
#define _LK_PTRACE_H
#include <uapi/asm/ptrace.h>
#ifndef __ASSEMBLY__
struct pt_regs { unsigned long pc, sp, ret, fp; };
#define user_mode(r) 0
#define instruction_pointer(r) ((r)->pc)
#define user_stack_pointer(r) ((r)->sp)
#define profile_pc(r) instruction_pointer(r)
static inline unsigned long kernel_stack_pointer(struct pt_regs *r) { return r->sp; }
static inline void instruction_pointer_set(struct pt_regs *r, unsigned long v) { r->pc = v; }
static inline unsigned long regs_return_value(struct pt_regs *r) { return r->ret; }
#define current_pt_regs() (&lk_dummy_regs)
extern struct pt_regs lk_dummy_regs;
#endif
#endif
