/*-------------------------------------------------------------------------
 *
 * probe.h
 *	  What the probe's files share: how a process is stepped.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MHM_PROBE_H
#define MHM_PROBE_H

/* workerfaults.c */
extern void mhm_probe_watch_worker(void);

/*
 * Set or clear the processor's trap flag, clear of what is below the stack
 * pointer.  While it is set, SIGTRAP comes before every instruction.
 */
#ifdef __x86_64__
#define TRAP_FLAG 0x100L
#define STEP_BY_STEP() \
	__asm__ volatile("lea -128(%%rsp), %%rsp\n\tpushfq\n\torq $0x100, (%%rsp)\n\tpopfq\n\tlea 128(%%rsp), %%rsp" \
					 ::: "memory", "cc")
#define RUN_FREELY() \
	__asm__ volatile("lea -128(%%rsp), %%rsp\n\tpushfq\n\tandq $~0x100, (%%rsp)\n\tpopfq\n\tlea 128(%%rsp), %%rsp" \
					 ::: "memory", "cc")
#endif

#endif							/* MHM_PROBE_H */
