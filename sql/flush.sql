-- Asking the flush worker

create function meshhook_metrics.flush(timeout interval default interval '10 seconds')
returns bigint
as 'MODULE_PATHNAME', 'mhm_flush'
language c volatile parallel unsafe;

comment on function meshhook_metrics.flush(interval) is
'Asks the worker for a flush now, waits until one that began after the call is committed, and returns its tick. What was recorded before the call can be read from the tables after it; under REPEATABLE READ, by the next transaction.
Errors: 57014 no flush was committed within timeout (the worker goes on trying, nothing is lost), 22023 a timeout that is not between 0 and a day, 22004 a null, 55000 no worker is running, the storage tables are not installed or meshhook_metrics is not preloaded, 42501 a database that is not served, 25006 a standby.';
