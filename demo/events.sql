-- What has happened to alerts since event :seen, a line each, for demo/run;
-- before it its number, and the seconds since :began.
select
	id,
	round(extract(epoch from at - :'began'), 1) as seconds,
	format('alert "%s" is %s%s', name, state, ': ' || (annotations ->> 'summary')) as line
from meshhook_metrics.alert_events
where id > :seen
order by id;
