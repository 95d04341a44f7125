/*-------------------------------------------------------------------------
 *
 * workerdatabase.h
 *	  Which database the flush worker is connected to, and for how long.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MHM_WORKERDATABASE_H
#define MHM_WORKERDATABASE_H

extern void mhm_connect_to_database(void);
extern void mhm_end_if_database_changed(void);
extern void mhm_fix_settings(const char *application_name);
extern bool mhm_server_is_stopping(void);

#endif							/* MHM_WORKERDATABASE_H */
