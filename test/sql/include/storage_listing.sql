-- All that is in the schema, in words; leaves and their indexes among it
create function pg_temp.storage() returns setof text
language sql as $$
	select format('%s %s of %s, security %s, options %s, rights %s', c.relkind, c.oid::regclass, c.relowner::regrole, c.relrowsecurity, c.reloptions,
		(select string_agg(a::text, ' ' order by a::text) from unnest(c.relacl) a))
	from pg_class c
	where c.relnamespace = 'meshhook_metrics'::regnamespace
	union all
	select format('column %s.%s %s %s, default %s, identity %s, rights %s', a.attrelid::regclass, a.attname, format_type(a.atttypid, a.atttypmod),
		case when a.attnotnull then 'not null' else '' end, pg_get_expr(d.adbin, d.adrelid), a.attidentity,
		(select string_agg(r::text, ' ' order by r::text) from unnest(a.attacl) r))
	from pg_attribute a
	join pg_class c on c.oid = a.attrelid
	left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
	where c.relnamespace = 'meshhook_metrics'::regnamespace and a.attnum > 0 and not a.attisdropped
	union all
	select format('index %s', pg_get_indexdef(i.indexrelid))
	from pg_index i
	join pg_class c on c.oid = i.indexrelid
	where c.relnamespace = 'meshhook_metrics'::regnamespace
	union all
	select format('constraint %s on %s: %s', o.conname, o.conrelid::regclass, pg_get_constraintdef(o.oid))
	from pg_constraint o
	where o.connamespace = 'meshhook_metrics'::regnamespace
	union all
	select format('policy %s on %s: %s %s to %s using %s check %s', p.polname, p.polrelid::regclass, p.polpermissive, p.polcmd, p.polroles::regrole[], pg_get_expr(p.polqual, p.polrelid),
		pg_get_expr(p.polwithcheck, p.polrelid))
	from pg_policy p
	join pg_class c on c.oid = p.polrelid
	where c.relnamespace = 'meshhook_metrics'::regnamespace
	union all
	select format('trigger %s %s', pg_get_triggerdef(t.oid), t.tgenabled)
	from pg_trigger t
	join pg_class c on c.oid = t.tgrelid
	where c.relnamespace = 'meshhook_metrics'::regnamespace
	union all
	select format('function %s of %s, definer %s, rights %s, settings %s, text %s', f.oid::regprocedure, f.proowner::regrole, f.prosecdef,
		(select string_agg(a::text, ' ' order by a::text) from unnest(f.proacl) a), f.proconfig, md5(f.prosrc))
	from pg_proc f
	where f.pronamespace = 'meshhook_metrics'::regnamespace
	union all
	select format('comment on %s: %s', pg_describe_object(d.classoid, d.objoid, d.objsubid), d.description)
	from pg_description d
	left join pg_class c on c.oid = d.objoid and d.classoid = 'pg_class'::regclass
	left join pg_proc f on f.oid = d.objoid and d.classoid = 'pg_proc'::regclass
	where 'meshhook_metrics'::regnamespace in (c.relnamespace, f.pronamespace)
	union all
	select format('published %s.%s', schemaname, tablename)
	from pg_publication_tables
	where pubname = 'supabase_realtime'
$$;
