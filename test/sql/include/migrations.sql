-- The migrations in order, as psql -f applies them
\ir ../../../migrations/20261124190000_meshhook_metrics_extension.sql
\ir ../../../migrations/20261124190100_meshhook_metrics_tables.sql
\ir ../../../migrations/20261124190150_meshhook_metrics_alerts.sql
\ir ../../../migrations/20261124190200_meshhook_metrics_security.sql
\ir ../../../migrations/20261124190300_meshhook_metrics_schedule.sql
