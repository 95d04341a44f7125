/*-------------------------------------------------------------------------
 *
 * workerstate.h
 *	  What the flush worker and everybody else know of each other.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MHM_WORKERSTATE_H
#define MHM_WORKERSTATE_H

#include "datatype/timestamp.h"
#include "storage/condition_variable.h"
#include "storage/spin.h"

#define MHM_ERROR_LENGTH	256

/* What status() and prometheus() show of the worker */
typedef struct MhmWorkerReport
{
	int			pid;			/* 0: there is none */
	TimestampTz last_flush_at;	/* 0: not since the server started */
	double		last_flush_ms;
	uint64		tick;			/* the last one that is stored; 0: none known */
	TimestampTz last_evaluation_at; /* of alert rules; 0: not since the server started */
	double		last_evaluation_ms;
	uint64		evaluations;
	uint64		errors;
	bool		quotas_left_out;	/* there is no room for all of them */
	int			error_encoding; /* of last_error */
	char		last_error[MHM_ERROR_LENGTH];	/* empty while all is well */
} MhmWorkerReport;

typedef struct MhmWorkerState
{
	slock_t		mutex;			/* protects what follows */
	MhmWorkerReport report;
	uint64		requested;		/* flushes that were asked for */
	uint64		done;			/* the highest of them that is stored */
	bool		connecting;		/* set while the worker looks for its database */
	ConditionVariable stored;	/* a flush is */
} MhmWorkerState;

/* NULL unless we are preloaded */
extern MhmWorkerState *mhm_worker_state;

extern void mhm_worker_register(void);
extern void mhm_worker_request_memory(void);
extern void mhm_worker_attach_memory(void);

extern void mhm_worker_report(MhmWorkerReport *report);
extern bool mhm_flush_within(int64 timeout);

#endif							/* MHM_WORKERSTATE_H */
