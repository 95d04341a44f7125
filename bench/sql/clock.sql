-- The extension, the schema of the bench, and its clock

create extension meshhook_metrics;

create extension mhm_empty;

create schema bench;

-- Processor time that one execution of a statement takes
create function bench.cpu_nanoseconds(statement text) returns bigint
language plpgsql as $$
declare
    started bigint := mhm_empty.cpu_nanoseconds();
begin
    execute statement;
    return mhm_empty.cpu_nanoseconds() - started;
end
$$;
