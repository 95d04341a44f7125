/*-------------------------------------------------------------------------
 *
 * transaction.h
 *	  Samples that count only when their transaction commits.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MHM_TRANSACTION_H
#define MHM_TRANSACTION_H

#include "cache.h"

extern void mhm_transaction_init(void);
extern void mhm_transaction_add(const MhmSampleKey *key, const MhmTarget *target,
								MhmOperation operation, double value);

#endif							/* MHM_TRANSACTION_H */
