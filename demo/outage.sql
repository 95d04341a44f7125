-- The service that initech's crm-sync calls goes down (:down), or is back.
\if :down
with outage as (
	insert into demo.outages (workflow_id, usual_failure_rate, began_at)
	select id, failure_rate, clock_timestamp()
	from demo.workflows
	where name = 'crm-sync'
	returning workflow_id
)
update demo.workflows w
set failure_rate = 1
from outage o
where w.id = o.workflow_id;
\else
with outage as (
	update demo.outages
	set ended_at = clock_timestamp()
	returning workflow_id, usual_failure_rate
)
update demo.workflows w
set failure_rate = o.usual_failure_rate
from outage o
where w.id = o.workflow_id;
\endif
