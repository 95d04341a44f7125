/*-------------------------------------------------------------------------
 *
 * descriptionduty.h
 *	  The flush worker's exchange with table metrics.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MHM_DESCRIPTIONDUTY_H
#define MHM_DESCRIPTIONDUTY_H

#include "duty.h"

extern Duty mhm_descriptions_duty;

extern bool mhm_descriptions_table_changed(void);
extern void mhm_descriptions_exchange(bool anyway);

#endif							/* MHM_DESCRIPTIONDUTY_H */
