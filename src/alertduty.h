/*-------------------------------------------------------------------------
 *
 * alertduty.h
 *	  What the flush worker does for alerts, and when.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MHM_ALERTDUTY_H
#define MHM_ALERTDUTY_H

extern void mhm_alerts_add_duties(void);
extern void mhm_alerts_after_flush(void);
extern void mhm_alerts_forget(void);

#endif							/* MHM_ALERTDUTY_H */
