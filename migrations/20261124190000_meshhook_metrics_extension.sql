-- The extension: functions that record and read, and the type histogram. Where the
-- library is not preloaded, recording says which line is missing.

create extension if not exists meshhook_metrics;
