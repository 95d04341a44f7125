-- Functions that show a mistake with everything a caller gets to see of it
create function pg_temp.mistake(statement text) returns text
language plpgsql as $$
declare
	message text;
	detail text;
	hint text;
begin
	execute statement;
	return 'no mistake';
exception when others then
	get stacked diagnostics
		message = message_text,
		detail = pg_exception_detail,
		hint = pg_exception_hint;
	return format('%s: %s', sqlstate, message)
		|| case when detail <> '' then E'\n  detail: ' || detail else '' end
		|| case when hint <> '' then E'\n  hint: ' || hint else '' end;
end
$$;

-- The same without the hint
create function pg_temp.brief_mistake(statement text) returns text
language sql as $$
	select regexp_replace(pg_temp.mistake(statement), '\n  hint: .*', '')
$$;
