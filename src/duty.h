/*-------------------------------------------------------------------------
 *
 * duty.h
 *	  What the flush worker does again and again, and what comes of its errors.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MHM_DUTY_H
#define MHM_DUTY_H

#include <signal.h>

#include "portability/instr_time.h"
#include "workerstate.h"

/* How many errors that come in turns the log has once each */
#define MHM_DUTY_LOGGED		8

typedef struct Duty
{
	const char *what;			/* as in "could not ..." */
	int			timeout_ms;
	void		(*perform) (void);	/* begun in a transaction, and commits it */
	bool		of_each;		/* of others each time: success is not the end of what failed, its owner says what is */
	int			failures;		/* in a row */
	int			sqlerrcode;		/* of the last one */
	instr_time	failed;
	char		error[MHM_ERROR_LENGTH];
	struct
	{
		uint32		hash;		/* of the message */
		TimestampTz at;			/* 0: none */
	}			logged[MHM_DUTY_LOGGED];
	struct Duty *next;
} Duty;

/* May a signal cancel what is being done? */
extern volatile sig_atomic_t mhm_duty_cancellable;

extern void mhm_duty_note_shutdown(SIGNAL_ARGS);

extern void mhm_duty_add(Duty *duty);
extern bool mhm_duty_attempt(Duty *duty);
extern void mhm_duty_excuse(Duty *duty);
extern void mhm_duty_forget(Duty *duty);
extern void mhm_duty_forget_others(const Duty *duty);
extern void mhm_duty_take_over(Duty *duty, const Duty *from);
extern bool mhm_duty_backs_off(const Duty *duty, double *remaining_ms);
extern double mhm_milliseconds_since(instr_time then);

#endif							/* MHM_DUTY_H */
