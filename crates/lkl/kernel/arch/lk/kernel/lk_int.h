/* SPDX-License-Identifier: GPL-2.0-only */
/* What the files of the port share. */
#ifndef LK_INT_H
#define LK_INT_H

#include <linux/cleanup.h>
#include <linux/types.h>
#include <asm/lk.h>

extern struct lk_host_ops lk_ops;
extern struct task_struct *lk_host_task;
extern u64 lk_next_event, lk_nr_switch, lk_nr_timer;

void lk_timer_poll(void);
void lk_wall_clock_poll(void);
void lk_handover(void);
void lk_enter(void);
size_t lk_host_random(void *p, size_t n);
struct task_struct *__switch_to(struct task_struct *prev, struct task_struct *next);

/* Opens an API call: 0, -ESHUTDOWN (not up) or -EDEADLK (from inside a host operation). */
int lk_call_begin(void);
void lk_call_end(const int *refused);
/* Declares ERR with the answer, and closes an opened call at the end of the scope. */
#define LK_CALL(err)								\
	const int lk_refused __cleanup(lk_call_end) = lk_call_begin();		\
	int err = lk_refused

/*
 * Handles: an index in the low half, a generation above it that starts at random in every kernel.
 * The first member of the object that a handle names.
 */
enum lk_kind { LK_NIC = 1, LK_SOCK };
struct lk_object {
	u64 handle;
	enum lk_kind kind;
};
int lk_handle_add(struct lk_object *o, enum lk_kind kind);
void lk_handle_del(struct lk_object *o);
struct lk_object *lk_handle_get(u64 handle, enum lk_kind kind);
/* Any object of the kind, NULL if there is none left. */
struct lk_object *lk_handle_any(enum lk_kind kind, unsigned long *from);

/* lk_poll() and lk_run() for calls that are open already. */
void lk_do_poll(void);
u64 lk_do_run(void);

/* The one file of all sockets; see sock.c. */
extern struct file lk_file;
void lk_sock_close_all(void);
void lk_nic_detach_all(void);

#endif
