/*-------------------------------------------------------------------------
 *
 * alertduty.h
 *	  What the flush worker does for alerts, and when.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MHM_ALERTDUTY_H
#define MHM_ALERTDUTY_H

#include "duty.h"

extern Duty mhm_evaluate_duty;
extern Duty mhm_send_duty;

/* After a flush: is it time to evaluate the alert rules? */
extern bool mhm_evaluation_is_due(void);

#endif							/* MHM_ALERTDUTY_H */
