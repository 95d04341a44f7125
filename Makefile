# meshhook_metrics
#
#   make                  build against the pg_config in PATH (PG_CONFIG=... for another)
#   make install          install into that PostgreSQL
#   make installcheck     pg_regress and isolation tests against a running server
#                         that has shared_preload_libraries = 'meshhook_metrics'
#   make test             every test, on private clusters   (SUITES="unit regress" picks,
#                         CLOCK="2028-02-28 23:58 UTC" sets their clock)
#   make test-long        soak and fault-injection loops
#   make demo             a small webhook engine, measured
#   make bench            what recording, flushing, rolling up, alerting and policies cost,
#                         one after the other (bench-record, bench-flush,
#                         bench-rollup, bench-alerts, bench-policies: one)
#
# test, test-long and demo install the packages they lack when run as root.

EXTENSION = meshhook_metrics
EXTVERSION = 0.1.0
MODULE_big = $(EXTENSION)

OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))
HEADER_FILES = $(wildcard src/*.h)

# The install script in the order in which its objects depend on each other
SQL_PARTS = sql/schema.sql sql/histogram.sql sql/record.sql sql/read.sql sql/flush.sql sql/sum.sql sql/state.sql sql/rollup.sql sql/maintain.sql sql/query.sql sql/alertvalues.sql sql/alerts.sql sql/notifications.sql sql/grants.sql
DATA = $(filter-out $(DATA_built),$(wildcard sql/$(EXTENSION)--*--*.sql))
DATA_built = sql/$(EXTENSION)--$(EXTVERSION).sql

# PostgreSQL's headers have inline functions with unused parameters and
# comparisons of mixed signs; everything else -Wextra knows stays on.
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare

REGRESS = $(patsubst test/sql/%.sql,%,$(sort $(wildcard test/sql/*.sql)))
REGRESS_OPTS = --inputdir=test
ISOLATION = $(patsubst test/isolation/specs/%.spec,%,$(sort $(wildcard test/isolation/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test/isolation

PG_CONFIG ?= pg_config
BENCHES = bench-record bench-flush bench-rollup bench-alerts bench-policies
TEST_GOALS = test test-long demo bench $(BENCHES)

# The runners install PostgreSQL where there is none, so these goals, and only
# these, must not ask pg_config first.
ifneq ($(MAKECMDGOALS),)
ifeq ($(filter-out $(TEST_GOALS),$(MAKECMDGOALS)),)
RUNNERS_ONLY = yes
endif
endif

ifndef RUNNERS_ONLY

PGXS := $(shell $(PG_CONFIG) --pgxs)
ifeq ($(PGXS),)
$(error $(PG_CONFIG) was not found. Install PostgreSQL's server headers (Debian: postgresql-server-dev-all) or name it: make PG_CONFIG=/path/to/pg_config)
endif

# A PostgreSQL built with LLVM wants its own clang for the bitcode; where that
# is not installed, build without bitcode instead of failing.
PG_CLANG := $(shell sed -n 's/^CLANG[ \t]*=[ \t]*//p' '$(dir $(PGXS))../Makefile.global')
ifeq ($(shell command -v $(firstword $(PG_CLANG) none) 2>/dev/null),)
override with_llvm = no
endif

include $(PGXS)

# pg_regress looks for expected/ in its output directory up to 15, and has an
# option of its own from 16.
ifneq ($(filter-out 15,$(MAJORVERSION)),)
REGRESS_OPTS += --expecteddir=.
endif

$(OBJS) $(OBJS:.o=.bc): $(HEADER_FILES) Makefile

$(DATA_built): $(SQL_PARTS) Makefile
	cat $(SQL_PARTS) > $@.tmp
	mv $@.tmp $@

endif

test:
	PG_CONFIG='$(PG_CONFIG)' COPT='$(COPT)' SUITES='$(SUITES)' CLOCK='$(CLOCK)' MAKE='$(MAKE)' test/run

test-long:
	PG_CONFIG='$(PG_CONFIG)' COPT='$(COPT)' SUITES='$(or $(SUITES),long)' CLOCK='$(CLOCK)' MAKE='$(MAKE)' test/run

demo:
	@PG_CONFIG='$(PG_CONFIG)' demo/run

# One after the other even under -j: each wants the machine for itself
bench:
	set -e; for name in record flush rollup alerts policies; do PG_CONFIG='$(PG_CONFIG)' bench/$$name; done

$(BENCHES): bench-%:
	PG_CONFIG='$(PG_CONFIG)' bench/$*

.PHONY: $(TEST_GOALS)
.DEFAULT_GOAL := all
