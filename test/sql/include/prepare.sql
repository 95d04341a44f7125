-- What every test of recording begins with: the extension, no series, and the
-- functions of mistake.sql
set client_min_messages = warning;
create extension if not exists meshhook_metrics;
reset client_min_messages;
do $$begin perform meshhook_metrics.reset(); end$$;
\ir mistake.sql
