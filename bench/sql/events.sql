-- One row per event, as people record today
create table bench.events (
    at timestamptz not null default now(),
    tenant uuid not null,
    metric text not null,
    labels jsonb not null,
    value float8 not null
);
