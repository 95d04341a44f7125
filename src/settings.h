/*-------------------------------------------------------------------------
 *
 * settings.h
 *	  The settings meshhook_metrics.*
 *
 *-------------------------------------------------------------------------
 */
#ifndef MHM_SETTINGS_H
#define MHM_SETTINGS_H

#include "utils/uuid.h"

extern char *mhm_database;
extern int	mhm_max_series;
extern int	mhm_max_histograms;
extern int	mhm_max_series_per_tenant;
extern int	mhm_flush_interval; /* milliseconds */
extern int	mhm_alert_interval; /* milliseconds */
extern bool mhm_enabled;
extern bool mhm_on_commit;

extern void mhm_settings_define(bool preloading);

/* The tenant of a sample that names none: the session's, else the platform */
extern const pg_uuid_t *mhm_session_tenant(void);

extern bool mhm_parse_uuid(const char *text, int length, pg_uuid_t *uuid);

/* ERROR or WARNING: what a programmer's mistake in a recording call raises */
extern int	mhm_mistake_level(void);

#endif							/* MHM_SETTINGS_H */
