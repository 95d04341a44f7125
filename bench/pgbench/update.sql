\set id random(1, 100)
update bench.counters set value = value + 1 where id = :id;
