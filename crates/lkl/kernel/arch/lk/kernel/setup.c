// SPDX-License-Identifier: GPL-2.0-only
/* Boot: memory, console, the way out of a panic. */
#include <linux/console.h>
#include <linux/init.h>
#include <linux/irq.h>
#include <linux/memblock.h>
#include <linux/mm.h>
#include <linux/panic_notifier.h>
#include <linux/reboot.h>
#include <linux/seq_file.h>
#include <linux/string.h>
#include <asm/sections.h>
#include <asm/setup.h>
#include "lk_int.h"

void *lk_zero_page;

/* Entropy: the random number generator seeds and reseeds itself from here, see asm/archrandom.h. */
size_t lk_host_random(void *p, size_t n)
{
	long r = lk_ops.random(p, n);

	return r < 0 ? 0 : r;
}

static void lk_con_write(struct console *c, const char *s, unsigned int n)
{
	lk_ops.print(s, n);
}

/* CON_EXTENDED: the host wants to know each record's level. */
static struct console lk_con = {
	.name = "lk",
	.write = lk_con_write,
	.flags = CON_PRINTBUFFER | CON_ENABLED | CON_ANYTIME | CON_EXTENDED,
	.index = -1,
};

static int lk_panic_event(struct notifier_block *nb, unsigned long event, void *msg)
{
	lk_ops.panic(msg, strlen(msg));
	return 0;
}

static struct notifier_block lk_panic_block = {
	.notifier_call = lk_panic_event,
	.priority = INT_MIN,
};

static void lk_halt(void)
{
	static const char msg[] = "the kernel halted";

	lk_ops.panic(msg, sizeof(msg) - 1);
}

void (*pm_power_off)(void);

void machine_restart(char *cmd)
{
	lk_halt();
}

void machine_halt(void)
{
	lk_halt();
}

void machine_power_off(void)
{
	lk_halt();
}

void __init setup_arch(char **cmdline_p)
{
	unsigned long zones[MAX_NR_ZONES] = { 0 };

	register_console(&lk_con);
	atomic_notifier_chain_register(&panic_notifier_list, &lk_panic_block);
	*cmdline_p = boot_command_line;
	parse_early_param();
	memblock_add(LK_PHYS_BASE, lk_mem_end - lk_mem_start);
	min_low_pfn = ARCH_PFN_OFFSET;
	max_low_pfn = max_pfn = PFN_UP(__pa(lk_mem_end));
	high_memory = (void *)lk_mem_end;
	set_max_mapnr(max_low_pfn - min_low_pfn);
	zones[ZONE_NORMAL] = max_low_pfn;
	free_area_init(zones);
	lk_zero_page = memblock_alloc(PAGE_SIZE, PAGE_SIZE);
}

void __init mem_init(void)
{
	memblock_free_all();
}

#ifdef CONFIG_STRICT_KERNEL_RWX
/* Constants, and the tables of functions that the dynamic linker has relocated. */
void mark_rodata_ro(void)
{
	if (lk_ops.protect)
		lk_ops.protect(_sdata, __end_rodata - _sdata, 1);
}
#endif

/* The init sections belong to the shared object, not to our memory bank. */
void free_initmem(void)
{
}

void __init init_IRQ(void)
{
}

/* /proc/cpuinfo: empty */
static void *lk_cpu_start(struct seq_file *m, loff_t *pos)
{
	return NULL;
}

static void *lk_cpu_next(struct seq_file *m, void *v, loff_t *pos)
{
	return NULL;
}

static void lk_cpu_stop(struct seq_file *m, void *v)
{
}

static int lk_cpu_show(struct seq_file *m, void *v)
{
	return 0;
}

const struct seq_operations cpuinfo_op = {
	.start = lk_cpu_start,
	.next = lk_cpu_next,
	.stop = lk_cpu_stop,
	.show = lk_cpu_show,
};

/* /proc/interrupts: empty */
int show_interrupts(struct seq_file *p, void *v);
int show_interrupts(struct seq_file *p, void *v)
{
	return 0;
}
