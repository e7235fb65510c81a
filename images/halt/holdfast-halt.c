// SPDX-License-Identifier: GPL-2.0
/* A drill: as it is loaded, every CPU halts with interrupts off, and none ever wakes. */
#include <linux/cpumask.h>
#include <linux/irqflags.h>
#include <linux/module.h>
#include <linux/stop_machine.h>

static int halt_cpu(void *unused)
{
	for (;;) {
		raw_local_irq_disable();
		asm volatile("hlt");
	}
	return 0;
}

static int __init halt_all(void)
{
	return stop_machine(halt_cpu, NULL, cpu_online_mask);
}

module_init(halt_all);
MODULE_DESCRIPTION("Holdfast drill: halts every CPU for ever");
MODULE_LICENSE("GPL");
