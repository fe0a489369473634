// SPDX-License-Identifier: GPL-2.0-only
/* Handles instead of pointers: a mistake of the host becomes -EBADF, not a wild access. */
#include <linux/random.h>
#include <linux/xarray.h>
#include "lk_int.h"

static DEFINE_XARRAY_ALLOC1(lk_objects);
static u32 lk_next_index;
static u32 lk_generation;

int lk_handle_add(struct lk_object *o, enum lk_kind kind)
{
	u32 index;
	int err;

	/* Random per kernel: a handle of another instance in this process is foreign here. */
	if (!lk_generation)
		lk_generation = get_random_u32();
	err = xa_alloc_cyclic(&lk_objects, &index, o, XA_LIMIT(1, INT_MAX), &lk_next_index,
			      GFP_KERNEL);
	if (err < 0)
		return err;
	/* The sign bit is for errors. */
	o->handle = (u64)(lk_generation++ & INT_MAX) << 32 | index;
	o->kind = kind;
	return 0;
}

void lk_handle_del(struct lk_object *o)
{
	xa_erase(&lk_objects, (u32)o->handle);
}

struct lk_object *lk_handle_get(u64 handle, enum lk_kind kind)
{
	struct lk_object *o = xa_load(&lk_objects, (u32)handle);

	return o && o->handle == handle && o->kind == kind ? o : NULL;
}

struct lk_object *lk_handle_any(enum lk_kind kind, unsigned long *from)
{
	struct lk_object *o;

	xa_for_each_start(&lk_objects, *from, o, *from)
		if (o->kind == kind)
			return o;
	return NULL;
}
